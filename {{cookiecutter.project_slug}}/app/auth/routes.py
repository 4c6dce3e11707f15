"""Sign-in, sign-up, the callback and sign-out."""

import logging
from typing import Any

from {{ cookiecutter.framework }} import Blueprint, current_app, redirect, render_template, request, url_for
from {{ cookiecutter.framework }}.typing import ResponseReturnValue
from werkzeug.sansio.response import Response
from werkzeug.urls import iri_to_uri

from ..config import CONNECTORS
from ..server.errors import problem, this_page
from ..server.headers import from_own_site, is_visit
from ..server.logs import printable
from ..server.sessions import cookie_attributes, session, store, to_own_host
from . import pending
from .client import SessionEnded, logto
from .oidc import LogtoUnavailable, NotGranted, SignInInvalid
from .users import ask_to_sign_in, current_user, user_signed_in

bp = Blueprint("auth", __name__)
log = logging.getLogger(__name__)

MAX_PATH_LENGTH = 2000  # Characters of a path to return to. Some proxies refuse longer paths.
# These errors end if Logto shows its sign-in page (OpenID Connect Core, 3.1.2.6).
INTERACTION = ("login_required", "consent_required", "interaction_required")


@bp.before_request
{{ cookiecutter.__async }}def ignore_prefetch() -> ResponseReturnValue | None:
    """Do nothing for HEAD or a prefetch. The browser sends a GET when the user opens the page."""
    if "Sec-Purpose" in request.headers:
        # Browsers do not use a prefetched response with an error status.
        return "", 425
    return ("", 204) if request.method == "HEAD" else None


@bp.get("/sign-in")
@bp.get("/sign-up", endpoint="sign_up", defaults={"first_screen": "register"})
async def sign_in(first_screen: str = "") -> ResponseReturnValue:
    """Redirect to Logto's page for signing in or signing up.

    With `?connector=azuread`, go directly to Microsoft. With `?prompt=login`, ask for the password.
    """
    if not is_visit():
        return {{ cookiecutter.__await }}ask_to_sign_in()
    if "X-Requested-Host" in request.headers and (elsewhere := to_own_host(again=True)):
        return elsewhere
    # A language tag has at most 35 characters (RFC 5646, 4.4.1).
    languages = [name for name, _ in request.accept_languages if name != "*" and len(name) <= 35]
    parameters = {
        "first_screen": first_screen,
        "direct_sign_in": CONNECTORS.get(request.args.get("connector", ""), ("", ""))[1],
        "ui_locales": " ".join(languages[:5]),
        # Logto issues a refresh token only with `consent`.
        "prompt": "login consent" if request.args.get("prompt") == "login" else "",
    }
    url, state, attempt = await logto.begin_sign_in(
        current_app.config["LOGTO_CALLBACK_URL"],
        **{name: value for name, value in parameters.items() if value},
    )
    response, wanted = redirect(url), request.args.get("next")
    target = local_path(wanted) if wanted else current_app.config["HOME_PATH"]
    {{ cookiecutter.__await }}pending.remember(response, state, attempt, target)
    return response


def local_path(target: str) -> str:
    """Return the target if it is a path of this app, else the path of the home page."""
    # Browsers read `\` as `/`, and remove control characters and spaces at the ends.
    plain = target.isprintable() and "\\" not in target and target == target.strip()
    home = str(current_app.config["HOME_PATH"])
    local = plain and target.startswith(home) and not target.startswith("//")
    path = iri_to_uri(target) if local else home
    return path if len(path) <= MAX_PATH_LENGTH else home


async def callback() -> Response:
    """Finish the sign-in, and redirect to the page that the user wanted.

    `init_app` adds this view with the path of LOGTO_CALLBACK_URL.
    """
    state, error = request.args.get("state", ""), request.args.get("error")
    attempt, target = {{ cookiecutter.__await }}pending.take(state)
    home = current_app.config["HOME_PATH"]
    if attempt:
        response = await _finish_sign_in(attempt, target or home)
        if response.status_code == 503:
            {{ cookiecutter.__await }}store.delete(attempt["lock"])  # Now a reload can finish the sign-in.
        else:
            response.delete_cookie(pending.cookie_name(state), **cookie_attributes(current_app))
        return response
    if current_user:
        return redirect(target or home)
    case = "sign_in_failed" if error and not state else "sign_in_expired"
    log.warning("Sign-in refused: %s, error=%s", case, printable(error))
    return {{ cookiecutter.__await }}problem(400, case, retry=url_for("auth.sign_in", next=target))


async def _finish_sign_in(attempt: dict[str, str], target: str) -> Response:
    retry, error = url_for("auth.sign_in", next=target), request.args.get("error")
    try:
        content = await logto.finish_sign_in(attempt, request.args)
        user = content["user"]
        session.renew()
        session.update(content)
        session.owner = {"sub": user["sub"], "sid": user.get("sid")}
        {{ cookiecutter.__await }}session.commit()
        # Logto may have ended the session after it issued the code.
        if user.get("sid") and {{ cookiecutter.__await }}store.load(f"ended:{user['sid']}"):
            session.renew()
            raise SignInInvalid("the user signed out at Logto during the sign-in")
    except SignInInvalid as refusal:
        log.warning("Sign-in refused: %s", refusal)
        if error in INTERACTION and not attempt["prompt"]:
            return redirect(url_for("auth.sign_in", next=target, prompt="login"))
        if error == "access_denied":
            return {{ cookiecutter.__await }}problem(200, "sign_in_cancelled", retry=retry)
        return {{ cookiecutter.__await }}problem(400, "sign_in_invalid", retry=retry)
    except LogtoUnavailable as fault:
        return {{ cookiecutter.__await }}logto_unavailable(fault, retry)
    log.info("Signed in: sub=%s", user["sub"])
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined, unused-ignore]
    {% if cookiecutter.__async %}
    await user_signed_in.send_async(app, user=current_user, _sync_wrapper=app.ensure_async)
    {% else %}
    user_signed_in.send(app, user=current_user)
    {% endif %}
    if str(current_app.config["SESSION_COOKIE_SAMESITE"]).lower() == "strict":
        # Browsers do not send a Strict cookie with a redirect that began on Logto's site.
        page = {{ cookiecutter.__await }}render_template("continue.html", target=target)
        return {{ cookiecutter.__await }}current_app.make_response(page)
    return redirect(target)


@bp.route("/sign-out", methods=["GET", "POST"])
async def sign_out() -> ResponseReturnValue:
    """End the session here and at Logto. If the request is from another site, ask the user."""
    if not from_own_site() or not (request.method == "POST" or is_visit()):
        return {{ cookiecutter.__await }}render_template("sign_out.html")
    if current_user:
        log.info("Signed out: sub=%s", current_user.sub)
    refresh_token = session.get("refreshToken")
    session.renew()
    # Save this now: the client may disconnect while Logto is slow.
    {{ cookiecutter.__await }}session.commit()
    response: Response
    try:
        url = await logto.sign_out(current_app.config["POST_SIGN_OUT_URI"], refresh_token)
        response = redirect(url, 303)
    except LogtoUnavailable as error:
        log.error("Sign-out at Logto failed, Logto is unavailable: %s", error)
        retry = url_for("auth.sign_out")
        response = {{ cookiecutter.__await }}problem(503, "sign_out_incomplete", retry=retry)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@bp.app_errorhandler(SessionEnded)
{{ cookiecutter.__async }}def session_ended(reason: SessionEnded) -> ResponseReturnValue:
    """Delete a session that Logto does not confirm any more, and start the sign-in again."""
    sub = current_user.sub if current_user else None
    log.warning("Session ended by Logto: sub=%s: %s", sub, reason)
    session.renew()
    return {{ cookiecutter.__await }}ask_to_sign_in()


@bp.app_errorhandler(LogtoUnavailable)
{{ cookiecutter.__async }}def logto_unavailable(fault: LogtoUnavailable, retry: str | None = None) -> Response:
    """Show that sign-in is unavailable, and log the reason."""
    log.error("Logto is unavailable: %s", fault)
    return {{ cookiecutter.__await }}problem(503, "sign_in_unavailable", retry=retry or this_page())


@bp.app_errorhandler(NotGranted)
{{ cookiecutter.__async }}def not_granted(refusal: NotGranted) -> Response:
    """Show that the user lacks permission: Logto refuses an access token that a view needs."""
    log.warning("Access token refused by Logto: %s", refusal)
    return {{ cookiecutter.__await }}problem(403, "not_granted")
