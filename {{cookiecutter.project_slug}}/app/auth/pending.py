"""Sign-ins that were started and are not finished yet.

Each sign-in has a separate cookie and a separate entry in the session store. So several tabs can
sign in at once, and the session does not change until a sign-in succeeds.
"""

import secrets

from {{ cookiecutter.framework }} import current_app, request
from werkzeug.sansio.response import Response

from ..server.sessions import cookie_attributes, store, store_key

LIFETIME = 15 * 60  # Seconds that a user has to sign in.
MAX_UNFINISHED = 10  # Unfinished sign-ins of one browser, before a new one removes the others.


{{ cookiecutter.__async }}def remember(response: Response, state: str, attempt: str, target: str) -> None:
    """Save the SDK's attempt and the target, for the browser that gets the response.

    Raises:
        StoreUnavailable
    """
    unfinished = [name for name in request.cookies if name.startswith(cookie_name(""))]
    for name in unfinished if len(unfinished) >= MAX_UNFINISHED else ():
        response.delete_cookie(name, **cookie_attributes(current_app))
    cookie = secrets.token_urlsafe(32)
    # Not the key of a session: neither cookie works in place of the other.
    key = store_key(f"sign-in {cookie}")
    entry = {"attempt": attempt, "target": target}
    {{ cookiecutter.__await }}store.create(key, entry, LIFETIME, index={})
    response.set_cookie(
        cookie_name(state), cookie, max_age=LIFETIME, **cookie_attributes(current_app)
    )


{{ cookiecutter.__async }}def take(state: str) -> tuple[str, str] | None:
    """Return the attempt and the target of a sign-in that this browser started, and delete them.

    Raises:
        StoreUnavailable
    """
    cookie = request.cookies.get(cookie_name(state))
    if not state or not cookie:
        return None
    key = store_key(f"sign-in {cookie}")
    pending = {{ cookiecutter.__await }}store.load(key)
    # Of two requests with the same callback, only the one that deletes the entry continues.
    if pending is None or not {{ cookiecutter.__await }}store.delete(key):
        return None
    return pending["attempt"], pending["target"]


def cookie_name(state: str) -> str:
    """Return the name of the cookie of the sign-in with this `state`."""
    name = current_app.session_interface.get_cookie_name(current_app)
    return f"{name}-sign-in-{state}"
