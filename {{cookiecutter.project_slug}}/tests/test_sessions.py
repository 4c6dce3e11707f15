"""How long a session stands, and what ends it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import sign_in

from app import SESSION_COOKIE, create_app
from app.config import Config
from dev.local_logto import LocalLogto


@pytest.fixture
def expired(local_logto: LocalLogto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Access tokens whose end is so near that the SDK renews them."""
    monkeypatch.setattr(local_logto, "access_token_lifetime", 30)


{{ cookiecutter.__async }}def test_an_expired_access_token_is_refreshed(
    client: Any, local_logto: LocalLogto, expired: None
) -> None:
    {{ cookiecutter.__await }}sign_in(client)
    before = local_logto.requests.count(("POST", "/oidc/token"))
    answer = {{ cookiecutter.__await }}client.get("/profile")
    assert answer.status_code == 200
    assert local_logto.requests.count(("POST", "/oidc/token")) > before


{{ cookiecutter.__async }}def test_a_suspended_user_is_out_when_the_access_token_expires(
    client: Any, local_logto: LocalLogto, expired: None
) -> None:
    {{ cookiecutter.__await }}sign_in(client, user="bob")
    local_logto.suspend("bob")
    try:
        answer = {{ cookiecutter.__await }}client.get("/profile")
        assert answer.headers["Location"] == "/sign-in?next=/profile"
        home = {{ cookiecutter.__await }}client.get("/")
        assert "Bob Baker" not in {{ cookiecutter.__await }}home.get_data(as_text=True)
    finally:
        local_logto.users["bob"].suspended = False


{{ cookiecutter.__async }}def test_a_logto_that_is_away_is_said_to_be_unavailable(config: Config) -> None:
    away = create_app(replace(config, LOGTO_ENDPOINT="http://localhost:1")).test_client()
    answer = {{ cookiecutter.__await }}away.get("/sign-in")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "Sign-in is unavailable" in {{ cookiecutter.__await }}answer.get_data(as_text=True)


{{ cookiecutter.__async }}def test_a_session_store_that_fails_is_said_to_be_unavailable(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}"
    client = create_app(replace(config, SESSION_URL=url)).test_client()
    answer = {{ cookiecutter.__await }}client.get("/sign-in")
    assert answer.status_code == 503
    assert "Traceback" not in caplog.text


{{ cookiecutter.__async }}def test_a_session_gets_a_new_id_at_sign_in(client: Any) -> None:
    first = {{ cookiecutter.__await }}sign_in(client)
    second = {{ cookiecutter.__await }}sign_in(client)
    ids = [session_cookie(answer) for answer in (first, second)]
    assert ids[0] != ids[1]
    assert "HttpOnly" in ids[0]
    assert "SameSite=Lax" in ids[0]


def session_cookie(answer: Any) -> str:
    name = f"{SESSION_COOKIE}="
    (cookie,) = [c for c in answer.headers.getlist("Set-Cookie") if c.startswith(name)]
    return str(cookie)
