{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""Logto notifies the app that a user has signed out elsewhere."""

import secrets
from typing import Any

import pytest
from conftest import Auth, Client

from dev.local_logto import LocalLogto

EVENT = "http://schemas.openid.net/event/backchannel-logout"


def logout_token(local_logto: LocalLogto, typ: str = "logout+jwt", **changes: Any) -> str:
    """Return a logout token for Alice, signed by the local Logto."""
    claims = {
        "sub": local_logto.users["alice"].id,
        "aud": "test-app",
        "jti": secrets.token_hex(),
        "events": {EVENT: {}},
    }
    return local_logto.sign(claims | changes, 120, typ)


async def post(client: Client, token: str) -> int:
    """Send a logout token to the app, and return the status of the response."""
    form = {"logout_token": token}
    response = await client.post("/backchannel-logout", {{ 'form' if cookiecutter.__async else 'data' }}=form)
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code


async def is_signed_in(client: Client) -> bool:
    response = await client.get("/")
    return "Alice Archer" in await response.get_data(as_text=True)


async def test_a_logout_token_ends_the_sessions_of_the_user_once(
    client: Client, auth: Auth, local_logto: LocalLogto
) -> None:
    await auth.sign_in()
    token = logout_token(local_logto)
    assert await post(client, token) == 200
    assert not await is_signed_in(client)
    assert await post(client, token) == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "JWT"},
        {"aud": "another-app"},
        {"events": {}},
        {"nonce": "n"},
        {"sub": ""},
    ],
)
async def test_an_invalid_logout_token_ends_nothing(
    client: Client, auth: Auth, local_logto: LocalLogto, changes: dict[str, Any]
) -> None:
    await auth.sign_in()
    assert await post(client, logout_token(local_logto, **changes)) == 400
    assert await is_signed_in(client)


async def test_a_token_that_logto_did_not_sign_ends_nothing(
    client: Client, auth: Auth, local_logto: LocalLogto
) -> None:
    await auth.sign_in()
    head, claims, signature = logout_token(local_logto).split(".")
    assert await post(client, f"{head}.{claims}.{signature[::-1]}") == 400
    assert await is_signed_in(client)
{% endfilter %}
{% endfilter %}
