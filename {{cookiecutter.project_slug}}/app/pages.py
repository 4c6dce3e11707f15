"""The pages of the app. Add yours here."""

from typing import Any

from {{ cookiecutter.framework }} import Blueprint, render_template

from .auth import LogtoUnavailable, current_user, logto, moment, sign_in_required

bp = Blueprint("pages", __name__)

CLAIMS = {
    "sub": "User ID",
    "name": "Name",
    "username": "Username",
    "email": "E-mail",
    "email_verified": "E-mail verified",
    "roles": "Roles",
    "phone_number": "Phone",
    "phone_number_verified": "Phone verified",
    "created_at": "Member since",
    "updated_at": "Last changed",
}
TIMES = ("created_at", "updated_at")


@bp.get("/")
{{ cookiecutter.__async }}def home() -> str:
    """Show how to sign in, or the user's name."""
    return {{ cookiecutter.__await }}render_template("home.html")


@bp.get("/profile")
@sign_in_required
async def profile() -> str:
    """Show what Logto knows about the user: as of now, or as of the sign-in if Logto is down."""
    claims, fresh = current_user.claims, True
    try:
        claims = claims | await logto.user_info()
    except LogtoUnavailable:
        fresh = False
    facts = {label: readable(name, claims.get(name)) for name, label in CLAIMS.items()}
    return {{ cookiecutter.__await }}render_template("profile.html", facts=facts, claims=claims, fresh=fresh)


def readable(name: str, value: Any) -> str | None:
    """Return a claim as users read it, or None if there is nothing to show."""
    if name in TIMES:
        time = moment(value)
        return time.strftime("%d %B %Y") if time else None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return str(value) if value else None
