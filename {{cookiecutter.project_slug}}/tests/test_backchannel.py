"""Logto says that somebody has signed out there."""

import secrets
from typing import Any

import pytest

from dev.local_logto import LocalLogto

EVENT = "http://schemas.openid.net/event/backchannel-logout"


def logout_token(local_logto: LocalLogto, typ: str = "logout+jwt", **changes: Any) -> str:
    """A logout token for Alice, signed by the local Logto."""
    claims = {
        "sub": local_logto.users["alice"].id,
        "aud": "test-app",
        "jti": secrets.token_hex(),
        "events": {EVENT: {}},
    }
    return local_logto.sign(claims | changes, 120, typ)


{{ cookiecutter.__async }}def post(client: Any, token: str) -> int:
    form = {"logout_token": token}
    answer = {{ cookiecutter.__await }}client.post("/backchannel-logout", {{ 'data' if cookiecutter.framework == 'flask' else 'form' }}=form)
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.status_code)


{{ cookiecutter.__async }}def is_signed_in(client: Any) -> bool:
    answer = {{ cookiecutter.__await }}client.get("/")
    return "Alice Archer" in {{ cookiecutter.__await }}answer.get_data(as_text=True)


{{ cookiecutter.__async }}def test_a_logout_token_ends_the_sessions_of_the_user_once(
    app: Any, signed_in: Any, local_logto: LocalLogto
) -> None:
    token = logout_token(local_logto)
    assert {{ cookiecutter.__await }}post(app.test_client(), token) == 200
    assert not {{ cookiecutter.__await }}is_signed_in(signed_in)
    assert {{ cookiecutter.__await }}post(app.test_client(), token) == 400


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
{{ cookiecutter.__async }}def test_a_logout_token_that_does_not_hold_ends_nothing(
    app: Any, signed_in: Any, local_logto: LocalLogto, changes: dict[str, Any]
) -> None:
    assert {{ cookiecutter.__await }}post(app.test_client(), logout_token(local_logto, **changes)) == 400
    assert {{ cookiecutter.__await }}is_signed_in(signed_in)


{{ cookiecutter.__async }}def test_a_token_that_logto_did_not_sign_ends_nothing(
    app: Any, signed_in: Any, local_logto: LocalLogto
) -> None:
    head, claims, signature = logout_token(local_logto).split(".")
    forged = f"{head}.{claims}.{signature[::-1]}"
    assert {{ cookiecutter.__await }}post(app.test_client(), forged) == 400
    assert {{ cookiecutter.__await }}is_signed_in(signed_in)
