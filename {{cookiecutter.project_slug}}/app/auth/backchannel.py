"""Back-channel logout: Logto says that a user has signed out, without the user's browser.

OpenID Connect Back-Channel Logout 1.0.
"""

import logging
import time
from typing import Any

import jwt
from {{ cookiecutter.framework }} import Blueprint, current_app, jsonify, request
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from ..sessions import StoreUnavailable, sessions
from .client import LogtoUnavailable, logto, one_line

backchannel = Blueprint("backchannel", __name__)
log = logging.getLogger(__name__)

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LEEWAY = 30
"""Seconds that the clocks of Logto and this machine may differ."""


@backchannel.post("/backchannel-logout")
async def backchannel_logout() -> ResponseReturnValue:
    """End the sessions that Logto's logout token names (section 2.5)."""
    form = {{ cookiecutter.__await }}request.form
    try:
        claims = await _verified(form.get("logout_token", ""))
        remaining = int(claims["exp"] - time.time()) + LEEWAY
        used = f"logout:{claims['jti']}"
        if not {{ cookiecutter.__await }}sessions.store.claim(used, ttl=max(remaining, 1)):
            raise jwt.InvalidTokenError("this token was used before")
        try:
            ended = {{ cookiecutter.__await }}sessions.store.delete_all(
                sid=claims.get("sid"), sub=None if claims.get("sid") else claims["sub"]
            )
        except StoreUnavailable:
            # Logto may send it again.
            {{ cookiecutter.__await }}sessions.store.release(used)
            raise
    except (jwt.InvalidTokenError, LogtoUnavailable, StoreUnavailable) as error:
        log.warning("Back-channel logout refused: %s", one_line(str(error)))
        return jsonify(error="invalid_request", error_description="Not a valid logout token."), 400
    log.info("Back-channel logout: sub=%s, %d sessions ended", claims.get("sub"), ended)
    return "", 200


async def _verified(token: str) -> dict[str, Any]:
    """The claims of a logout token, once every rule of section 2.6 holds."""
    key = await logto.signing_key(token)
    decoded = jwt.decode_complete(
        token,
        key,
        algorithms=[key.algorithm_name],
        issuer=logto.issuer,
        audience=current_app.config["LOGTO_APP_ID"],
        leeway=LEEWAY,
        options={"require": ["iss", "aud", "iat", "exp", "jti", "events"]},
    )
    claims: dict[str, Any] = decoded["payload"]
    if str(decoded["header"].get("typ")).lower() != "logout+jwt":
        raise jwt.InvalidTokenError("typ is not logout+jwt")
    if not isinstance(claims["events"], dict) or not isinstance(claims["events"].get(EVENT), dict):
        raise jwt.InvalidTokenError("events does not name a back-channel logout")
    if "nonce" in claims:
        raise jwt.InvalidTokenError("a logout token has no nonce")
    if not claims.get("sid") and not claims.get("sub"):
        raise jwt.InvalidTokenError("neither sid nor sub")
    return claims
