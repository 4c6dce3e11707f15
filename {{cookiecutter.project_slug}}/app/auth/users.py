"""The signed-in user, and pages that only signed-in users can see."""

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, ParamSpec, overload

from blinker import signal
from {{ cookiecutter.framework }} import current_app, g, jsonify, redirect, request, url_for{{ ", websocket" if cookiecutter.__async }}
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.local import LocalProxy

from ..server.errors import problem, this_page, wants_json
from ..server.headers import {{ "from_own_site, " if cookiecutter.__async }}is_visit
from ..server.sessions import session, to_own_host
from ..server.stores import StoreUnavailable
from .client import logto

P = ParamSpec("P")


@dataclass(frozen=True)
class User:
    """The signed-in user, from the verified ID token. Use `sub` as a key: it never changes."""

    sub: str
    name: str | None = None
    username: str | None = None
    email: str | None = None
    picture: str | None = None
    claims: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def roles(self) -> frozenset[str]:
        """The names of the user's roles (scope `roles`)."""
        return frozenset(self.claims.get("roles") or ())

    @property
    def organizations(self) -> dict[str, frozenset[str]]:
        """The user's role names by organization ID (scopes `urn:logto:scope:organizations` and
        `urn:logto:scope:organization_roles`)."""
        pairs = [entry.partition(":") for entry in self.claims.get("organization_roles") or ()]
        known = {*(self.claims.get("organizations") or ()), *(pair[0] for pair in pairs)}
        return {name: frozenset(role for id_, _, role in pairs if id_ == name) for name in known}

    @property
    def display_name(self) -> str:
        """The text to show for the user: name, else username, else email, else sub."""
        texts = (self.name or "", self.username or "", self.email or "")
        return next((text for text in texts if _visible(text)), self.sub)

    @property
    def initial(self) -> str:
        """The first letter of the display name, in upper case, for users without a picture."""
        letters = unicodedata.normalize("NFC", _visible(self.display_name) or "?")
        # A flag emoji consists of two of these letters.
        letter = (re.match("[\U0001f1e6-\U0001f1ff]{2}", letters) or letters)[0]
        # Some letters, such as ß, become two letters in upper case.
        return letter.upper() if len(letter.upper()) == len(letter) else letter


def _visible(text: str) -> str:
    return "".join(filter(str.isprintable, text)).strip()


def moment(claim: Any) -> datetime | None:
    """Convert a claim in milliseconds since 1970 to a time. Return None if it is not valid."""
    try:
        return datetime.fromtimestamp(claim / 1000, UTC)
    except (ArithmeticError, OSError, TypeError, ValueError):
        return None


def _load_user() -> User | None:
    claims = session.get("user")
    user: User | None = g.get("user")
    if user is None or user.claims is not claims:
        # No user yet, or the user of another session: `g` can live longer than a request.
        names = ("sub", "name", "username", "email", "picture")
        user = g.user = User(claims=claims, **{n: claims.get(n) for n in names}) if claims else None
    return user


current_user: User = LocalProxy(_load_user)  # type: ignore[assignment]
"""The user of this request. It counts as false if the user is not signed in."""


{{ cookiecutter.__async }}def add_user() -> dict[str, Any]:
    """Pass the user to templates. The proxy would load the user again for each attribute."""
    with suppress(StoreUnavailable):
        return {"current_user": _load_user()}
    return {}


user_signed_in = signal("user-signed-in")
"""A signal after each sign-in, with `user=current_user`. Receivers run within the request."""


@overload
def sign_in_required(view: Callable[P, Any]) -> Callable[P, Any]: ...
@overload
def sign_in_required(*, role: str | None) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...
def sign_in_required(view: Callable[P, Any] | None = None, *, role: str | None = None) -> Any:
    """Allow only signed-in users to see a view. Other users sign in first, and then return to it.

    With `role`, allow only users who have this role in Logto. Other users get a 403 page.
    """
    if view is None:
        return partial(sign_in_required, role=role)

    @wraps(view)
    {{ cookiecutter.__async }}def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        {% if cookiecutter.__async %}
        # A page of another site can open a WebSocket with the user's cookies.
        if websocket and not from_own_site(websocket):
            return "", 403
        {% endif %}
        if not current_user:
            return {{ cookiecutter.__await }}ask_to_sign_in()
        if logto.refresh_due():
            {% if cookiecutter.__async %}
            await logto.keep_alive()
            {% else %}
            current_app.ensure_sync(logto.keep_alive)()
            {% endif %}
        if role is not None and role not in current_user.roles:
            return {{ cookiecutter.__await }}problem(403, "role_missing", role=role)
        return {{ cookiecutter.__await }}current_app.{{ "ensure_async" if cookiecutter.__async else "ensure_sync" }}(view)(*args, **kwargs)

    return guarded


{{ cookiecutter.__async }}def ask_to_sign_in() -> ResponseReturnValue:
    """Redirect a visit to the sign-in and back. Return a 401 to a script, and a 403 to a form."""
    if wants_json() or not is_visit():
        return jsonify(error="sign_in_required", message="You must sign in first."), 401
    if request.method not in ("GET", "HEAD"):
        referer, config = request.headers.get("Referer", ""), current_app.config
        origin, home = config["ORIGIN"], config["HOME_PATH"]
        page = referer.removeprefix(origin) if referer.startswith(origin + home) else home
        retry = url_for("auth.sign_in", next=page)
        return {{ cookiecutter.__await }}problem(403, "not_saved", retry=retry)
    return to_own_host() or redirect(url_for("auth.sign_in", next=this_page()))
