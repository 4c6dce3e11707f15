"""The signed-in user, and pages that only signed-in users can see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec

from {{ cookiecutter.framework }} import current_app, g, jsonify, redirect, url_for
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.local import LocalProxy

from ..server.errors import this_page, wants_json
from ..server.sessions import session
from .client import logto

P = ParamSpec("P")


@dataclass(frozen=True)
class User:
    """The signed-in user, from the verified ID token. Only `sub` never changes: use it as key."""

    sub: str
    name: str | None = None
    username: str | None = None
    email: str | None = None
    picture: str | None = None
    claims: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def display_name(self) -> str:
        """The text to show for the user: name, else username, else email, else sub."""
        return self.name or self.username or self.email or self.sub


def _load_user() -> User | None:
    claims = session.get("user")
    user: User | None = g.get("user")
    if user is None or user.claims is not claims:
        # No user yet, or the user of another session: `g` can live longer than a request.
        names = ("sub", "name", "username", "email", "picture")
        user = User(claims=claims, **{n: claims.get(n) for n in names}) if claims else None
        g.user = user
    return user


current_user: User = LocalProxy(_load_user)  # type: ignore[assignment]
"""The user of this request. False when nobody is signed in."""


def sign_in_required(view: Callable[P, Any]) -> Callable[P, Any]:
    """Allow only signed-in users to see a view. Others sign in first and come back to it."""

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
    """Redirect to the sign-in, with the way back. Scripts that prefer JSON get a 401 instead."""
    if wants_json():
        return jsonify(error="sign_in_required", message="Sign in first."), 401
    return redirect(url_for("auth.sign_in", next=this_page()))
