"""Who is signed in, and pages that only they can see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec
from urllib.parse import urlsplit

from {{ cookiecutter.framework }} import current_app, g, jsonify, redirect, url_for
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.local import LocalProxy
from werkzeug.urls import iri_to_uri

from ..errors import this_page, wants_json
from ..sessions import session
from .client import logto

P = ParamSpec("P")

LONGEST_PATH = 2000
"""Characters of an address to come back to; some proxies take no longer ones."""


@dataclass(frozen=True)
class User:
    """The signed-in user, from the verified ID token. Only `sub` never changes: key on it."""

    sub: str
    name: str | None = None
    username: str | None = None
    email: str | None = None
    picture: str | None = None
    claims: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def display_name(self) -> str:
        """What to call the user: the first of name, username, email and sub that there is."""
        return self.name or self.username or self.email or self.sub


def _load_user() -> User | None:
    if "user" not in g:
        claims = session.get("user")
        names = ("sub", "name", "username", "email", "picture")
        g.user = User(claims=claims, **{n: claims.get(n) for n in names}) if claims else None
    user: User | None = g.user
    return user


current_user: User = LocalProxy(_load_user)  # type: ignore[assignment]
"""The user of this request; false when nobody is signed in."""


def sign_in_required(view: Callable[P, Any]) -> Callable[P, Any]:
    """Let only signed-in users see a view; others sign in first and come back to it."""

    @wraps(view)
    {{ cookiecutter.__async }}def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        if not current_user:
            return ask_to_sign_in()
        {% if cookiecutter.framework == "quart" %}
        if logto.refresh_due():
            await logto.keep_alive()
        return await current_app.ensure_async(view)(*args, **kwargs)
        {% else %}
        if logto.refresh_due():
            current_app.ensure_sync(logto.keep_alive)()
        return current_app.ensure_sync(view)(*args, **kwargs)
        {% endif %}

    return guarded


def ask_to_sign_in() -> ResponseReturnValue:
    """Send a person to sign in and back; tell a script (`Accept: application/json`) with a 401."""
    if wants_json():
        return jsonify(error="sign_in_required", message="Sign in first."), 401
    return redirect(url_for("auth.sign_in", next=this_page()))


def local_path(target: str) -> str:
    """The target if it is a path of this app, else `/`: `next` must not lead elsewhere.

    Browsers read `\\\\` as `/` and drop control characters and blanks at the ends, so whatever
    holds one of these is not taken for a path.
    """
    plain = target.isprintable() and "\\" not in target and target == target.strip()
    if not plain or not target.startswith("/") or target.startswith("//"):
        return "/"
    if len(target) > LONGEST_PATH:
        return "/"
    try:
        url = urlsplit(target)
    except ValueError:
        return "/"
    return "/" if url.scheme or url.netloc else iri_to_uri(target)
