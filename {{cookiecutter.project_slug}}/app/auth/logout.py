"""Back-channel logout: Logto notifies the app that a user has signed out elsewhere.

The rules are those of OpenID Connect Back-Channel Logout 1.0.
"""

import logging
import time
from typing import Any

import jwt
from {{ cookiecutter.framework }} import Blueprint, current_app, jsonify, request
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from ..server.headers import open_to_other_sites
from ..server.logs import printable
from ..server.sessions import store
from ..server.stores import StoreUnavailable
from .client import logto
from .oidc import LEEWAY, LogtoUnavailable

bp = Blueprint("logout", __name__)
log = logging.getLogger(__name__)

LONGEST = 600  # Seconds that a logout token may be valid, and that an ended `sid` is remembered.
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@bp.post("/backchannel-logout")
@open_to_other_sites
async def backchannel_logout() -> ResponseReturnValue:
    """End the sessions that the logout token names (section 2.5)."""
    form = {{ cookiecutter.__await }}request.form
    try:
        claims = await _verified(form.get("logout_token", ""))
        remaining = int(claims["exp"] - time.time()) + LEEWAY
        used, sid = f"logout:{claims['jti']}", claims.get("sid")
        if not {{ cookiecutter.__await }}store.lock(used, max(remaining, 1)):
            raise jwt.InvalidTokenError("this token was used before")
        try:
            if sid:
                # Before the deletion: a sign-in that is being finished looks for this.
                {{ cookiecutter.__await }}store.create(f"ended:{sid}", {"ended": True}, LONGEST, index={})
            ended = {{ cookiecutter.__await }}store.delete_all({"sid": sid, "sub": claims.get("sub")})
        except BaseException:
            # Logto may send the token again.
            {{ cookiecutter.__await }}store.delete(used)
            raise
    except (jwt.PyJWTError, LogtoUnavailable, StoreUnavailable) as error:
        log.warning("Back-channel logout refused: %s", printable(error))
        return jsonify(error="invalid_request", error_description="Not a valid logout token."), 400
    log.info("Back-channel logout: sub=%s, %d sessions ended", claims.get("sub"), ended)
    return "", 200


async def _verified(token: str) -> dict[str, Any]:
    """Return the claims of a logout token that keeps every rule of section 2.6."""
    key = await logto.oidc.signing_key(token)
    app_id = current_app.config["LOGTO_APP_ID"]
    require = ["jti", "events"]
    claims = logto.oidc.decode(token, key, typ="logout+jwt", require=require, audience=app_id)
    if claims["exp"] - claims["iat"] > LONGEST:
        raise jwt.InvalidTokenError("it is valid for too long")
    if not isinstance(claims["events"], dict) or not isinstance(claims["events"].get(EVENT), dict):
        raise jwt.InvalidTokenError("events does not name a back-channel logout")
    if "nonce" in claims:
        raise jwt.InvalidTokenError("a logout token has no nonce")
    if not claims.get("sid") and not claims.get("sub"):
        raise jwt.InvalidTokenError("neither sid nor sub")
    return claims
