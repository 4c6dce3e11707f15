"""The commands, against the local Logto."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import CALLBACK, HOME

from app.cli import connector, logto
from app.cli.management import default_resource
from dev.local_logto import LocalLogto

Run = Callable[..., Result]


@pytest.fixture
def fresh_logto() -> Any:
    with LocalLogto(
        app_id="test-app", redirect_uris=[CALLBACK], post_logout_redirect_uris=[HOME]
    ) as fresh:
        {% if cookiecutter.api_resource %}
        resource = "{{ cookiecutter.api_resource }}"
        fresh.resources[resource] = []
        {% endif %}
        yield fresh


@pytest.fixture
def run(fresh_logto: LocalLogto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `{{ cookiecutter.framework }} logto ...` in an environment of its own."""
    variables = {
        "LOGTO_ENDPOINT": fresh_logto.endpoint,
        "LOGTO_APP_ID": "test-app",
        "LOGTO_APP_SECRET": "test-secret",
        "LOGTO_CALLBACK_URL": CALLBACK,
        {% if cookiecutter.api_resource %}
        "LOGTO_API_RESOURCE": "{{ cookiecutter.api_resource }}",
        {% endif %}
        "LOGTO_M2M_APP_ID": "local-m2m",
        "LOGTO_M2M_APP_SECRET": "machine-secret",
        "LOGTO_MANAGEMENT_RESOURCE": "",
        "LOGTO_MANAGEMENT_TOKEN_ENDPOINT": "",
        "AZURE_CLIENT_ID": "azure-id",
        "AZURE_CLIENT_SECRET": "azure-secret",
        "SESSION_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return lambda *words, **more: CliRunner().invoke(logto, words, env=more)


def test_a_right_set_up_is_green(run: Run) -> None:
    done = run("check")
    assert done.exit_code == 0, done.output


def test_what_is_wrong_is_red_and_says_what_to_paste(run: Run, fresh_logto: LocalLogto) -> None:
    fresh_logto.application.redirect_uris = []
    done = run("check", "--json")
    red = [row for row in json.loads(done.output)["checks"] if row["ok"] is False]
    assert done.exit_code == 1
    assert [(row["name"], row["value"]) for row in red] == [("callback_url", CALLBACK)]


def test_a_missing_variable_is_a_row_too(run: Run) -> None:
    done = run("check", LOGTO_APP_SECRET="")
    assert done.exit_code == 1
    assert "LOGTO_APP_SECRET" in done.output


def test_provision_makes_a_blank_logto_ready_once(run: Run, fresh_logto: LocalLogto) -> None:
    fresh_logto.clear()
    done = run("provision")
    assert done.exit_code == 0, done.output
    assert f"{fresh_logto.endpoint}/callback/azuread" in done.output
    assert "secret" not in done.output.replace("clientSecret", "")
    assert run("check").exit_code == 0
    assert "nothing to do" in run("provision").output


@pytest.mark.parametrize(
    ("endpoint", "resource"),
    [
        ("https://books.logto.app", "https://books.logto.app/api"),
        ("https://login.books.example", "https://default.logto.app/api"),
    ],
)
def test_the_management_api_is_that_of_the_tenant(endpoint: str, resource: str) -> None:
    assert default_resource(endpoint) == resource


def test_git_gets_no_secret_of_azure() -> None:
    assert connector.read()["clientSecret"] == "<client-secret>"
