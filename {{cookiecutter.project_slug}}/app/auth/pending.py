"""Sign-ins that were started and are not finished yet.

Each has a cookie and an entry in the session store of its own, named after its `state`: several
tabs can sign in at once, and the session that stands is not touched until a sign-in succeeds.
"""

from {{ cookiecutter.framework }} import current_app, request
from werkzeug.sansio.response import Response

from ..sessions import sessions
from ..sessions.interface import cookie_attributes, new_id, store_key

LIFETIME = 15 * 60
"""Seconds that a person has to sign in."""
MANY = 10
"""Unfinished sign-ins that one browser may hold before they are swept away."""


{{ cookiecutter.__async }}def remember(response: Response, state: str, attempt: str, target: str) -> None:
    """Keep the SDK's attempt and where to go afterwards, for the browser that gets the response.

    Raises:
        StoreUnavailable: if they cannot be kept.
    """
    unfinished = [name for name in request.cookies if name.startswith(_cookie_name(""))]
    for name in unfinished if len(unfinished) >= MANY else ():
        response.delete_cookie(name, **cookie_attributes(current_app))
    cookie = new_id()
    entry = {"attempt": attempt, "target": target}
    {{ cookiecutter.__await }}sessions.store.create(_entry_key(cookie), entry, LIFETIME)
    response.set_cookie(
        _cookie_name(state), cookie, max_age=LIFETIME, **cookie_attributes(current_app)
    )


{{ cookiecutter.__async }}def take(state: str) -> tuple[str, str] | None:
    """The attempt and the target of a sign-in that this browser started, once.

    Raises:
        StoreUnavailable: if the store does not answer.
    """
    cookie = request.cookies.get(_cookie_name(state))
    if not state or not cookie:
        return None
    key = _entry_key(cookie)
    pending = {{ cookiecutter.__await }}sessions.store.load(key)
    # Of two requests with the same answer, only the one that deletes the entry may go on.
    if pending is None or not {{ cookiecutter.__await }}sessions.store.delete(key):
        return None
    return pending["attempt"], pending["target"]


def forget(response: Response, state: str) -> None:
    """Take the cookie of a finished sign-in back."""
    name = _cookie_name(state)
    if name in request.cookies:
        response.delete_cookie(name, **cookie_attributes(current_app))


def _entry_key(cookie: str) -> str:
    # Unlike any session's, so that the one cookie is of no use in the place of the other.
    return store_key(f"sign-in {cookie}")


def _cookie_name(state: str) -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-sign-in-{state[:16]}"
