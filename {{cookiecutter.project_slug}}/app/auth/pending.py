"""Sign-ins that were started and are not finished yet.

Each sign-in has a separate cookie and a separate entry in the session store. So several tabs can
sign in at once, and the session does not change until a sign-in succeeds.
"""

from {{ cookiecutter.framework }} import current_app, request
from werkzeug.sansio.response import Response

from ..server.sessions import cookie_attributes, new_id, store, store_key

LIFETIME = 15 * 60  # Seconds that a user has to sign in.
MAX_UNFINISHED = 10  # Unfinished sign-ins of one browser, before a new one removes the others.


{{ cookiecutter.__async }}def remember(response: Response, state: str, attempt: str, target: str) -> None:
    """Save the SDK's attempt and the target, for the browser that gets the response.

    Raises:
        StoreUnavailable
    """
    unfinished = [name for name in request.cookies if name.startswith(_cookie_name(""))]
    for name in unfinished if len(unfinished) >= MAX_UNFINISHED else ():
        response.delete_cookie(name, **cookie_attributes(current_app))
    cookie = new_id()
    entry = {"attempt": attempt, "target": target}
    {{ cookiecutter.__await }}store.create(_entry_key(cookie), entry, LIFETIME, index={})
    response.set_cookie(
        _cookie_name(state), cookie, max_age=LIFETIME, **cookie_attributes(current_app)
    )


{{ cookiecutter.__async }}def take(state: str) -> tuple[str, str] | None:
    """Return the attempt and the target of a sign-in that this browser started, and delete them.

    Raises:
        StoreUnavailable
    """
    cookie = request.cookies.get(_cookie_name(state))
    if not state or not cookie:
        return None
    key = _entry_key(cookie)
    pending = {{ cookiecutter.__await }}store.load(key)
    # Of two requests with the same callback, only the one that deletes the entry continues.
    if pending is None or not {{ cookiecutter.__await }}store.delete(key):
        return None
    return pending["attempt"], pending["target"]


def forget(response: Response, state: str) -> None:
    """Delete the cookie of a finished sign-in."""
    name = _cookie_name(state)
    if name in request.cookies:
        response.delete_cookie(name, **cookie_attributes(current_app))


def _entry_key(cookie: str) -> str:
    # Not the key of a session: neither cookie works in place of the other.
    return store_key(f"sign-in {cookie}")


def _cookie_name(state: str) -> str:
    name = current_app.session_interface.get_cookie_name(current_app)
    return f"{name}-sign-in-{state[:16]}"
