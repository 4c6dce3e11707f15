"""`logto provision`: missing values are added, existing values stay, a second run does nothing."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from answers import FILLED
from conftest import Bake
from logto_commands import CALLBACK, ORIGIN, SECRETS, Commands, commands
from sites import fixed_response, oidc_error

pytestmark = pytest.mark.xdist_group("provision")

API = FILLED["api_resource"]
BOTH_FRAMEWORKS = pytest.mark.parametrize("project", ["flask", "quart"], indirect=True)
CLOUD = "https://login.microsoftonline.com/"


@pytest.fixture(scope="module", params=["flask"])
def project(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Commands]:
    project = bake(framework=request.param, api_resource=API, azure_tenant_id="contoso.example")
    with commands(project, tmp_path_factory.mktemp("provision")) as started:
        yield started


@pytest.fixture
def logto(project: Commands) -> Commands:
    """Return the commands, with a Logto that has the app's ID and nothing else."""
    local = project.logto.local
    local.clear()
    local.sign_in_experience["signUp"] = {
        "identifiers": ["email"],
        "password": True,
        "verify": True,
    }
    local.requests.clear()
    return project


def writes(logto: Commands) -> list[tuple[str, str]]:
    """Return the changes that were sent to Logto since the last call of this function."""
    calls = [call for call in logto.logto.local.requests if call[0] != "GET"]
    logto.logto.local.requests.clear()
    return [call for call in calls if call != ("POST", "/oidc/token")]


@BOTH_FRAMEWORKS
def test_an_empty_logto_is_ready_after_one_run(logto: Commands) -> None:
    local = logto.logto.local
    assert {"callback_url", "microsoft"} <= set(logto.check().failed)

    done = logto.run_in_new_process("provision")

    assert (done.code, done.errors) == (0, "")
    application = local.application
    assert application.redirect_uris == [CALLBACK]
    assert application.post_logout_redirect_uris == [f"{ORIGIN}/"]
    assert application.backchannel_logout_uri == f"{ORIGIN}/backchannel-logout"
    assert application.backchannel_logout_session_required
    assert local.connectors == [
        {
            "id": "azuread",
            "connectorId": "azuread-universal",
            "config": {
                "clientId": logto.variables["AZURE_CLIENT_ID"],
                "clientSecret": SECRETS[2],
                "tenantId": "contoso.example",
                "cloudInstance": CLOUD,
            },
        }
    ]
    assert {name: list(scopes) for name, scopes in local.resources.items()} == {
        API: ["read:books", "write:books"]
    }
    uri = f"{logto.logto.endpoint}/callback/azuread"
    assert f'az ad app update --id "{logto.variables["AZURE_CLIENT_ID"]}"' in done.output
    assert f'--web-redirect-uris "{uri}"' in done.output
    assert logto.check().code == 0
    assert "Continue with Microsoft" in sign_in_page(logto)


def sign_in_page(logto: Commands) -> str:
    query = {
        "client_id": "test-app",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    url = f"{logto.logto.endpoint}/oidc/auth"
    return httpx2.get(url, params=query, follow_redirects=True).text


def test_the_sign_in_page_of_an_empty_logto_does_not_offer_microsoft(logto: Commands) -> None:
    logto.logto.local.application.redirect_uris = [CALLBACK]
    assert "Continue with Microsoft" not in sign_in_page(logto)


@BOTH_FRAMEWORKS
def test_a_second_run_has_nothing_to_do(logto: Commands) -> None:
    assert logto("provision").code == 0
    assert writes(logto)
    done = logto("provision")
    assert "nothing to do" in done.output
    assert writes(logto) == []


def test_a_dry_run_says_what_a_run_would_do_and_sends_nothing(logto: Commands) -> None:
    dry = logto("provision", "--dry-run", "--social-only")
    assert dry.code == 0
    assert writes(logto) == []
    real = logto("provision", "--social-only")
    assert (
        dry.output.replace("Nothing was sent (--dry-run).", "Done. Logto has all settings.")
        == real.output
    )
    for line in (
        f"+ redirect URI {CALLBACK}",
        f"+ post sign-out URI {ORIGIN}/",
        f"+ back-channel logout URI {ORIGIN}/backchannel-logout",
        "+ tenantId contoso.example",
        "+ clientSecret",
        "+ Continue with Microsoft",
        "~ sign-up identifier None, was ['email']",
        f"+ API identifier {API}",
        "+ scope write:books",
    ):
        assert f"  {line}\n" in dry.output


def test_existing_values_that_are_not_ours_stay(logto: Commands) -> None:
    local = logto.logto.local
    local.application.redirect_uris = ["https://books.example/callback"]
    local.application.post_logout_redirect_uris = ["https://books.example/"]
    local.application.backchannel_logout_uri = "https://books.example/backchannel-logout"
    config: dict[str, Any] = {"clientId": "old", "clientSecret": "old", "tenantId": "common"}
    config |= {"cloudInstance": CLOUD, "scopes": "User.Read", "prompts": ["login"]}
    local.connectors.append({"id": "c0nn", "connectorId": "azuread-universal", "config": config})
    local.resources["https://other.example"] = ["read:other"]
    local.resources[API] = ["delete:books", "read:books"]
    sign_up = dict(local.sign_in_experience["signUp"])

    done = logto("provision")

    assert done.code == 0
    assert local.application.redirect_uris == ["https://books.example/callback", CALLBACK]
    assert local.application.post_logout_redirect_uris == ["https://books.example/", f"{ORIGIN}/"]
    assert local.application.backchannel_logout_uri == "https://books.example/backchannel-logout"
    (connector,) = local.connectors
    assert connector["id"] == "c0nn"
    assert connector["config"] == config | {
        "clientId": logto.variables["AZURE_CLIENT_ID"],
        "clientSecret": SECRETS[2],
        "tenantId": "contoso.example",
    }
    assert f"{logto.logto.endpoint}/callback/c0nn" in done.output
    assert local.sign_in_experience["signUp"] == sign_up
    assert local.resources["https://other.example"] == ["read:other"]
    assert local.resources[API] == ["delete:books", "read:books", "write:books"]


def test_other_targets_of_the_sign_in_page_stay(logto: Commands) -> None:
    sent: list[Any] = []

    def with_google(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] == "PATCH":
            sent.append(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        known = ["google", *(["azuread"] if sent else [])]
        body = {"socialSignInConnectorTargets": known, "signUp": {}}
        return fixed_response("200 OK", json.dumps(body))(app, environ, start, over)

    with logto.logto.fault("/api/sign-in-exp", with_google):
        assert logto("provision").code == 0
    assert sent == [{"socialSignInConnectorTargets": ["google", "azuread"]}]


def test_social_only_removes_the_other_ways_to_sign_up(logto: Commands) -> None:
    assert logto("provision", "--social-only").code == 0
    none = {"identifiers": [], "password": False, "verify": False}
    assert logto.logto.local.sign_in_experience["signUp"] == none
    assert "nothing to do" in logto("provision", "--social-only").output


def test_a_public_back_channel_logout_url_replaces_a_local_url(
    logto: Commands,
) -> None:
    logto("provision")
    public = "https://books.example/callback"
    assert logto("provision", LOGTO_CALLBACK_URL=public).code == 0
    application = logto.logto.local.application
    assert application.backchannel_logout_uri == "https://books.example/backchannel-logout"
    assert application.redirect_uris == [CALLBACK, public]


def test_an_existing_connector_needs_no_secret_again(logto: Commands) -> None:
    logto("provision")
    writes(logto)
    done = logto("provision", AZURE_CLIENT_ID="", AZURE_CLIENT_SECRET="")
    assert "nothing to do" in done.output
    assert writes(logto) == []


@pytest.mark.parametrize(
    ("unset", "hint"),
    [
        (["LOGTO_M2M_APP_ID", "LOGTO_M2M_APP_SECRET"], "Machine-to-machine"),
        (["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"], "az ad app create"),
        (["LOGTO_ENDPOINT", "LOGTO_APP_ID"], "The configuration is not valid"),
    ],
)
def test_missing_variables_are_named_before_anything_is_sent(
    logto: Commands, unset: list[str], hint: str
) -> None:
    done = logto("provision", **dict.fromkeys(unset, ""))
    assert done.code == 1
    assert all(name in done.errors for name in unset)
    assert hint in done.text
    assert writes(logto) == []


def test_an_invalid_connector_file_is_not_sent(logto: Commands) -> None:
    with logto.connector_file('{"clientId": "<client-id>", "clientSecret": "", "prompts": "x"}'):
        done = logto("provision")
    assert done.code == 1
    for name in ("clientSecret", "tenantId", "cloudInstance", "prompts"):
        assert f"  {name} " in done.errors
    assert writes(logto) == []


def test_a_failure_half_way_lists_the_finished_steps_and_a_new_run_continues(
    logto: Commands,
) -> None:
    def no_connector(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return app(environ, start)
        code = "connector.multiple_instances_not_supported"
        body = json.dumps({"code": code, "message": SECRETS[2]})
        return fixed_response("422 Unprocessable Entity", body)(app, environ, start, over)

    with logto.logto.fault("/api/connectors", no_connector):
        done = logto("provision")

    assert done.code == 1
    assert "connector.multiple_instances_not_supported" in done.errors
    assert "Done: Application test-app.\n" in done.errors
    not_done = "Not done: Microsoft connector azuread, Sign-in experience, API resource."
    assert not_done in done.errors
    writes(logto)

    assert logto("provision").code == 0
    assert ("PATCH", "/api/applications/test-app") not in writes(logto)
    assert logto.check().code == 0


def test_a_change_that_logto_accepts_and_does_not_store_is_a_failure(logto: Commands) -> None:
    def without_storing(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return app(environ, start)
        return fixed_response("200 OK", "{}")(app, environ, start, over)

    with logto.logto.fault("/api/sign-in-exp", without_storing):
        done = logto("provision")
    assert done.code == 1
    assert "did not keep: Sign-in experience" in done.errors


@pytest.mark.parametrize(
    ("variables", "hint"),
    [
        ({"LOGTO_M2M_APP_SECRET": "wrong"}, "LOGTO_M2M_APP_SECRET"),
        ({"LOGTO_M2M_APP_ID": "nobody"}, "LOGTO_M2M_APP_ID"),
        ({"LOGTO_M2M_APP_ID": "test-app"}, "unauthorized_client"),
        ({"LOGTO_MANAGEMENT_RESOURCE": "https://x.example/api"}, "LOGTO_MANAGEMENT_RESOURCE"),
        ({"LOGTO_MANAGEMENT_TOKEN_ENDPOINT": "http://localhost:1/token"}, "http://localhost:1/"),
        ({"LOGTO_APP_ID": "nobody"}, "GET /api/applications/nobody: HTTP 404"),
    ],
)
def test_a_refusal_names_its_cause(logto: Commands, variables: dict[str, str], hint: str) -> None:
    done = logto("provision", **variables)
    assert done.code == 1
    assert hint in done.errors
    assert writes(logto) == []


@pytest.mark.parametrize(
    "name", ["applications/test-app", "connectors", "sign-in-exp", "resources"]
)
@pytest.mark.parametrize("body", ["{}", "[]", "[1]", "null", '"text"', "<h1>502</h1>"])
def test_an_unexpected_response_is_a_plain_error_message(
    logto: Commands, name: str, body: str
) -> None:
    with logto.logto.fault(f"/api/{name}", fixed_response("200 OK", body)):
        done = logto("provision", "--dry-run")
    # There may be no connectors and no API resources.
    if name not in ("connectors", "resources") or body not in ("[]", "{}"):
        assert done.code == 1
        assert done.errors.startswith("Error: ")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_without_the_role_of_the_machine_to_machine_app_the_error_names_the_role(
    logto: Commands, status: str
) -> None:
    with logto.logto.fault("/api/applications/test-app", oidc_error("auth.forbidden", status)):
        done = logto("provision")
    assert done.code == 1
    assert "Logto Management API access" in done.errors


def test_the_token_may_come_from_another_url(logto: Commands) -> None:
    other = logto.logto.endpoint.replace("localhost", "127.0.0.1")
    variables = {"LOGTO_MANAGEMENT_TOKEN_ENDPOINT": f"{other}/oidc/token"}
    assert logto("provision", **variables).code == 0


# Values from Logto are not trusted

HOSTILE = [
    "$(touch x)",
    "`touch x`",
    'a" & calc & "',
    "a b",
    "a;b",
    "../applications",
    "a\nb",
    "\x1b]0;x",
]


def connector_of_logto(**changes: Any) -> dict[str, Any]:
    config = {
        "clientId": "old",
        "clientSecret": "old",
        "tenantId": "common",
        "cloudInstance": CLOUD,
    }
    return {"id": "c0nn", "connectorId": "azuread-universal", "config": config} | changes


@pytest.mark.parametrize("value", HOSTILE)
def test_an_id_of_logto_with_shell_or_path_characters_is_refused(
    logto: Commands, value: str
) -> None:
    hostile_id = connector_of_logto(id=value)
    hostile_client = connector_of_logto()
    hostile_client["config"]["clientId"] = value
    scopes: list[str] = []
    resource = {"id": value, "indicator": API, "scopes": scopes}
    for path, items, what, variables in (
        ("connectors", [hostile_id], "The ID of the connector", {}),
        # Without the variable, `provision` uses the client ID of Logto.
        ("connectors", [hostile_client], "The client ID of the connector", {"AZURE_CLIENT_ID": ""}),
        ("resources", [resource], "The ID of the API resource", {}),
    ):
        body = json.dumps(items)
        with logto.logto.fault(f"/api/{path}", fixed_response("200 OK", body)):
            done = logto("provision", **variables)
        assert done.code == 1
        assert f"{what} in Logto has unexpected characters" in done.errors
        assert "az ad app update" not in done.output
        assert "touch x" not in done.output
        assert is_printable(done.text)
        sent = writes(logto)
        # The app and the connector are written before the scopes of the API.
        assert not [call for call in sent if path == "connectors" or "scopes" in call[1]]


def test_a_client_id_of_the_environment_with_shell_characters_is_refused(
    logto: Commands,
) -> None:
    done = logto("provision", AZURE_CLIENT_ID="$(touch x)")
    assert done.code == 1
    assert "az ad app update" not in done.output
    assert writes(logto) == []


def is_printable(text: str) -> bool:
    """Return whether every character of the text is printable in a terminal."""
    return all(line.isprintable() for line in text.split("\n"))


CONTROL = "\x1b]0;title\x07\x9b31m\u202e\x00\r"
ENDPOINTS = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "end_session_endpoint",
    "jwks_uri",
]
ERRORS = {
    "code": {"code": CONTROL, "message": CONTROL},
    "error": {"error": CONTROL, "error_description": CONTROL},
}


@pytest.mark.parametrize("command", [["provision"], ["provision", "--dry-run"], ["check"]])
@pytest.mark.parametrize(
    "path",
    [
        "/oidc/token",
        "/oidc/jwks",
        "/oidc/.well-known/openid-configuration",
        "/api/.well-known/sign-in-exp",
        "/api/applications/test-app",
        "/api/connectors",
        "/api/sign-in-exp",
        "/api/resources",
    ],
)
def test_no_control_character_of_logto_reaches_the_terminal(
    logto: Commands, path: str, command: list[str]
) -> None:
    experience = {"socialSignInConnectorTargets": [], "signUp": {"identifiers": [CONTROL]}}
    contents: list[tuple[str, Any]] = [
        *(("400 Bad Request", body) for body in ERRORS.values()),
        *(("200 OK", body) for body in ERRORS.values()),
        ("200 OK", {"oidcClientMetadata": {"redirectUris": [CONTROL], "x": CONTROL}}),
        ("200 OK", [connector_of_logto(id=CONTROL)]),
        ("200 OK", [connector_of_logto(config={"clientId": CONTROL, "tenantId": CONTROL})]),
        ("200 OK", [{"id": CONTROL, "indicator": API, "scopes": [{"name": CONTROL}]}]),
        ("200 OK", experience),
        ("200 OK", dict.fromkeys(ENDPOINTS, CONTROL)),
        ("200 OK", {"socialConnectors": [{"target": "azuread", "id": CONTROL}]}),
        ("200 OK", {"keys": [{"kid": CONTROL, "alg": CONTROL, "kty": CONTROL}]}),
    ]
    for status, content in contents:
        with logto.logto.fault(path, fixed_response(status, json.dumps(content))):
            assert is_printable(logto(*command).text), (status, content)
