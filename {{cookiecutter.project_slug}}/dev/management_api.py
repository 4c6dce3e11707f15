"""The Management API of the local Logto: the part that `logto provision` uses.

It has the status codes and oddities of Logto: a write replaces the whole object, and some
values of a request are dropped without an error.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Blueprint, Response, abort, jsonify, make_response, request
from joserfc import jwt
from joserfc.errors import JoseError

from .accounts import FACTORY, Application, random_id
from .oidc import MANAGEMENT_API, stand_in

REQUIRED = ("clientId", "clientSecret", "cloudInstance", "tenantId")
PROMPTS = ("none", "login", "consent", "select_account")

bp = Blueprint("management", __name__, url_prefix="/api")


def refuse(status: int, code: str, message: str, **data: object) -> NoReturn:
    """End the request with an error in the form of the Management API."""
    abort(make_response({"code": code, "message": message, **data}, status))


@bp.before_request
def check_token() -> None:
    """Refuse a request without a token for this API with the scope `all`."""
    bearer = request.authorization
    if bearer is None:
        refuse(401, "auth.authorization_header_missing", "Authorization header is missing.")
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": stand_in.issuer},
        aud={"essential": True, "value": MANAGEMENT_API},
        exp={"essential": True},
    )
    try:
        claims = jwt.decode(bearer.token or "", stand_in.key, algorithms=["ES384"]).claims
        rules.validate(claims)
    except (JoseError, ValueError):
        refuse(401, "auth.unauthorized", "Unauthorized.")
    if claims.get("scope") != "all":
        refuse(403, "auth.forbidden", "Forbidden.")


def body() -> dict[str, Any]:
    """Return the JSON object in the request."""
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict):
        refuse(400, "guard.invalid_input", "The request body is invalid.")
    return sent


def not_found() -> NoReturn:
    refuse(404, "entity.not_found", "The resource does not exist.")


METADATA = {
    "redirectUris": "redirect_uris",
    "postLogoutRedirectUris": "post_logout_redirect_uris",
    "backchannelLogoutUri": "backchannel_logout_uri",
    "backchannelLogoutSessionRequired": "backchannel_logout_session_required",
}
"""The names of an application's `oidcClientMetadata`, and the attributes for them."""


def shown_application(application: Application) -> dict[str, Any]:
    values = {name: getattr(application, attribute) for name, attribute in METADATA.items()}
    metadata = {name: value for name, value in values.items() if value not in (None, False)}
    shown = {"id": application.id, "name": application.name, "type": application.type}
    return {**shown, "oidcClientMetadata": metadata}


def set_metadata(application: Application) -> dict[str, Any]:
    """Replace all URIs of the application. A URI that is not in the request is removed."""
    sent = body().get("oidcClientMetadata", {})
    if not all(isinstance(sent.get(name), list) for name in list(METADATA)[:2]):
        refuse(400, "guard.invalid_input", "The request body is invalid.")
    for name, attribute in METADATA.items():
        setattr(application, attribute, sent.get(name))
    return shown_application(application)


@bp.get("/applications")
def all_applications() -> Response:
    page, size = request.args.get("page", 1, int), request.args.get("page_size", 20, int)
    types = request.args.getlist("types")
    found = [each for each in stand_in.applications.values() if not types or each.type in types]
    response = jsonify([shown_application(each) for each in found[(page - 1) * size : page * size]])
    response.headers["total-number"] = str(len(found))
    return response


@bp.post("/applications")
def create_application() -> dict[str, Any]:
    """Create an application. Names are not unique. The status is 200, without the secret."""
    sent = body()
    application = Application(random_id(21), str(sent.get("name")), type=str(sent.get("type")))
    shown = set_metadata(application)
    stand_in.applications[application.id] = application
    return shown


@bp.route("/applications/<app_id>", methods=["GET", "PATCH"])
def one_application(app_id: str) -> dict[str, Any]:
    application = stand_in.applications.get(app_id) or not_found()
    return (set_metadata if request.method == "PATCH" else shown_application)(application)


@bp.get("/applications/<app_id>/secrets")
def secrets_of(app_id: str) -> list[dict[str, Any]]:
    application = stand_in.applications.get(app_id) or not_found()
    return [{"name": "Default secret", "value": application.secret, "expiresAt": None}]


@bp.get("/hooks")
def all_hooks() -> list[dict[str, Any]]:
    return stand_in.hooks


@bp.post("/hooks")
def create_hook() -> tuple[dict[str, Any], int]:
    """Create a webhook. Neither its name nor its URL is unique."""
    sent = {name: body()[name] for name in ("name", "events", "config")}
    return stand_in.add_hook(random_id(32), **sent), 201


@bp.patch("/hooks/<hook_id>")
def change_hook(hook_id: str) -> dict[str, Any]:
    hook = next((each for each in stand_in.hooks if each["id"] == hook_id), None) or not_found()
    hook.update({name: value for name, value in body().items() if name in hook})
    return hook


def shown(connector: Mapping[str, Any]) -> dict[str, Any]:
    about = {"target": "azuread", "type": "Social", "platform": "Universal", "isStandard": False}
    return {**about, "name": {"en": "Microsoft"}, **connector}


@bp.get("/connectors")
def all_connectors() -> list[dict[str, Any]]:
    return [shown(connector) for connector in stand_in.connectors]


@bp.post("/connectors")
def create_connector() -> dict[str, Any]:
    """Create a connector. The status is 200, not 201."""
    sent = body()
    if sent.get("connectorId") != FACTORY:
        refuse(422, "connector.not_found_with_connector_id", "There is no such connector.")
    if stand_in.connectors:
        refuse(422, "connector.multiple_instances_not_supported", "One instance is possible.")
    config = valid(sent["config"]) if "config" in sent else {}
    connector = {"id": sent.get("id") or random_id(), "connectorId": FACTORY, "config": config}
    stand_in.connectors.append(connector)
    return shown(connector)


@bp.patch("/connectors/<connector_id>")
def change_connector(connector_id: str) -> dict[str, Any]:
    found = (each for each in stand_in.connectors if each["id"] == connector_id)
    connector = next(found, None) or not_found()
    connector["config"] = valid(body().get("config", connector["config"]))
    return shown(connector)


def valid(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as Logto stores it. Logto accepts empty values, but drops them."""
    config = {"prompts": [], "scopes": "", **config}
    faults = [name for name in (*REQUIRED, "scopes") if not isinstance(config.get(name), str)]
    prompts = config["prompts"]
    if not isinstance(prompts, list) or any(prompt not in PROMPTS for prompt in prompts):
        faults.append("prompts")
    if faults:
        issues = [{"code": "invalid_type", "path": [name], "message": "Invalid"} for name in faults]
        message = "The connector's configuration is invalid."
        data = {"name": "ZodError", "issues": issues}
        refuse(400, "connector.invalid_config", message, data=data)
    return {name: value for name, value in config.items() if value not in ("", [], None)}


@bp.route("/sign-in-exp", methods=["GET", "PATCH"])
def sign_in_experience() -> dict[str, Any]:
    if request.method == "PATCH":
        known = stand_in.sign_in_experience
        sent = {name: value for name, value in body().items() if name in known}
        targets = sent.get("socialSignInConnectorTargets", known["socialSignInConnectorTargets"])
        # Logto drops a target without a connector, and reports no error.
        known_targets = [shown(connector)["target"] for connector in stand_in.connectors]
        kept = [target for target in targets if target in known_targets]
        known.update(sent, socialSignInConnectorTargets=kept)
    return {"id": "default", **stand_in.sign_in_experience}


def resource_id(indicator: str) -> str:
    return hashlib.sha256(indicator.encode()).hexdigest()[:21]


def shown_resource(indicator: str) -> dict[str, Any]:
    scopes = [{"id": name, "name": name} for name in stand_in.resources[indicator]]
    about = {"id": resource_id(indicator), "name": indicator, "indicator": indicator}
    return {**about, "scopes": scopes}


@bp.get("/resources")
def all_resources() -> list[dict[str, Any]]:
    return [shown_resource(indicator) for indicator in stand_in.resources]


@bp.post("/resources")
def create_resource() -> tuple[dict[str, Any], int]:
    indicator = str(body().get("indicator"))
    if indicator in stand_in.resources:
        refuse(422, "resource.resource_identifier_in_use", "The identifier is in use.")
    stand_in.resources[indicator] = []
    return shown_resource(indicator), 201


@bp.post("/resources/<id_>/scopes")
def create_scope(id_: str) -> tuple[dict[str, Any], int]:
    name, known = str(body().get("name")), stand_in.resources
    indicator = next((each for each in known if resource_id(each) == id_), None) or not_found()
    if name in known[indicator]:
        refuse(422, "scope.name_exists", "The scope name is in use.")
    known[indicator] = [*known[indicator], name]
    return {"id": name, "name": name, "resourceId": id_}, 201
