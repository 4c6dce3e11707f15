{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""How long a session lives, and what ends it."""

from pathlib import Path

import pytest
from conftest import Auth, Client, Response, Start

from dev.local_logto import LocalLogto


@pytest.fixture
def expired(local_logto: LocalLogto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue access tokens that expire so soon that the SDK refreshes them."""
    monkeypatch.setattr(local_logto, "access_token_lifetime", 30)


async def test_an_expired_access_token_is_refreshed(
    client: Client, auth: Auth, local_logto: LocalLogto, expired: None
) -> None:
    await auth.sign_in()
    before = local_logto.requests.count(("POST", "/oidc/token"))
    response = await client.get("/profile")
    assert response.status_code == 200
    assert local_logto.requests.count(("POST", "/oidc/token")) > before


async def test_a_suspended_user_is_signed_out_when_the_access_token_expires(
    client: Client, auth: Auth, local_logto: LocalLogto, expired: None
) -> None:
    await auth.sign_in("bob")
    local_logto.suspend("bob")
    try:
        response = await client.get("/profile")
        assert response.headers["Location"] == "/sign-in?next=/profile"
        home = await client.get("/")
        assert "Bob Baker" not in await home.get_data(as_text=True)
    finally:
        local_logto.users["bob"].suspended = False


async def test_without_logto_the_sign_in_is_unavailable(start: Start) -> None:
    app = await start(LOGTO_ENDPOINT="http://localhost:1")
    response = await app.test_client().get("/sign-in")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert "Sign-in is unavailable" in await response.get_data(as_text=True)


async def test_without_a_session_store_the_sign_in_is_unavailable(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(SESSION_URL=f"sqlite:///{tmp_path}")
    response = await app.test_client().get("/sign-in")
    assert response.status_code == 503
    assert "Traceback" not in caplog.text


async def test_a_session_gets_a_new_id_at_sign_in(auth: Auth) -> None:
    first = await auth.sign_in()
    second = await auth.sign_in()
    cookies = [session_cookie(response) for response in (first, second)]
    assert cookies[0] != cookies[1]
    assert "HttpOnly" in cookies[0]
    assert "SameSite=Lax" in cookies[0]


def session_cookie(response: Response) -> str:
    name = "{{ cookiecutter.project_slug }}-session="
    (cookie,) = [c for c in response.headers.getlist("Set-Cookie") if c.startswith(name)]
    return cookie
{% endfilter %}
{% endfilter %}
