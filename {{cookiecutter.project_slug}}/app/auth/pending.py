"""Sign-ins that are not finished yet.

Each sign-in has a separate cookie and entry in the session store, so several tabs can sign in.
"""

import secrets

from {{ cookiecutter.framework }} import current_app, request
from werkzeug.sansio.response import Response

from ..server.sessions import cookie_attributes, store, store_key

LIFETIME = 15 * 60  # Seconds that a user has to sign in.
MAX_UNFINISHED = 20  # Unfinished sign-ins of one browser. A further sign-in removes the oldest.


{{ cookiecutter.__async }}def remember(response: Response, state: str, attempt: dict[str, str], target: str) -> None:
    """Save a sign-in attempt and its target page for the browser that gets the response."""
    # Browsers send the oldest cookie first (RFC 6265, 5.4).
    unfinished = [name for name in request.cookies if name.startswith(cookie_name(""))]
    for name in unfinished[: max(0, len(unfinished) - MAX_UNFINISHED + 1)]:
        response.delete_cookie(name, **cookie_attributes(current_app))
    cookie = secrets.token_urlsafe(32)
    # The prefix separates this from sessions: neither cookie works in place of the other.
    key, entry = f"sign-in:{store_key(cookie)}", {"attempt": attempt, "target": target}
    {{ cookiecutter.__await }}store.create(key, entry, LIFETIME, index={})
    # Lax even if SESSION_COOKIE_SAMESITE is Strict: the callback comes from another site.
    attributes = cookie_attributes(current_app, samesite="Lax")
    response.set_cookie(cookie_name(state), cookie, max_age=LIFETIME, **attributes)


{{ cookiecutter.__async }}def take(state: str) -> tuple[dict[str, str] | None, str | None]:
    """Return the attempt and the target page of a sign-in that this browser started.

    If several requests have the same callback URL, only the first gets the attempt.
    """
    cookie = request.cookies.get(cookie_name(state))
    if not state or not cookie:
        return None, None
    key = f"sign-in:{store_key(cookie)}"
    pending = {{ cookiecutter.__await }}store.load(key)
    if pending is None:
        return None, None
    lock = f"taken-{key}"
    first = {{ cookiecutter.__await }}store.lock(lock, LIFETIME)
    return {**pending["attempt"], "lock": lock} if first else None, pending["target"]


def cookie_name(state: str) -> str:
    """Return the name of the cookie of the sign-in with this `state`."""
    name = current_app.session_interface.get_cookie_name(current_app)
    return f"{name}-sign-in-{state}"
