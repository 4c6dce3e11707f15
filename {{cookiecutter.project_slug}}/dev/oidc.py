"""The pages and endpoints of the local Logto: OpenID Connect as in Logto.

They are in the order of a sign-in: discovery, the sign-in pages, sign-out, tokens, claims.
"""

import hashlib
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote, unquote_plus, urlencode

from flask import Blueprint, Response, abort, current_app, jsonify, redirect, request
from flask import render_template as render
from flask import url_for as path_for
from werkzeug.exceptions import NotFound, SecurityError
from werkzeug.local import LocalProxy

from .accounts import Application, Grant, Interaction, Session, StandIn, User, new_user, random_id

ORGANIZATIONS_SCOPE = "urn:logto:scope:organizations"
ORGANIZATIONS_RESOURCE = "urn:logto:resource:organizations"
# The Management API has this resource in every self-hosted Logto, at any URL.
MANAGEMENT_API = "https://default.logto.app/api"

# Seconds, as in Logto.
CODE_LIFETIME = 60
ID_TOKEN_LIFETIME = 3600
REFRESH_TOKEN_LIFETIME = 14 * 86400
ROTATE_AFTER = 0.7 * REFRESH_TOKEN_LIFETIME
ROTATION_GRACE = 3

bp = Blueprint("provider", __name__)
stand_in = cast(StandIn, LocalProxy(lambda: current_app.extensions["stand_in"]))


class OidcError(Exception):
    """An error in the form of RFC 6749 section 5.2, with Logto's additions."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.status = error, description, status


# Logto does not say why a grant is invalid.
INVALID_GRANT = ("invalid_grant", "grant request is invalid")
INVALID_TARGET = ("invalid_target", "resource indicator is missing, or unknown")


@bp.before_app_request
def remember_request() -> None:
    stand_in.requests.append((request.method, request.path))
    site = request.headers.get("Sec-Fetch-Site", "none")
    from_here = site in ("same-origin", "none") and request.origin in (None, request.host_url[:-1])
    if request.method == "POST" and not from_here:
        raise OidcError("access_denied", "a page of another site sent this form", 403)


@bp.app_errorhandler(OidcError)
def error_response(error: OidcError) -> tuple[Response, int, dict[str, str]]:
    headers = {"Cache-Control": "no-store"}
    if error.status == 401:
        scheme = "Bearer" if request.path == "/oidc/me" else "Basic"
        headers["WWW-Authenticate"] = f'{scheme} realm="{stand_in.issuer}"'
    body = {"code": f"oidc.{error.error}", "error": error.error}
    body["error_description"] = error.description
    body["message"] = f"{error.description[:1].upper()}{error.description[1:]}."
    return jsonify(body), error.status, headers


@bp.app_errorhandler(NotFound)
def not_found(_: NotFound) -> tuple[str, int]:
    text = "The real Logto may have this page. The local one does not."
    return render("message.html", title="There is no such page", text=text), 404


@bp.app_errorhandler(SecurityError)
def refuse_host(_: SecurityError) -> tuple[str, int]:
    return "The local Logto responds only under the host name localhost.", 400


@bp.get("/oidc/.well-known/openid-configuration")
def discovery() -> dict[str, Any]:
    """Return the provider metadata (OpenID Connect Discovery 1.0 section 3)."""
    issuer = stand_in.issuer
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/me",
        "jwks_uri": f"{issuer}/jwks",
        "end_session_endpoint": f"{issuer}/session/end",
        "revocation_endpoint": f"{issuer}/token/revocation",
        "authorization_response_iss_parameter_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "claims_parameter_supported": False,
        "claims_supported": ["sub", "sid", *sum(CLAIMS.values(), ())],
        "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": list(GRANT_TYPES),
        "id_token_signing_alg_values_supported": ["ES384"],
        "request_uri_parameter_supported": False,
        "response_modes_supported": ["query"],
        "response_types_supported": ["code"],
        "scopes_supported": ["openid", "offline_access", *CLAIMS],
        "subject_types_supported": ["public"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


@bp.get("/oidc/jwks")
def jwks() -> dict[str, Any]:
    return {"keys": [stand_in.key.as_dict(private=False)]}


@bp.get("/api/.well-known/sign-in-exp")
def sign_in_experience() -> dict[str, Any]:
    """Return the settings of the sign-in page, which are public, as in Logto."""
    connectors = [
        {"id": connector["id"], "target": "azuread", "name": {"en": "Microsoft"}}
        for connector in stand_in.connectors
        if stand_in.offers_microsoft
    ]
    return {**stand_in.sign_in_experience, "socialConnectors": connectors}


@bp.get("/oidc/auth")
def authorize() -> Any:
    """Start a sign-in (RFC 6749 section 4.1.1)."""
    interaction = requested_interaction()
    prompts = request.args.get("prompt", "").split()
    if "consent" not in prompts:
        # OpenID Connect Core section 11.
        interaction.scopes = [item for item in interaction.scopes if item != "offline_access"]
    session = stand_in.sessions.get(request.cookies.get("_session", ""))
    try:
        check_authorization_request(interaction, prompts)
        if session and "login" not in prompts:
            return back_with_code(interaction, session)
        if "none" in prompts:
            raise OidcError("login_required", "End-User authentication is required")
    except OidcError as error:
        return back_to_app(interaction, error=error.error, error_description=error.description)
    stand_in.interactions[interaction.id] = interaction
    response = redirect(first_page(interaction), 303)
    response.set_cookie("_interaction", interaction.id, httponly=True, samesite="Lax")
    return response


def requested_interaction() -> Interaction:
    """Return the sign-in that the app requests.

    Raises OidcError for an unknown app or callback URL. This error must not go to that URL.
    """
    query = request.args
    application = known_application(query.get("client_id", ""))
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in application.redirect_uris:
        raise OidcError(
            "invalid_redirect_uri",
            "redirect_uri did not match any of the client's registered redirect_uris",
        )
    return Interaction(
        application,
        redirect_uri,
        state=query.get("state"),
        nonce=query.get("nonce"),
        scopes=query.get("scope", "").split(),
        resources=query.getlist("resource"),
        code_challenge=query.get("code_challenge", ""),
        login_hint=query.get("login_hint", ""),
        ui_locales=query.get("ui_locales", ""),
    )


def known_application(client_id: str) -> Application:
    application = stand_in.applications.get(client_id)
    if application is None:
        raise OidcError("invalid_client", "client is invalid")
    return application


def check_authorization_request(interaction: Interaction, prompts: Sequence[str]) -> None:
    """Raise OidcError for invalid parameters; the app gets this error (RFC 7636, RFC 8707)."""
    query = request.args
    if query.get("response_type") != "code":
        raise OidcError("unsupported_response_type", "unsupported response_type")
    if set(prompts) - {"consent", "login", "none"}:
        raise OidcError("invalid_request", "unsupported prompt value requested")
    well_formed = re.fullmatch(r"[A-Za-z0-9_-]{43}", interaction.code_challenge)
    if query.get("code_challenge_method") != "S256" or not well_formed:
        raise OidcError("invalid_request", "PKCE with the method S256 is required")
    if set(interaction.resources) - {*stand_in.resources, ORGANIZATIONS_RESOURCE}:
        raise OidcError(*INVALID_TARGET)


def first_page(interaction: Interaction) -> str:
    """Return the path of the page that the app requests with Logto's own parameters."""
    page = "register" if request.args.get("first_screen") == "register" else "sign_in"
    if request.args.get("direct_sign_in") == "social:azuread" and stand_in.offers_microsoft:
        page = "microsoft"
    return path_for(f".{page}", app_id=interaction.application.id, interaction=interaction.id)


@bp.get("/sign-in", endpoint="sign_in", defaults={"page": "sign_in.html"})
@bp.get("/register", endpoint="register", defaults={"page": "register.html"})
@bp.get("/direct/social:azuread", endpoint="microsoft", defaults={"page": "microsoft.html"})
def show_page(page: str) -> Any:
    """Show a page where the user signs in or registers. All these pages post to `/sign-in`."""
    key = request.args.get("interaction") or request.cookies.get("_interaction", "")
    interaction = stand_in.interactions.get(key)
    if interaction is None:
        return sign_in_expired()
    return render(page, interaction=interaction, application=interaction.application)


def sign_in_expired() -> tuple[str, int]:
    text = "This sign-in has expired or is already finished."
    return render("message.html", title="Sign-in expired", text=text), 400


@bp.post("/sign-in")
def sign_in_submitted() -> Any:
    """Read the form of a sign-in page, and send the browser back to the app."""
    form = request.form
    # Two tabs share the cookie, so the form names its sign-in.
    interaction = stand_in.interactions.pop(form.get("interaction", ""), None)
    if interaction is None:
        return sign_in_expired()
    if "cancel" in form:
        return back_to_app(
            interaction, error="access_denied", error_description="End-User aborted interaction"
        )
    user: User | None
    if form.get("new_user", "").strip():
        user = new_user(form["new_user"].strip(), form.get("email", "").strip(), stand_in.users)
        stand_in.users[str(user.username)] = user
    elif "connector" in form:
        user = stand_in.users["microsoft"]
    else:
        user = stand_in.users.get(form.get("user", ""))
    if user is None or user.suspended:
        # The sign-in continues: the user may choose another account.
        stand_in.interactions[interaction.id] = interaction
        text = "This account is suspended." if user else "There is no such account."
        again = path_for(".sign_in", interaction=interaction.id)
        return render("message.html", title="Cannot sign in", text=text, again=again), 422
    key = request.cookies.get("_session", "")
    session = stand_in.sessions.get(key)
    if session is None or session.user is not user:
        stand_in.sessions.pop(key, None)
        key, session = secrets.token_urlsafe(32), Session(user)
        stand_in.sessions[key] = session
    response = back_with_code(interaction, session)
    response.set_cookie("_session", key, httponly=True, samesite="Lax")
    response.delete_cookie("_interaction")
    return response


def back_with_code(interaction: Interaction, session: Session) -> Any:
    """Redirect to the app with a code. First-party apps of Logto have no consent page."""
    grant = Grant(interaction, session)
    stand_in.grants.append(grant)
    code = stand_in.issue(stand_in.codes, grant, interaction.scopes, CODE_LIFETIME)
    return back_to_app(interaction, code=code)


def back_to_app(interaction: Interaction, **query: str) -> Any:
    """Return the authorization response (RFC 6749 section 4.1.2, RFC 9207 for `iss`)."""
    if interaction.state is not None:
        query["state"] = interaction.state
    query["iss"] = stand_in.issuer
    separator = "&" if "?" in interaction.redirect_uri else "?"
    return redirect(interaction.redirect_uri + separator + urlencode(query), 303)


@bp.get("/oidc/session/end")
def end_session() -> Any:
    """Sign the browser out (OpenID Connect RP-Initiated Logout 1.0)."""
    client_id = request.args.get("client_id")
    uri = request.args.get("post_logout_redirect_uri")
    if client_id is not None:
        application = known_application(client_id)
        if uri and uri not in application.post_logout_redirect_uris:
            raise OidcError("invalid_request", "post_logout_redirect_uri not registered")
    key = request.cookies.get("_session", "")
    if key in stand_in.sessions:
        stand_in.end_session(key)
    if client_id is not None and uri:  # Without a client_id, Logto ignores the URI.
        state = request.args.get("state")
        response: Any = redirect(f"{uri}?state={quote(state)}" if state else uri, 303)
    else:
        text = "You have signed out of the local Logto."
        response = current_app.make_response(render("message.html", title="Signed out", text=text))
    response.delete_cookie("_session")
    return response


@bp.post("/oidc/token")
def token() -> Any:
    """Return the tokens for a grant (RFC 6749 section 3.2)."""
    application = authenticate_application()
    grant_type = GRANT_TYPES.get(request.form.get("grant_type", ""))
    if grant_type is None:
        raise OidcError("unsupported_grant_type", "unsupported grant_type requested")
    with stand_in.lock:
        response = jsonify(grant_type(application))
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.post("/oidc/token/revocation")
def revoke() -> str:
    """Revoke a refresh token and the tokens that came with it (RFC 7009)."""
    application = authenticate_application()
    known = stand_in.refresh_tokens.get(required("token"))
    if known and known.grant.interaction.application is application:
        known.grant.revoked = True
    return ""


def authenticate_application() -> Application:
    """Return the calling application (RFC 6749 section 2.3.1, in either form).

    Any secret is valid except an empty one and `wrong`, which is for trying the refusal.
    """
    basic = request.authorization
    if basic is not None and basic.type == "basic":
        app_id, secret = unquote_plus(basic.username or ""), basic.password
    else:
        app_id = request.form.get("client_id", "")
        secret = request.form.get("client_secret")
    application = stand_in.applications.get(app_id)
    if application is None or not secret or secret == "wrong":
        raise OidcError("invalid_client", "client authentication failed", 401)
    return application


def required(name: str) -> str:
    value = request.form.get(name, "")
    if not value:
        raise OidcError("invalid_request", f"missing required parameter(s) '{name}'")
    return value


def exchange_code(application: Application) -> dict[str, Any]:
    """Return the tokens for a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6)."""
    code = stand_in.codes.get(required("code"))
    redirect_uri = required("redirect_uri")
    if code is None or not code.usable:
        raise OidcError(*INVALID_GRANT)
    interaction = code.grant.interaction
    verifier = request.form.get("code_verifier", "")
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = urlsafe_b64encode(digest).decode().rstrip("=")
    expected = (application, redirect_uri, challenge)
    sent = (interaction.application, interaction.redirect_uri, interaction.code_challenge)
    if sent != expected:
        raise OidcError(*INVALID_GRANT)
    if code.used_at is not None:
        # The code was used before: RFC 6749 section 4.1.2 says to revoke its tokens.
        code.grant.revoked = True
        raise OidcError(*INVALID_GRANT)
    code.used_at = time.time()
    tokens = issue_tokens(code.grant, code.scopes)
    if "offline_access" in code.scopes:
        tokens["refresh_token"] = new_refresh_token(code.grant, code.scopes)
    return tokens


def new_refresh_token(grant: Grant, scopes: list[str]) -> str:
    return stand_in.issue(stand_in.refresh_tokens, grant, scopes, REFRESH_TOKEN_LIFETIME)


def refresh(application: Application) -> dict[str, Any]:
    """Return the tokens for a refresh token (RFC 6749 section 6), with Logto's rotation rules."""
    value = required("refresh_token")
    known = stand_in.refresh_tokens.get(value)
    if known is None or not known.usable or known.grant.interaction.application is not application:
        raise OidcError(*INVALID_GRANT)
    now = time.time()
    if known.used_at is not None and now > known.used_at + ROTATION_GRACE:
        # RFC 9700 section 4.14.2: a token that is used twice may be stolen.
        known.grant.revoked = True
        raise OidcError(*INVALID_GRANT)
    scopes = request.form.get("scope", "").split() or known.scopes
    if set(scopes) - set(known.scopes):
        raise OidcError("invalid_scope", "refresh token missing requested scopes")
    tokens = issue_tokens(known.grant, scopes)
    if stand_in.rotate_refresh_tokens or now > known.issued_at + ROTATE_AFTER:
        known.used_at = known.used_at or now
        value = new_refresh_token(known.grant, known.scopes)
    return {**tokens, "refresh_token": value}


def client_credentials(application: Application) -> dict[str, Any]:
    """Return the token of an application without users (RFC 6749 section 4.4)."""
    if application.type != "MachineToMachine":
        raise OidcError(
            "unauthorized_client", "requested grant type is not allowed for this client"
        )
    resource = required("resource")
    known = {MANAGEMENT_API: ["all"], **stand_in.resources}.get(resource)
    if known is None:
        raise OidcError(*INVALID_TARGET)
    granted = [name for name in request.form.get("scope", "").split() if name in known]
    claims = {"sub": application.id, "aud": resource, "scope": " ".join(granted)}
    return token_response(access_token(application, claims), granted)


GRANT_TYPES: dict[str, Callable[[Application], dict[str, Any]]] = {
    "authorization_code": exchange_code,
    "refresh_token": refresh,
    "client_credentials": client_credentials,
}


def issue_tokens(grant: Grant, scopes: list[str]) -> dict[str, Any]:
    """Return a token response (RFC 6749 section 5.1): access token, ID token."""
    resource = request.form.get("resource")
    organization = request.form.get("organization_id")
    if resource or organization:
        audience, granted = permissions(grant, scopes, resource, organization)
        claims = {"sub": grant.user.id, "aud": audience}
        if granted:
            claims["scope"] = " ".join(granted)
        if resource and organization:
            claims["organization_id"] = organization
        token = access_token(grant.interaction.application, claims)
    else:
        granted = [scope for scope in scopes if scope in OIDC_SCOPES]
        lifetime = stand_in.access_token_lifetime
        token = stand_in.issue(stand_in.access_tokens, grant, granted, lifetime)
    response = token_response(token, granted)
    if "openid" in scopes:
        response["id_token"] = id_token(grant, scopes)
    return response


def access_token(application: Application, claims: dict[str, Any]) -> str:
    """Return an access token for an API (RFC 9068)."""
    claims |= {"jti": random_id(21), "client_id": application.id}
    return stand_in.sign(claims, stand_in.access_token_lifetime, "at+jwt")


def token_response(access_token: str, granted: list[str]) -> dict[str, Any]:
    return {
        "access_token": access_token,
        "expires_in": stand_in.access_token_lifetime,
        "scope": " ".join(granted),
        "token_type": "Bearer",
    }


def permissions(
    grant: Grant, scopes: list[str], resource: str | None, organization: str | None
) -> tuple[str, list[str]]:
    """Return the audience of a token, and the requested scopes that the user's roles grant.

    `resource` is as in RFC 8707, `organization` as in Logto's RFC 0001.
    """
    if organization:
        if organization not in grant.user.organizations:
            raise OidcError("access_denied", "user is not a member of the organization", 403)
        if ORGANIZATIONS_SCOPE not in scopes:
            raise OidcError("insufficient_scope", "refresh token missing required scope", 403)
    if resource:
        if resource not in grant.interaction.resources:
            raise OidcError(*INVALID_TARGET)
        audience, known = resource, stand_in.resources.get(resource, ())
    else:
        audience = f"urn:logto:organization:{organization}"
        known = [scope for scopes in stand_in.resources.values() for scope in scopes]
    requested = [scope for scope in scopes if scope in known]
    return audience, grant.user.allowed(requested, organization)


CLAIMS = {
    "profile": ("name", "preferred_username", "username", "picture", "updated_at", "created_at"),
    "email": ("email", "email_verified"),
    "phone": ("phone_number", "phone_number_verified"),
    "roles": ("roles",),
    ORGANIZATIONS_SCOPE: ("organizations",),
    "urn:logto:scope:organization_roles": ("organization_roles",),
}
# These claims are in the userinfo response only.
USERINFO_CLAIMS = {"custom_data": ("custom_data",), "identities": ("identities",)}
OIDC_SCOPES = {"openid", "offline_access", *CLAIMS, *USERINFO_CLAIMS}


def user_claims(
    user: User, scopes: Sequence[str], by_scope: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the claims of these scopes (OpenID Connect Core section 5.4).

    As in Logto, an unknown value is null and not left out, and times are milliseconds.
    """
    memberships = user.organizations.items()
    picture = f"{stand_in.endpoint}/avatars/{user.username}.svg"
    values = {
        **vars(user),  # The name, the username, the e-mail and the times.
        "preferred_username": user.username,
        "picture": picture if user.has_picture else None,
        "email_verified": user.email is not None,
        "phone_number": None,
        "phone_number_verified": False,
        "roles": list(user.roles),
        "organizations": list(user.organizations),
        "organization_roles": [f"{id_}:{role}" for id_, roles in memberships for role in roles],
        "custom_data": {},
        "identities": {} if user.username else {"azuread": {"userId": f"simulated-{user.id}"}},
    }
    names = [name for scope, names in by_scope.items() if scope in scopes for name in names]
    return {"sub": user.id, **{name: values[name] for name in names}}


def id_token(grant: Grant, scopes: Sequence[str]) -> str:
    """Return an ID token (OpenID Connect Core section 2). As in Logto, its header has no `typ`."""
    claims = user_claims(grant.user, scopes, CLAIMS)
    claims["aud"] = grant.interaction.application.id
    if grant.interaction.nonce is not None:
        claims["nonce"] = grant.interaction.nonce
    if grant.interaction.application.backchannel_logout_session_required:
        claims["sid"] = grant.session.sid
    return stand_in.sign(claims, ID_TOKEN_LIFETIME, None)


@bp.route("/oidc/me", methods=["GET", "POST"])
def userinfo() -> dict[str, Any]:
    """Return the claims of the user (OpenID Connect Core section 5.3)."""
    bearer = request.authorization
    if bearer is None or bearer.type != "bearer":
        raise OidcError("invalid_request", "no access token provided")
    known = stand_in.access_tokens.get(bearer.token or "")
    if known is None or not known.usable:
        raise OidcError("invalid_token", "invalid token provided", 401)
    return user_claims(known.grant.user, known.scopes, {**CLAIMS, **USERINFO_CLAIMS})


@bp.get("/")
def home() -> str:
    """Show the signed-in browsers and all users, with a button to sign out or suspend each."""
    return render("home.html")


@bp.post("/")
def administer() -> Any:
    """End a session, or suspend or reinstate a user."""
    form = request.form
    if form.get("key") in stand_in.sessions:
        stand_in.end_session(form["key"])
    elif form.get("suspend") in stand_in.users:
        stand_in.suspend(form["suspend"])
    elif form.get("reinstate") in stand_in.users:
        stand_in.users[form["reinstate"]].suspended = False
        stand_in.notify("User.SuspensionStatus.Updated", stand_in.users[form["reinstate"]])
    return redirect("/", 303)


@bp.get("/avatars/<username>.svg")
def avatar(username: str) -> Any:
    user = stand_in.users.get(username) or abort(404)
    hue = int(hashlib.sha256(user.id.encode()).hexdigest()[:4], 16) % 360
    name = "".join(filter(str.isprintable, user.name)).strip() or "?"
    initial = name[: 2 if "\U0001f1e6" <= name[0] <= "\U0001f1ff" else 1]  # A flag is 2 characters.
    return Response(render("avatar.html", initial=initial, hue=hue), mimetype="image/svg+xml")
