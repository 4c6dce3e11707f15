"""The framework's session, kept in a store under the hash of a random id."""

import hashlib
import secrets
from typing import Any, NoReturn

{% if cookiecutter.framework == "quart" %}
from quart import Quart, Response
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers import BaseRequestWebsocket as Request
{% else %}
from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
{% endif %}

from .stores import Store, StoreUnavailable

ANSWERS_OWN = ("Content-Disposition", "Content-Encoding", "ETag", "Location", "Set-Cookie")
"""Headers of an answer that mean nothing on the error that takes its place."""


def new_id() -> str:
    """A random 256-bit id, fit for a cookie."""
    return secrets.token_urlsafe(32)


def store_key(cookie: str) -> str:
    """The key of a cookie's entry; whoever reads the store cannot turn it into a cookie."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def cookie_attributes(app: {{ cookiecutter.framework | capitalize }}) -> dict[str, Any]:
    """How every cookie of the app is set: out of reach for scripts and for other sites."""
    return {
        "path": "/",
        "secure": app.config["SESSION_COOKIE_SECURE"],
        "httponly": True,
        "samesite": "Lax",
    }


def _copy(value: Any) -> Any:
    """A copy of what JSON can hold, in a tenth of the time that `copy.deepcopy` takes."""
    if isinstance(value, dict):
        return {name: _copy(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry) for entry in value]
    return value


class Session(dict[str, Any], SessionMixin):
    """What the server remembers of one visitor: a dict of what JSON can hold.

    Changes, also inside a list or dict, are found by comparing with what was loaded.
    """

    def __init__(self, data: dict[str, Any] | None = None, key: str | None = None) -> None:
        super().__init__(data or {})
        self.key = key
        self.left_behind: str | None = None
        self.cookie: str | None = None
        self.mark_saved()

    def mark_saved(self) -> None:
        self._saved = {name: _copy(value) for name, value in self.items()}

    def changes(self) -> tuple[dict[str, Any], list[str]]:
        """What was set and what was removed since the session was loaded or saved."""
        changed = {k: v for k, v in self.items() if k not in self._saved or self._saved[k] != v}
        return changed, [k for k in self._saved if k not in self]

    def renew(self) -> None:
        """Forget everything and go on under a new id, as sign-in and sign-out must."""
        self.left_behind = self.left_behind or self.key
        self.key = None
        self.clear()
        self._saved = {}


class UnavailableSession(Session):
    """Stands in while the store does not answer; pages that need no session still work."""

    def __init__(self, reason: StoreUnavailable) -> None:
        super().__init__()
        self._reason = reason

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self._reason

    __getitem__ = __setitem__ = __delitem__ = __contains__ = _fail
    get = pop = popitem = setdefault = update = clear = renew = _fail


class StoreSessionInterface(SessionInterface):
    """Opens and saves the session of every request."""

    def __init__(self, store: Store, lifetime: int) -> None:
        """Take the store and how long a session lives, in seconds from its first save."""
        self.store = store
        self.lifetime = lifetime

    {{ cookiecutter.__async }}def open_session(self, app: {{ cookiecutter.framework | capitalize }}, request: Request) -> Session:
        cookie = request.cookies.get(self.get_cookie_name(app))
        # Style sheets and icons belong to nobody, and the page for a failed store needs them too.
        if not cookie or request.path.startswith(f"{app.static_url_path}/"):
            return Session()
        key = store_key(cookie)
        try:
            data = {{ cookiecutter.__await }}self.store.load(key)
        except StoreUnavailable as reason:
            return UnavailableSession(reason)
        # An id that this server did not issue is never adopted: the session gets one of its own.
        return Session() if data is None else Session(data, key)

    {{ cookiecutter.__async }}def save_session(  # type: ignore[override]
        self, app: {{ cookiecutter.framework | capitalize }}, session: Session, response: Response
    ) -> None:
        try:
            {{ cookiecutter.__await }}self.commit(session)
        except StoreUnavailable as error:
            # Too late for an error handler: the answer turns into the one it would have given.
            failure: Any = {{ cookiecutter.__await }}app.make_response({{ cookiecutter.__await }}app.handle_user_exception(error))
            for name in ANSWERS_OWN:
                response.headers.pop(name, None)
            response.status_code = failure.status_code
            response.headers.update(failure.headers)
            response.set_data({{ cookiecutter.__await }}failure.get_data())
            return
        name = self.get_cookie_name(app)
        if session.cookie:
            response.set_cookie(
                name, session.cookie, max_age=self.lifetime, **cookie_attributes(app)
            )
        elif session.left_behind:
            response.delete_cookie(name, **cookie_attributes(app))

    {{ cookiecutter.__async }}def commit(self, session: Session) -> None:
        """Write what has changed, and nothing else, so that parallel requests lose nothing.

        Raises:
            StoreUnavailable: if it could not be written.
        """
        if session.left_behind:
            {{ cookiecutter.__await }}self.store.delete(session.left_behind)
        changed, removed = session.changes()
        if not changed and not removed:
            return
        if session.key:
            {{ cookiecutter.__await }}self.store.update(session.key, changed, removed)
        else:
            session.cookie = new_id()
            session.key = store_key(session.cookie)
            user = session.get("user", {})
            {{ cookiecutter.__await }}self.store.create(
                session.key, dict(session), self.lifetime, user.get("sub"), user.get("sid")
            )
        session.mark_saved()

    {{ cookiecutter.__async }}def reload(self, session: Session) -> None:
        """Take in what other requests have saved, and keep what this one has changed.

        A session that was ended meanwhile is empty.
        """
        data = {{ cookiecutter.__await }}self.store.load(session.key) if session.key else None
        changed, removed = session.changes() if data else ({}, [])
        session.clear()
        session.update(data or {})
        session.mark_saved()
        session.update(changed)
        for name in removed:
            session.pop(name, None)
