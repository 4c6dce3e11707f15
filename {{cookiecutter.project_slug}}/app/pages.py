"""The pages of the app. Add yours here."""

from {{ cookiecutter.framework }} import Blueprint, render_template

from .auth import LogtoUnavailable, current_user, logto, moment, sign_in_required
from .config import CONNECTORS

bp = Blueprint("pages", __name__)


@bp.get("/")
{{ cookiecutter.__async }}def home() -> str:
    """Show the sign-in buttons, or a page for the signed-in user."""
    return {{ cookiecutter.__await }}render_template("home.html", connectors=CONNECTORS)


@bp.get("/profile")
@sign_in_required
async def profile() -> str:
    """Show the user's current data from Logto, or the data from the sign-in if Logto is down."""
    claims, fresh = current_user.claims, True
    try:
        claims = claims | await logto.user_info()
    except LogtoUnavailable:
        fresh = False
    shown = {"claims": claims, "fresh": fresh, "moment": moment}
    return {{ cookiecutter.__await }}render_template("profile.html", **shown)
