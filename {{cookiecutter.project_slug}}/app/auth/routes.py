"""Sign-in, sign-up, the callback and sign-out."""

import logging

from {{ cookiecutter.framework }} import Blueprint, current_app, redirect, render_template, request, url_for
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.sansio.response import Response
from werkzeug.urls import iri_to_uri

from ..config import CONNECTORS
from ..server.errors import problem, this_page
from ..server.sessions import cookie_attributes, session
from . import pending
from .client import SessionEnded, logto
from .oidc import LogtoUnavailable, NotGranted, SignInInvalid
from .users import ask_to_sign_in, current_user

bp = Blueprint("auth", __name__)
log = logging.getLogger(__name__)

LONGEST_PATH = 2000  # Characters of a path to come back to. Some proxies accept no longer ones.


@bp.get("/sign-in")
@bp.get("/sign-up", endpoint="sign_up", defaults={"first_screen": "register"})
async def sign_in(first_screen: str = "") -> Response:
    """Redirect to Logto's page for signing in or signing up.

    With `?connector=azuread`, Logto redirects to Microsoft at once.
    """
    connector = CONNECTORS.get(request.args.get("connector", ""), "")
    languages = [language for language, _ in request.accept_languages if language != "*"]
    parameters = {
        "first_screen": first_screen,
        "direct_sign_in": connector,
        "ui_locales": " ".join(languages[:5]),
    }
    url, state, attempt = await logto.begin_sign_in(
        current_app.config["LOGTO_CALLBACK_URL"],
        **{name: value for name, value in parameters.items() if value},
    )
    response = redirect(url)
    target = local_path(request.args.get("next", "/"))
    {{ cookiecutter.__await }}pending.remember(response, state, attempt, target)
    return response


def local_path(target: str) -> str:
    """Return the target if it is a path of this app, else `/`: `next` must not lead elsewhere.

    Browsers read `\\\\` as `/` and drop control characters and spaces at the ends, so a target
    with one of these is not a path.
    """
    plain = target.isprintable() and "\\" not in target and target == target.strip()
    local = plain and target.startswith("/") and not target.startswith("//")
    path = iri_to_uri(target) if local else "/"
    return path if len(path) <= LONGEST_PATH else "/"


async def callback() -> Response:
    """Finish the sign-in, and redirect to the page that the user wanted.

    `init_app` adds this view with the path of LOGTO_CALLBACK_URL.
    """
    state = request.args.get("state", "")
    started = {{ cookiecutter.__await }}pending.take(state)
    if started:
        response = await _finish_sign_in(*started)
        response.delete_cookie(pending.cookie_name(state), **cookie_attributes(current_app))
        return response
    if current_user:
        return redirect("/")
    log.warning("Sign-in refused: this browser did not start it, or it has ended")
    return {{ cookiecutter.__await }}problem(
        400,
        "This sign-in has expired",
        "It took too long, was finished already, or was started in another browser.",
        retry=url_for("auth.sign_in"),
    )


async def _finish_sign_in(attempt: str, target: str) -> Response:
    retry = url_for("auth.sign_in", next=target)
    try:
        content = await logto.finish_sign_in(attempt, request.args)
    except SignInInvalid as refusal:
        log.warning("Sign-in refused: %s", refusal)
        if request.args.get("error") == "access_denied":
            return {{ cookiecutter.__await }}problem(
                200,
                "Sign-in was cancelled",
                "You are not signed in. Nothing else changed.",
                retry=retry,
            )
        return {{ cookiecutter.__await }}problem(
            400, "This sign-in is not valid", "Logto did not confirm who you are.", retry=retry
        )
    except LogtoUnavailable as fault:
        return {{ cookiecutter.__await }}logto_unavailable(fault, retry)
    user = content["user"]
    session.renew()
    session.update(content)
    session.owner = {"sub": user["sub"], "sid": user.get("sid")}
    log.info("Signed in: sub=%s", user["sub"])
    return redirect(target)


@bp.route("/sign-out", methods=["GET", "POST"])
async def sign_out() -> ResponseReturnValue:
    """End the session here and at Logto, if a page of this app or a typed URL requests it."""
    if not _from_this_app():
        return {{ cookiecutter.__await }}render_template("sign_out.html")
    if current_user:
        log.info("Signed out: sub=%s", current_user.sub)
    refresh_token = session.get("refreshToken")
    session.renew()
    # Now, because the client may disconnect while Logto is slow.
    {{ cookiecutter.__await }}session.commit()
    try:
        url = await logto.sign_out(current_app.config["POST_SIGN_OUT_URI"], refresh_token)
    except LogtoUnavailable as fault:
        log.error("Sign-out at Logto failed, it is unavailable: %s", fault)
        return {{ cookiecutter.__await }}problem(
            503,
            "You are signed out here, but maybe not at Logto",
            "Logto does not respond. On a shared computer, sign out again in a moment.",
            retry=url_for("auth.sign_out"),
        )
    return redirect(url, 303)


def _from_this_app() -> bool:
    """Return whether a page of this app sent the request, or no page, as the browser says."""
    site = request.headers.get("Sec-Fetch-Site")
    if site:
        return site in ("same-origin", "none")
    return request.headers.get("Origin") in (None, current_app.config["ORIGIN"])


@bp.app_errorhandler(SessionEnded)
{{ cookiecutter.__async }}def session_ended(reason: SessionEnded) -> ResponseReturnValue:
    """Delete a session that Logto does not confirm any more, and start the sign-in again."""
    sub = current_user.sub if current_user else None
    log.warning("Session ended by Logto: sub=%s: %s", sub, reason)
    session.renew()
    return ask_to_sign_in()


@bp.app_errorhandler(LogtoUnavailable)
{{ cookiecutter.__async }}def logto_unavailable(fault: LogtoUnavailable, retry: str | None = None) -> Response:
    """Say that signing in does not work at the moment."""
    log.error("Logto is unavailable: %s", fault)
    return {{ cookiecutter.__await }}problem(
        503,
        "Sign-in is unavailable",
        "The sign-in service does not respond. Try again in a moment.",
        retry=retry or this_page(),
    )


@bp.app_errorhandler(NotGranted)
{{ cookiecutter.__async }}def not_granted(refusal: NotGranted) -> Response:
    """Say that Logto does not grant the access token that a view needs."""
    log.warning("Access token refused by Logto: %s", refusal)
    message = "Your account does not have permission to do this."
    return {{ cookiecutter.__await }}problem(403, "You may not do this", message)
