"""What the local Logto answers to its administrators: the Management API.

The part that `logto provision` uses, with Logto's status codes and oddities: an object
that is written is replaced whole, and some of what is sent is dropped without a word.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request
from joserfc import jwt
from joserfc.errors import JoseError

from .accounts import FACTORY, Application, random_id
from .oidc import OidcError, invalid_target, required, stand_in

# Of every self-hosted Logto, whatever its address.
RESOURCE = "https://default.logto.app/api"
TOKEN_LIFETIME = 3600
REQUIRED = ("clientId", "clientSecret", "cloudInstance", "tenantId")
PROMPTS = ("none", "login", "consent", "select_account")

bp = Blueprint("management", __name__, url_prefix="/api")


class ApiError(Exception):
    """An error in the form of the Management API."""

    def __init__(self, status: int, code: str, message: str, data: object = None) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"code": code, "message": message} | ({"data": data} if data else {})


@bp.errorhandler(ApiError)
def answer_with_error(error: ApiError) -> tuple[Response, int]:
    return jsonify(error.body), error.status


def client_credentials(application: Application) -> dict[str, Any]:
    """grant_type=client_credentials (RFC 6749 section 4.4), for applications without people."""
    if application.type != "MachineToMachine":
        raise OidcError(
            "unauthorized_client", "requested grant type is not allowed for this client"
        )
    resource = required("resource")
    known = {RESOURCE: ["all"], **stand_in.resources}.get(resource)
    if known is None:
        raise invalid_target()
    scope = " ".join(name for name in request.form.get("scope", "").split() if name in known)
    claims = {"jti": random_id(21), "sub": application.id, "client_id": application.id}
    claims |= {"aud": resource, "scope": scope}
    return {
        "access_token": stand_in.sign(claims, TOKEN_LIFETIME, "at+jwt"),
        "expires_in": TOKEN_LIFETIME,
        "scope": scope,
        "token_type": "Bearer",
    }


@bp.before_request
def check_token() -> None:
    """Let in who has a token for this API with the scope `all`."""
    bearer = request.authorization
    if bearer is None:
        raise ApiError(401, "auth.authorization_header_missing", "Authorization header is missing.")
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": stand_in.issuer},
        aud={"essential": True, "value": RESOURCE},
        exp={"essential": True},
    )
    try:
        claims = jwt.decode(bearer.token or "", stand_in.key, algorithms=["ES384"]).claims
        rules.validate(claims)
    except (JoseError, ValueError):
        raise ApiError(401, "auth.unauthorized", "Unauthorized.") from None
    if claims.get("scope") != "all":
        raise ApiError(403, "auth.forbidden", "Forbidden.")


def body() -> dict[str, Any]:
    """Return the JSON object that was sent."""
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict):
        raise ApiError(400, "guard.invalid_input", "The request body is invalid.")
    return sent


def not_found() -> ApiError:
    return ApiError(404, "entity.not_found", "The resource does not exist.")


# Applications


@bp.route("/applications/<app_id>", methods=["GET", "PATCH"])
def one_application(app_id: str) -> dict[str, Any]:
    application = stand_in.applications.get(app_id)
    if application is None:
        raise not_found()
    if request.method == "PATCH":
        replace_metadata(application, body().get("oidcClientMetadata", {}))
    metadata: dict[str, Any] = {
        "redirectUris": application.redirect_uris,
        "postLogoutRedirectUris": application.post_logout_redirect_uris,
    }
    if application.backchannel_logout_uri:
        metadata["backchannelLogoutUri"] = application.backchannel_logout_uri
        metadata["backchannelLogoutSessionRequired"] = (
            application.backchannel_logout_session_required
        )
    return {
        "id": application.id,
        "name": application.name,
        "type": application.type,
        "oidcClientMetadata": metadata,
    }


def replace_metadata(application: Application, sent: Mapping[str, Any]) -> None:
    """Take the whole: what is not sent is gone."""
    redirect, post_logout = sent.get("redirectUris"), sent.get("postLogoutRedirectUris")
    if not isinstance(redirect, list) or not isinstance(post_logout, list):
        raise ApiError(400, "guard.invalid_input", "The request body is invalid.")
    application.redirect_uris, application.post_logout_redirect_uris = redirect, post_logout
    application.backchannel_logout_uri = sent.get("backchannelLogoutUri")
    application.backchannel_logout_session_required = bool(
        sent.get("backchannelLogoutSessionRequired")
    )


# Connectors


def shown(connector: Mapping[str, Any]) -> dict[str, Any]:
    about = {"target": "azuread", "type": "Social", "platform": "Universal", "isStandard": False}
    return {**about, "name": {"en": "Microsoft"}, **connector}


@bp.get("/connectors")
def all_connectors() -> list[dict[str, Any]]:
    return [shown(connector) for connector in stand_in.connectors]


@bp.post("/connectors")
def create_connector() -> dict[str, Any]:
    """Answers 200, not 201."""
    sent = body()
    if sent.get("connectorId") != FACTORY:
        raise ApiError(
            422, "connector.not_found_with_connector_id", "There is no connector of this kind."
        )
    if stand_in.connectors:
        raise ApiError(
            422, "connector.multiple_instances_not_supported", "There can be one instance only."
        )
    config = valid(sent["config"]) if "config" in sent else {}
    connector = {"id": sent.get("id") or random_id(), "connectorId": FACTORY, "config": config}
    stand_in.connectors.append(connector)
    return shown(connector)


@bp.patch("/connectors/<connector_id>")
def change_connector(connector_id: str) -> dict[str, Any]:
    for connector in stand_in.connectors:
        if connector["id"] == connector_id:
            connector["config"] = valid(body().get("config", connector["config"]))
            return shown(connector)
    raise not_found()


def valid(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a config: an empty text passes, and is then left out."""
    wrong = [name for name in REQUIRED if not isinstance(config.get(name), str)]
    prompts = config.get("prompts", [])
    if not isinstance(prompts, list) or any(prompt not in PROMPTS for prompt in prompts):
        wrong.append("prompts")
    if not isinstance(config.get("scopes", ""), str):
        wrong.append("scopes")
    if wrong:
        issues = [{"code": "invalid_type", "path": [name], "message": "Invalid"} for name in wrong]
        message = "The connector's configuration is invalid."
        data = {"name": "ZodError", "issues": issues}
        raise ApiError(400, "connector.invalid_config", message, data)
    return {name: value for name, value in config.items() if value not in ("", [], None)}


# The sign-in experience


@bp.route("/sign-in-exp", methods=["GET", "PATCH"])
def sign_in_experience() -> dict[str, Any]:
    if request.method == "PATCH":
        known = stand_in.sign_in_experience
        sent = {name: value for name, value in body().items() if name in known}
        targets = sent.get("socialSignInConnectorTargets", known["socialSignInConnectorTargets"])
        # Dropped without a word if there is no connector for it.
        there = [shown(connector)["target"] for connector in stand_in.connectors]
        kept = [target for target in targets if target in there]
        known.update(sent, socialSignInConnectorTargets=kept)
    return {"id": "default", **stand_in.sign_in_experience}


# API resources


def resource_id(indicator: str) -> str:
    return hashlib.sha256(indicator.encode()).hexdigest()[:21]


@bp.get("/resources")
def all_resources() -> list[dict[str, Any]]:
    return [
        {
            "id": resource_id(indicator),
            "name": indicator,
            "indicator": indicator,
            "scopes": [{"id": name, "name": name} for name in scopes],
        }
        for indicator, scopes in stand_in.resources.items()
    ]


@bp.post("/resources")
def create_resource() -> tuple[dict[str, Any], int]:
    indicator = str(body().get("indicator"))
    if indicator in stand_in.resources:
        raise ApiError(422, "resource.resource_identifier_in_use", "The identifier is in use.")
    stand_in.resources[indicator] = []
    answer = {"id": resource_id(indicator), "indicator": indicator, "name": body().get("name")}
    return {**answer, "scopes": []}, 201


@bp.post("/resources/<id_>/scopes")
def create_scope(id_: str) -> tuple[dict[str, Any], int]:
    name = str(body().get("name"))
    for indicator, scopes in stand_in.resources.items():
        if resource_id(indicator) == id_:
            if name in scopes:
                raise ApiError(422, "scope.name_exists", "The scope name is in use.")
            stand_in.resources[indicator] = [*scopes, name]
            return {"id": name, "name": name, "resourceId": id_}, 201
    raise not_found()
