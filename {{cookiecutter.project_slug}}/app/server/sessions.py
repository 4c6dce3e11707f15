{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""The framework's session, kept on the server. The browser holds a random ID and nothing else."""

import hashlib
import re
import secrets
import time
{% if not cookiecutter.__async %}
import weakref
{% endif %}
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

{% if cookiecutter.__async %}
from quart import Quart, Response, current_app, redirect, request
from quart import session as framework_session
from quart.sessions import SessionInterface, SessionMixin
from quart.typing import ResponseReturnValue
from quart.wrappers import BaseRequestWebsocket as Request
{% else %}
from flask import Flask, Request, Response, current_app, redirect, request
from flask import session as framework_session
from flask.sessions import SessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
{% endif %}
from werkzeug.local import LocalProxy

from .errors import store_unavailable, this_page
from .stores import Index, Store, StoreUnavailable, open_store

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{43}")
DROPPED_ON_ERROR = ("Content-Disposition", "Content-Encoding", "ETag", "Location", "Set-Cookie")
"""Headers to remove when an error page replaces the response."""

store: Store = LocalProxy(lambda: current_app.extensions["session_store"])  # type: ignore[assignment]
"""The session store of the current app."""


def store_key(cookie: str) -> str:
    """Return the store's key for a cookie. The cookie cannot be computed from the key."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def cookie_attributes(app: {{ cookiecutter.__framework }}, **changes: Any) -> dict[str, Any]:
    """Return the attributes of the app's cookies, as the SESSION_COOKIE_ settings define them."""
    names = ("domain", "path", "secure", "httponly", "samesite", "partitioned")
    interface = app.session_interface
    return {name: getattr(interface, f"get_cookie_{name}")(app) for name in names} | changes


def to_own_host(*, again: bool = False) -> ResponseReturnValue | None:
    """Redirect to the same page on the configured host, because cookies belong to one host.

    Return None if the request is already on this host. A proxy may replace the Host header, so to
    avoid a loop, a second redirect within 30 seconds needs `again`.
    """
    origin, name = current_app.config["ORIGIN"], f"{current_app.config['SESSION_COOKIE_NAME']}-host"
    own = urlsplit(origin).netloc
    requested = request.headers.get("X-Requested-Host", own)
    host, own = (each.lower().partition(":")[0] for each in (requested, own))
    if host == own or (name in request.cookies and (not again or "moved" in request.args)):
        return None
    page = this_page()
    if name in request.cookies:
        page += "&moved=1" if "?" in page else "?moved=1"
    response = redirect(origin + page)
    response.set_cookie(name, "own", max_age=30, **cookie_attributes(current_app, samesite="Lax"))
    return response


def _copy(value: Any) -> Any:
    """Copy what a session can hold, in a tenth of the time that `copy.deepcopy` takes."""
    if isinstance(value, dict):
        return {name: _copy(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(entry) for entry in value)
    return value


class Session(dict[str, Any], SessionMixin):
    """The session of one browser. The store finds all sessions of a user by their `owner`."""

    permanent: Any = True  # The cookie stays after the browser is closed.
    key: str | None = None
    cookie: str | None = None
    old_key: str | None = None
    ended = False
    owner: Index | None = None
    saved: dict[str, Any] | None = None

    def renew(self) -> None:
        """Delete the content, and continue under a new ID. Use this at sign-in and sign-out."""
        self.old_key = self.key or self.old_key
        self.key = self.cookie = self.owner = self.saved = None
        self.clear()

    async def commit(self) -> None:
        """Save only the changed entries, so that parallel requests keep their changes."""
        if self.old_key:
            # If another request has deleted the session, the browser already has a newer cookie.
            self.ended |= await store.delete(self.old_key)
            self.old_key = None
        before = self.saved or {}
        changed = {k: v for k, v in self.items() if k not in before or before[k] != v}
        removed = [k for k in before if k not in self]
        if not changed and not removed:
            return
        saved = _copy(self)
        if self.key:
            await store.update(self.key, changed, removed)
        else:
            self.cookie = secrets.token_urlsafe(32)
            self.key = store_key(self.cookie)
            lifetime = int(current_app.permanent_session_lifetime.total_seconds())
            await store.create(self.key, saved, lifetime, self.owner or {})
        self.saved = saved

    async def reload(self) -> None:
        """Save the changes, and load changes of other requests. An ended session becomes empty."""
        await self.commit()
        self.saved = await store.load(self.key) if self.key else None
        self.clear()
        self.update(_copy(self.saved or {}))


session = cast(Session, framework_session)
"""The framework's own `session`, with the type that it has in this app."""


class UnavailableSession(Session):
    """The session while the store is down. Pages that do not use the session still work."""

    def __init__(self, reason: StoreUnavailable) -> None:
        self._reason = reason

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self._reason

    __getitem__ = __setitem__ = __delitem__ = __contains__ = _fail
    get = pop = popitem = setdefault = update = clear = renew = cast(Any, _fail)


class StoreSessionInterface(SessionInterface):
    """Opens and saves the session of every request."""

    def get_cookie_name(self, app: {{ cookiecutter.__framework }}) -> str:
        """Return the cookie's name, with the prefix `__Host-` if allowed (RFC 6265bis, 4.1.3.2)."""
        path, domain = self.get_cookie_path(app), self.get_cookie_domain(app)
        host_only = self.get_cookie_secure(app) and path == "/" and not domain
        return ("__Host-" if host_only else "") + super().get_cookie_name(app)

    async def open_session(self, app: {{ cookiecutter.__framework }}, request: Request) -> Session:
        cookie = request.cookies.get(self.get_cookie_name(app), "")
        # Static files need no session, and the page for a failed store needs the style sheet.
        static = request.path.startswith(f"{app.static_url_path}/")
        if static or not SESSION_ID.fullmatch(cookie):
            return Session()
        key = store_key(cookie)
        try:
            data = await store.load(key)
        except StoreUnavailable as reason:
            return UnavailableSession(reason)
        # Never use an ID that this app did not issue. The new session gets a new ID.
        if data is None:
            return Session()
        session = Session(_copy(data))
        session.key, session.saved = key, data
        if idle := app.config["SESSION_IDLE_HOURS"] * 3600:
            unused = time.time() - session.setdefault("used_at", time.time())
            if unused > idle:
                session.renew()
            elif unused > idle / 20:
                session["used_at"] = time.time()
        return session

    async def save_session(  # type: ignore[override]
        self, app: {{ cookiecutter.__framework }}, session: Session, response: Response
    ) -> None:
        failure: Response | None = None
        try:
            await session.commit()
        except StoreUnavailable as error:
            failure = await store_unavailable(error)
        {% if cookiecutter.__async %}
        if response is None:
            return  # The end of a WebSocket, which can set no cookie.
        {% endif %}
        if failure:
            # It is too late for an error handler, so the response becomes the error page.
            for name in DROPPED_ON_ERROR:
                response.headers.pop(name, None)
            response.status_code = failure.status_code
            response.headers.update(failure.headers)
            response.set_data(await failure.get_data())
        elif session.cookie:
            lifetime = app.permanent_session_lifetime if session.permanent else None
            attributes = cookie_attributes(app, max_age=lifetime)
            response.set_cookie(self.get_cookie_name(app), session.cookie, **attributes)
        elif session.ended:
            response.delete_cookie(self.get_cookie_name(app), **cookie_attributes(app))


def init_app(app: {{ cookiecutter.__framework }}) -> None:
    """Keep the app's sessions in the store that SESSION_URL names."""
    opened = open_store(app.config["SESSION_URL"], app.instance_path, app.config["SESSION_PREFIX"])
    app.extensions["session_store"] = opened
    app.session_interface = cast(Any, StoreSessionInterface())
    {% if cookiecutter.__async %}
    app.after_serving(opened.close)
    {% else %}
    # Flask has no signal for the end of the app.
    weakref.finalize(app, opened.close)
    {% endif %}
{% endfilter %}
{% endfilter %}
