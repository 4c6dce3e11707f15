"""The baked app with an API, and additional views that require an access token.

TEST_KEY_INTERVAL sets the minimum of seconds between two fetches of Logto's keys. TEST_KEY_AGE sets
the seconds after which the app fetches the keys again.
"""

import os
from typing import Any

import served
from app.auth import access_token_required, current_token, keys


def create_app() -> Any:
    created = served.create_app()
    keys.MIN_INTERVAL = float(os.environ.get("TEST_KEY_INTERVAL", keys.MIN_INTERVAL))
    keys.MAX_AGE = float(os.environ.get("TEST_KEY_AGE", keys.MAX_AGE))
    for name, guard in {
        "token": access_token_required(),
        "organization": access_token_required(organization=True),
        "both": access_token_required("read:books", "write:books"),
    }.items():
        created.add_url_rule(f"/api/test/{name}", f"api_{name}", guard(token_fields))
    guard = access_token_required()
    created.add_url_rule("/api/test/form", "api_form", guard(token_fields), methods=["POST"])
    created.add_url_rule("/api/test/failure", "api_failure", served.failure)
    return created


async def token_fields() -> dict[str, Any]:
    """Return what the app knows about the access token."""
    return {
        "true": bool(current_token),
        "subject": current_token.subject,
        "user_id": current_token.user_id,
        "client_id": current_token.client_id,
        "scopes": sorted(current_token.scopes),
        "organization": current_token.organization,
        "claims": dict(current_token.claims),
    }
