"""Tests of the configuration, from the environment and `.env`."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Start

from app.config import Config, ConfigError

GOOD = {
    "LOGTO_ENDPOINT": "https://example.logto.app/",
    "LOGTO_APP_ID": "my-app",
    "LOGTO_APP_SECRET": "my-secret",
    "LOGTO_CALLBACK_URL": "https://books.example/callback",
    {% if cookiecutter.api_resource %}
    "LOGTO_API_RESOURCE": "https://api.books.example",
    {% endif %}
}


@pytest.fixture(autouse=True)
def empty_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read only the `.env` that a test writes."""
    monkeypatch.setattr("app.config.PROJECT_DIR", tmp_path)


def test_a_complete_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    settings = Config.from_env()
    assert settings.POST_SIGN_OUT_URI == "https://books.example/"
    assert settings.SESSION_LIFETIME_HOURS == 12


def test_a_real_variable_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text("LOGTO_APP_ID=from-file\nSESSION_LIFETIME_HOURS=3\n")
    # `from_env` sets the variable. With these lines, pytest removes it after the test.
    monkeypatch.setenv("SESSION_LIFETIME_HOURS", "1")
    monkeypatch.delenv("SESSION_LIFETIME_HOURS")
    settings = Config.from_env()
    assert settings.LOGTO_APP_ID == "my-app"
    assert settings.SESSION_LIFETIME_HOURS == 3


def test_all_problems_are_reported_at_once_and_without_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGTO_ENDPOINT", "http://logto.example/path")
    monkeypatch.setenv("LOGTO_APP_SECRET", "hush-hush")
    monkeypatch.setenv("LOGTO_CALLBACK_URL", "https://books.example/")
    monkeypatch.setenv("SESSION_URL", "mysql://root:password@db")
    monkeypatch.setenv("SESSION_LIFETIME_HOURS", "soon")
    with pytest.raises(ConfigError) as caught:
        Config.from_env()
    message = caught.value.format_message()
    for name in (
        "LOGTO_ENDPOINT",
        "LOGTO_APP_ID",
        "LOGTO_CALLBACK_URL",
        "SESSION_URL",
        "SESSION_LIFETIME_HOURS",
    ):
        assert name in message
    assert "hush-hush" not in message
    assert "password" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOGTO_ENDPOINT", "https://user:hunter2@example.logto.app"),
        ("LOGTO_ENDPOINT", "https://example .app"),
        ("LOGTO_ENDPOINT", "https://example.app:port"),
        ("LOGTO_CALLBACK_URL", "https://books.example/<path:anything>"),
        ("LOGTO_CALLBACK_URL", "https://books.example/a/../b"),
        ("LOGTO_CALLBACK_URL", "https://books.example"),
        ("SESSION_URL", "sqlite:///"),
        ("SESSION_URL", "redis://:hunter2/1@localhost:6379/0"),
        ("SESSION_URL", "redis://localhost:port"),
        ("SESSION_URL", "redis://localhost?foo=bar"),
        ("SESSION_URL", "redis://localhost?ssl=true"),
        ("SESSION_URL", "redis://localhost/prod"),
        ("SESSION_URL", "redis+cluster://localhost/1"),
        ("SESSION_URL", "redis+cluster://localhost?retry_on_timeout=yes"),
    ],
)
def test_a_wrong_value_is_reported_before_the_app_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for good in GOOD.items():
        monkeypatch.setenv(*good)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Config.from_env()
    message = caught.value.format_message()
    assert name in message
    assert "hunter2" not in message


def test_spaces_and_newlines_around_a_value_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, f" {value}\r\n")
    monkeypatch.setenv("SESSION_URL", "rediss+cluster://localhost:6380\n")
    config = Config.from_env()
    assert {name: getattr(config, name) for name in GOOD} == GOOD
    assert config.SESSION_URL == "rediss+cluster://localhost:6380"


@pytest.mark.parametrize(
    ("callback", "origin"),
    [
        ("https://Books.Example:443/callback", "https://books.example"),
        ("http://LOCALHOST:3000/callback", "http://localhost:3000"),
        ("http://localhost:8080/callback", "http://localhost:8080"),
    ],
)
def test_the_origin_is_written_as_browsers_send_it(
    config: Config, callback: str, origin: str
) -> None:
    assert origin == replace(config, LOGTO_CALLBACK_URL=callback).ORIGIN


def test_https_in_capitals_is_https(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert Config.from_env().SESSION_COOKIE_SECURE
    monkeypatch.setenv("LOGTO_CALLBACK_URL", "HTTPS://Books.example/callback/")
    assert Config.from_env().SESSION_COOKIE_SECURE


@pytest.mark.parametrize("path", ["/profile", "/sign-in/", "/static/callback", "/sign-out"])
{{ cookiecutter.__async }}def test_the_callback_cannot_have_the_path_of_another_page(start: Start, path: str) -> None:
    with pytest.raises(ConfigError, match="LOGTO_CALLBACK_URL"):
        {{ cookiecutter.__await }}start(LOGTO_CALLBACK_URL=f"https://books.example{path}")
