{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""Logto notifies the app that a user was suspended, deleted or changed."""

import hmac
import json
from typing import Any

import pytest
from conftest import Auth, Client, Start

from app.auth import logto_event
from dev.local_logto import LocalLogto

KEY = "signing-key"


async def post(client: Client, sent: Any, key: str = KEY) -> int:
    """Send a webhook to the app, and return the status of the response."""
    body = json.dumps(sent).encode()
    headers = {"logto-signature-sha-256": hmac.digest(key.encode(), body, "sha256").hex()}
    response = await client.post("/webhooks/logto", data=body, headers=headers)
    return response.status_code


def suspension(local_logto: LocalLogto, suspended: bool = True) -> dict[str, Any]:
    data = {"id": local_logto.users["alice"].id, "isSuspended": suspended}
    return {"event": "User.SuspensionStatus.Updated", "data": data}


async def test_a_suspended_user_is_signed_out(start: Start, local_logto: LocalLogto) -> None:
    app = await start(LOGTO_WEBHOOK_SIGNING_KEY=KEY)
    client, other = app.test_client(), app.test_client()
    await Auth(client).sign_in("alice")
    await Auth(other).sign_in("bob")
    assert await post(client, suspension(local_logto, suspended=False)) == 204
    assert await shown(client) == "Alice Archer"
    # Logto may send the same event twice.
    assert await post(client, suspension(local_logto)) == 204
    assert await post(client, suspension(local_logto)) == 204
    assert await shown(client) == ""
    assert await shown(other) == "Bob Baker"


async def shown(client: Client) -> str:
    """Return the name of the user that the home page shows."""
    response = await client.get("/")
    page = await response.get_data(as_text=True)
    return next((name for name in ("Alice Archer", "Bob Baker") if name in page), "")


async def test_every_event_is_sent_as_a_signal(start: Start) -> None:
    app, received = await start(LOGTO_WEBHOOK_SIGNING_KEY=KEY), []

    def receive(sender: object, event: str, data: Any) -> None:
        received.append((event, data))

    with logto_event.connected_to(receive, app):
        sent = {"event": "User.Created", "data": {"id": "x"}}
        assert await post(app.test_client(), sent) == 204
    assert received == [("User.Created", {"id": "x"})]


@pytest.mark.parametrize(
    ("sent", "key", "status"),
    [({"event": "User.Deleted"}, "other-key", 401), ([], KEY, 400), ("x" * 2**16, KEY, 413)],
)
async def test_a_webhook_that_is_not_valid_is_refused(
    start: Start, sent: Any, key: str, status: int
) -> None:
    app = await start(LOGTO_WEBHOOK_SIGNING_KEY=KEY)
    assert await post(app.test_client(), sent, key) == status


async def test_without_a_key_there_is_no_webhook(client: Client) -> None:
    assert await post(client, {"event": "User.Created"}, key="") == 404
{% endfilter %}
{% endfilter %}
