"""Notifications from Logto: a user has signed out elsewhere, was suspended, changed or deleted.

The sections are those of OpenID Connect Back-Channel Logout 1.0. Webhooks are Logto's.
"""

import hmac
import json
import logging
import time
from contextlib import suppress
from typing import Any

import jwt
from blinker import signal
from {{ cookiecutter.framework }} import Blueprint, abort, current_app, jsonify, request
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from ..server.headers import open_to_other_sites
from ..server.logs import printable
from ..server.sessions import store
from ..server.stores import StoreFull, StoreUnavailable
from .client import logto
from .oidc import LEEWAY, LogtoUnavailable

bp = Blueprint("logout", __name__)
log = logging.getLogger(__name__)

MAX_LIFETIME = 600  # Seconds that a logout token may be valid, and that an ended `sid` is saved.
EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_WEBHOOK_SIZE = 2**16  # Bytes of the body.

logto_event = signal("logto-event")
"""A signal for each webhook, with `event=` such as "User.Created" and `data=` from Logto."""


@bp.post("/backchannel-logout")
@open_to_other_sites
async def backchannel_logout() -> ResponseReturnValue:
    """End the sessions that the logout token names (Back-Channel Logout, 2.5)."""
    form = {{ cookiecutter.__await }}request.form
    try:
        claims = await _verified(form.get("logout_token", ""))
        remaining = int(claims["exp"] - time.time()) + LEEWAY
        used, sid = f"logout:{claims['jti']}", claims.get("sid")
        with suppress(StoreFull):
            if not {{ cookiecutter.__await }}store.lock(used, max(remaining, 1)):
                raise jwt.InvalidTokenError("this token was used before")
        try:
            with suppress(StoreFull):
                # Save this mark before the deletion: a finishing sign-in looks for the mark.
                if sid:
                    {{ cookiecutter.__await }}store.create(f"ended:{sid}", {"ended": True}, MAX_LIFETIME, index={})
            ended = {{ cookiecutter.__await }}store.delete_all({"sid": sid, "sub": claims.get("sub")})
        except BaseException:
            # Accept the token again: Logto may send the same token later.
            {{ cookiecutter.__await }}store.delete(used)
            raise
    except (jwt.PyJWTError, LogtoUnavailable, StoreUnavailable) as error:
        log.warning("Back-channel logout refused: %s", printable(error))
        return jsonify(error="invalid_request", error_description="Invalid logout token."), 400
    log.info("Back-channel logout: sub=%s, %d sessions ended", claims.get("sub"), ended)
    return "", 200


async def _verified(token: str) -> dict[str, Any]:
    """Verify a logout token (Back-Channel Logout, 2.6). Return its claims, or raise PyJWTError."""
    key = await logto.oidc.signing_key(token)
    app_id, require = current_app.config["LOGTO_APP_ID"], ["jti", "events"]
    claims = logto.oidc.decode(token, key, typ="logout+jwt", require=require, audience=app_id)
    if claims["exp"] - claims["iat"] > MAX_LIFETIME:
        raise jwt.InvalidTokenError(f"the token is valid for more than {MAX_LIFETIME} s")
    if not isinstance(claims["events"], dict) or not isinstance(claims["events"].get(EVENT), dict):
        raise jwt.InvalidTokenError("events does not name a back-channel logout")
    if "nonce" in claims:
        raise jwt.InvalidTokenError("a logout token must not have a nonce")
    if not claims.get("sid") and not claims.get("sub"):
        raise jwt.InvalidTokenError("the token has neither sid nor sub")
    return claims


@bp.post("/webhooks/logto")
@open_to_other_sites
{{ cookiecutter.__async }}def webhook() -> ResponseReturnValue:
    """End all sessions of a user whom Logto has suspended or deleted, and send `logto_event`.

    After an error response, Logto sends the event again. A repeated event does no harm.
    """
    if not (key := current_app.config["LOGTO_WEBHOOK_SIGNING_KEY"]):
        abort(404)
    {% if not cookiecutter.__async %}
    request.max_content_length = MAX_WEBHOOK_SIZE + 1  # Werkzeug cuts a longer chunked body.
    {% endif %}
    body: bytes = {{ cookiecutter.__await }}request.data
    if len(body) > MAX_WEBHOOK_SIZE:
        abort(413)
    signature = request.headers.get("logto-signature-sha-256", "").encode()
    if not hmac.compare_digest(hmac.digest(key.encode(), body, "sha256").hex().encode(), signature):
        log.warning("Webhook refused: it is not signed with LOGTO_WEBHOOK_SIGNING_KEY")
        abort(401)
    try:
        sent = json.loads(body)
        event, data = sent["event"], sent.get("data")
        suspended = event == "User.SuspensionStatus.Updated" and data["isSuspended"]
        sub = data["id"] if suspended or event == "User.Deleted" else None
    except (KeyError, RecursionError, TypeError, ValueError):
        abort(400)
    if sub:
        ended = {{ cookiecutter.__await }}store.delete_all({"sub": sub})
        log.info("Webhook %s: sub=%s, %d sessions ended", event, sub, ended)
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined, unused-ignore]
    {% if cookiecutter.__async %}
    await logto_event.send_async(app, event=event, data=data, _sync_wrapper=app.ensure_async)
    {% else %}
    logto_event.send(app, event=event, data=data)
    {% endif %}
    return "", 204
