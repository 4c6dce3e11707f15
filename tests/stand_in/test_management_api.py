"""The Management API of the local Logto: it responds as the real Logto was measured to."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from answers import TEMPLATE

APP = "/api/applications/bookstore"
RESOURCE = "https://default.logto.app/api"
CONFIG = {
    "clientId": "id",
    "clientSecret": "secret",
    "tenantId": "common",
    "cloudInstance": "https://login.microsoftonline.com/",
}
CONNECTOR = {"id": "azuread", "connectorId": "azuread-universal", "config": CONFIG}


@pytest.fixture
def logto() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        # A cache in the template would be baked into every project.
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(str(TEMPLATE))
        module: Any = importlib.import_module("dev.local_logto")
    with module.LocalLogto(app_id="bookstore") as logto:
        logto.clear()
        yield logto


def token(logto: Any, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": "client_credentials",
        "client_id": "local-m2m",
        "client_secret": "any-text",
        "resource": RESOURCE,
        "scope": "all",
    }
    return httpx2.post(f"{logto.issuer}/token", data=form | changes)


@pytest.fixture
def api(logto: Any) -> Iterator[httpx2.Client]:
    bearer = {"Authorization": f"Bearer {token(logto).json()['access_token']}"}
    with httpx2.Client(base_url=logto.endpoint, headers=bearer) as client:
        yield client


def test_the_management_api_accepts_only_its_token_with_the_scope_all(logto: Any) -> None:
    def status(bearer: str | None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        response = httpx2.get(f"{logto.endpoint}{APP}", headers=headers)
        return response.status_code, response.json().get("code", "")

    logto.resources["https://api.example"] = ["all"]
    other = token(logto, resource="https://api.example").json()["access_token"]
    weak = token(logto, scope="").json()["access_token"]
    assert status(token(logto).json()["access_token"]) == (200, "")
    assert status(None) == (401, "auth.authorization_header_missing")
    assert status("made-up") == (401, "auth.unauthorized")
    assert status(other) == (401, "auth.unauthorized")
    assert status(weak) == (403, "auth.forbidden")


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_id": "bookstore"}, 400, "unauthorized_client"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"resource": "https://other.logto.app/api"}, 400, "invalid_target"),
    ],
)
def test_a_wrong_request_for_a_token_is_refused(
    logto: Any, changes: dict[str, str], status: int, error: str
) -> None:
    response = token(logto, **changes)
    assert (response.status_code, response.json()["error"]) == (status, error)


def test_a_patch_replaces_the_whole_metadata(logto: Any, api: httpx2.Client) -> None:
    logto.application.backchannel_logout_uri = "https://books.example/backchannel-logout"
    metadata = {"redirectUris": ["https://books.example/callback"], "postLogoutRedirectUris": []}
    response = api.patch(APP, json={"oidcClientMetadata": metadata})
    assert (response.status_code, response.json()["oidcClientMetadata"]) == (200, metadata)
    assert logto.application.backchannel_logout_uri is None
    assert api.patch(APP, json={"oidcClientMetadata": {}}).status_code == 400
    assert api.get("/api/applications/nobody").status_code == 404


def test_an_application_is_created_with_200_and_without_its_secret(
    logto: Any, api: httpx2.Client
) -> None:
    uris = {"redirectUris": ["https://books.example/callback"], "postLogoutRedirectUris": []}
    new = {"name": "Books", "type": "Traditional", "oidcClientMetadata": uris}
    created = api.post("/api/applications", json=new)
    assert created.status_code == 200
    assert created.json() == {"id": created.json()["id"], **new}
    secrets = api.get(f"/api/applications/{created.json()['id']}/secrets").json()
    assert [(each["name"], each["expiresAt"]) for each in secrets] == [("Default secret", None)]
    assert len(secrets[0]["value"]) == 32
    assert secrets[0]["value"] not in created.text
    # Names are not unique.
    assert api.post("/api/applications", json=new).json()["id"] != created.json()["id"]
    assert api.get("/api/applications/nobody/secrets").status_code == 404
    assert api.post("/api/applications", json={"name": "x"}).status_code == 400


def test_applications_come_in_pages(api: httpx2.Client) -> None:
    uris: dict[str, Any] = {"redirectUris": [], "postLogoutRedirectUris": []}
    new = {"type": "Traditional", "oidcClientMetadata": uris}
    for number in range(24):
        api.post("/api/applications", json={**new, "name": f"app {number}"})

    def page(number: int, **query: Any) -> tuple[list[str], str]:
        parameters = {"types": "Traditional", "page": number, **query}
        response = api.get("/api/applications", params=parameters)
        return [each["name"] for each in response.json()], response.headers["total-number"]

    everything = ["bookstore", *(f"app {number}" for number in range(24))]
    assert page(1) == (everything[:20], "25")
    assert page(2) == (everything[20:], "25")
    assert page(3) == ([], "25")
    assert page(2, page_size=10) == (everything[10:20], "25")
    assert page(1, types="MachineToMachine") == (["Provisioning"], "1")


def test_neither_name_nor_url_of_a_webhook_is_unique(api: httpx2.Client) -> None:
    new = {"name": "Books", "events": ["User.Deleted"], "config": {"url": "https://x.example"}}
    first, second = (api.post("/api/hooks", json=new) for _ in range(2))
    assert (first.status_code, first.json()["enabled"]) == (201, True)
    assert len(first.json()["signingKey"]) == 32
    assert first.json() | new == first.json()
    assert api.get("/api/hooks").json() == [first.json(), second.json()]
    assert first.json()["id"] != second.json()["id"]
    path = f"/api/hooks/{first.json()['id']}"
    changed = api.patch(path, json={"events": ["User.Created"], "enabled": False})
    assert changed.json() == first.json() | {"events": ["User.Created"], "enabled": False}
    assert api.patch("/api/hooks/nobody", json={}).status_code == 404


def test_a_connector_is_created_with_200_and_a_chosen_id_and_only_once(api: httpx2.Client) -> None:
    created = api.post("/api/connectors", json=CONNECTOR)
    assert created.status_code == 200
    assert created.json() | CONNECTOR == created.json()
    assert [each["id"] for each in api.get("/api/connectors").json()] == ["azuread"]
    second = api.post("/api/connectors", json=CONNECTOR | {"id": "other"})
    assert second.status_code == 422
    assert second.json()["code"] == "connector.multiple_instances_not_supported"


def test_a_patch_replaces_the_whole_config_and_an_empty_config_stays_empty(
    api: httpx2.Client,
) -> None:
    empty = dict.fromkeys(CONFIG, "")
    created = api.post("/api/connectors", json=CONNECTOR | {"config": empty})
    assert (created.status_code, created.json()["config"]) == (200, {})
    path = "/api/connectors/azuread"
    full = api.patch(path, json={"config": CONFIG | {"scopes": "User.Read"}})
    assert full.json()["config"] == CONFIG | {"scopes": "User.Read"}
    assert api.patch(path, json={"config": CONFIG}).json()["config"] == CONFIG
    assert api.patch("/api/connectors/other", json={"config": CONFIG}).status_code == 404


def test_a_connector_without_a_config_is_accepted(api: httpx2.Client) -> None:
    created = api.post("/api/connectors", json={"connectorId": "azuread-universal"})
    assert (created.status_code, created.json()["config"]) == (200, {})


def test_a_missing_field_is_named(api: httpx2.Client) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "tenantId"}
    refused = api.post("/api/connectors", json=CONNECTOR | {"config": config})
    assert (refused.status_code, refused.json()["code"]) == (400, "connector.invalid_config")
    assert [issue["path"] for issue in refused.json()["data"]["issues"]] == [["tenantId"]]


def test_targets_are_replaced_and_unknown_targets_are_dropped_silently(api: httpx2.Client) -> None:
    def targets(*sent: str) -> Any:
        body = {"socialSignInConnectorTargets": sent}
        response = api.patch("/api/sign-in-exp", json=body)
        assert response.status_code == 200
        return response.json()["socialSignInConnectorTargets"]

    assert targets("azuread") == []
    api.post("/api/connectors", json=CONNECTOR)
    assert targets("google", "azuread") == ["azuread"]
    assert targets() == []


def test_the_public_sign_in_experience_shows_what_was_set(api: httpx2.Client) -> None:
    def shown() -> Any:
        return httpx2.get(f"{api.base_url}/api/.well-known/sign-in-exp").json()

    assert shown()["socialConnectors"] == []
    api.post("/api/connectors", json=CONNECTOR | {"id": "chosen"})
    none = {"identifiers": [], "password": False, "verify": False}
    change = {"socialSignInConnectorTargets": ["azuread"], "signUp": none}
    api.patch("/api/sign-in-exp", json=change)
    assert [each["id"] for each in shown()["socialConnectors"]] == ["chosen"]
    assert shown()["signUp"] == none


def test_api_resources_and_their_scopes_are_unique(logto: Any, api: httpx2.Client) -> None:
    resource = {"name": "Books", "indicator": "https://api.example"}
    created = api.post("/api/resources", json=resource)
    scopes = f"/api/resources/{created.json()['id']}/scopes"
    assert created.status_code == 201
    assert api.post("/api/resources", json=resource).status_code == 422
    assert api.post(scopes, json={"name": "read:books"}).status_code == 201
    assert api.post(scopes, json={"name": "read:books"}).json()["code"] == "scope.name_exists"
    (known,) = api.get("/api/resources?includeScopes=true").json()
    assert [scope["name"] for scope in known["scopes"]] == ["read:books"]
    assert logto.resources == {"https://api.example": ["read:books"]}
