"""Sign-in, sign-up, the callback and sign-out."""

import logging

from {{ cookiecutter.framework }} import Blueprint, current_app, redirect, render_template, request, url_for
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.sansio.response import Response

from ..errors import problem, this_page
from ..sessions import session
from . import pending
from .client import LogtoUnavailable, SessionEnded, SignInInvalid, logto
from .guards import ask_to_sign_in, current_user, local_path

auth = Blueprint("auth", __name__)
log = logging.getLogger(__name__)

CONNECTORS = {"azuread": "social:azuread"}


@auth.get("/sign-in")
async def sign_in() -> Response:
    """Send the visitor to Logto's sign-in page, or with `?connector=azuread` on to Microsoft."""
    connector = CONNECTORS.get(request.args.get("connector", ""))
    return await _start_sign_in({"direct_sign_in": connector} if connector else {})


@auth.get("/sign-up")
async def sign_up() -> Response:
    """Send the visitor to Logto's page for a new account."""
    return await _start_sign_in({"first_screen": "register"})


async def _start_sign_in(parameters: dict[str, str]) -> Response:
    languages = [language for language, _ in request.accept_languages if language != "*"]
    if languages:
        parameters["ui_locales"] = " ".join(languages[:5])
    url, state, attempt = await logto.begin_sign_in(
        current_app.config["LOGTO_CALLBACK_URL"], **parameters
    )
    response = redirect(url)
    target = local_path(request.args.get("next", "/"))
    {{ cookiecutter.__await }}pending.remember(response, state, attempt, target)
    return response


async def callback() -> Response:
    """Finish the sign-in with Logto's answer and take the visitor where they were going.

    Its path is that of LOGTO_CALLBACK_URL; `create_app` puts it there.
    """
    state = request.args.get("state", "")
    started = {{ cookiecutter.__await }}pending.take(state)
    if started:
        response = await _finish_sign_in(*started)
        pending.forget(response, state)
        return response
    if current_user:
        return redirect("/")
    log.warning("Sign-in refused: this browser has not started it, or it is over")
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
                "You have not been signed in, nothing else.",
                retry=retry,
            )
        return {{ cookiecutter.__await }}problem(
            400, "This sign-in is not valid", "Logto did not confirm who you are.", retry=retry
        )
    except LogtoUnavailable as fault:
        return {{ cookiecutter.__await }}logto_unavailable(fault, retry)
    session.renew()
    session.update(content)
    log.info("Signed in: sub=%s", content["user"]["sub"])
    return redirect(target)


@auth.route("/sign-out", methods=["GET", "POST"])
async def sign_out() -> ResponseReturnValue:
    """End the session here and at Logto, if this app's own pages or a typed address ask for it."""
    if not _from_this_app():
        return {{ cookiecutter.__await }}render_template("sign_out.html")
    if current_user:
        log.info("Signed out: sub=%s", current_user.sub)
    session.renew()
    try:
        url = await logto.sign_out_url(current_app.config["POST_SIGN_OUT_URI"])
    except LogtoUnavailable as fault:
        log.error("Sign-out at Logto failed, it is unavailable: %s", fault)
        return {{ cookiecutter.__await }}problem(
            503,
            "You are signed out here, but maybe not at Logto",
            "Logto does not answer. On a shared computer, sign out again in a moment.",
            retry=url_for("auth.sign_out"),
        )
    return redirect(url, 303)


def _from_this_app() -> bool:
    """Whether the browser says that the request comes from a page of this app, or from no page."""
    site = request.headers.get("Sec-Fetch-Site")
    if site:
        return site in ("same-origin", "none")
    return request.headers.get("Origin") in (None, current_app.config["ORIGIN"])


@auth.app_errorhandler(SessionEnded)
{{ cookiecutter.__async }}def session_ended(reason: SessionEnded) -> ResponseReturnValue:
    """Forget a session that Logto does not stand by any more, and start the sign-in again."""
    sub = current_user.sub if current_user else None
    log.warning("Session ended by Logto: sub=%s: %s", sub, reason)
    session.renew()
    return ask_to_sign_in()


@auth.app_errorhandler(LogtoUnavailable)
{{ cookiecutter.__async }}def logto_unavailable(fault: LogtoUnavailable, retry: str | None = None) -> Response:
    """Say that signing in does not work at the moment."""
    log.error("Logto is unavailable: %s", fault)
    return {{ cookiecutter.__await }}problem(
        503,
        "Sign-in is unavailable",
        "The sign-in service does not answer. Try again in a moment.",
        retry=retry or this_page(),
    )


@auth.app_errorhandler(SignInInvalid)
{{ cookiecutter.__async }}def not_granted(refusal: SignInInvalid) -> Response:
    """Say that Logto does not let the user do what a view needs an access token for."""
    log.warning("Access token refused by Logto: %s", refusal)
    return {{ cookiecutter.__await }}problem(
        403, "You may not do this", "Your account does not have the rights that it takes."
    )
