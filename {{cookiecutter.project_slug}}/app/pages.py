"""The app's own pages: yours start here."""

from datetime import UTC, datetime
from typing import Any

from {{ cookiecutter.framework }} import Blueprint, render_template

from .auth import LogtoUnavailable, current_user, logto, sign_in_required

pages = Blueprint("pages", __name__)

CLAIMS = {
    "sub": "User ID",
    "name": "Name",
    "username": "Username",
    "email": "E-mail",
    "email_verified": "E-mail verified",
    "phone_number": "Phone",
    "phone_number_verified": "Phone verified",
    "created_at": "Member since",
    "updated_at": "Last changed",
}
TIMES = ("created_at", "updated_at")


@pages.get("/")
{{ cookiecutter.__async }}def home() -> str:
    """Everybody sees this page: with ways to sign in, or with the user's name."""
    return {{ cookiecutter.__await }}render_template("home.html")


@pages.get("/profile")
@sign_in_required
async def profile() -> str:
    """The user sees what Logto knows about them, fresh if Logto can be reached."""
    claims, fresh = current_user.claims, True
    try:
        claims = claims | await logto.user_info()
    except LogtoUnavailable:
        fresh = False
    facts = {
        label: readable(name, claims[name])
        for name, label in CLAIMS.items()
        if claims.get(name) is not None
    }
    picture = claims.get("picture")
    return {{ cookiecutter.__await }}render_template("profile.html", facts=facts, picture=picture, fresh=fresh)


def readable(name: str, value: Any) -> str:
    """A claim as people read it; Logto counts its times in milliseconds."""
    if name in TIMES:
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%d %B %Y")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
