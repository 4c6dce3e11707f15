"""The Azure AD connector stub, checked with the npm package of Logto's real connector."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from answers import ROOT
from conftest import Bake, environment, missing
from logto_commands import SECRETS, Commands, commands

pytestmark = pytest.mark.xdist_group("connector")

GLOBAL, GOVERNMENT = "https://login.microsoftonline.com/", "https://login.microsoftonline.us/"
CHINA = "https://login.partner.microsoftonline.cn/"
TENANTS = [
    "common",
    "organizations",
    "consumers",
    "contoso.onmicrosoft.com",
    "8d3a7b1e-2c4f-4e6a-9b0d-1f2e3d4c5b6a",
]
GOOD = {"clientId": "id", "clientSecret": "s", "tenantId": "common", "cloudInstance": GLOBAL}
REFUSED_BY_BOTH: list[dict[str, Any]] = [
    *({name: value for name, value in GOOD.items() if name != omitted} for omitted in GOOD),
    *(GOOD | {name: 7} for name in GOOD),
    {},
    {"clientID": "id", "clientSecret": None, "tenantId": ["common"]},
    GOOD | {"prompts": "login"},
    GOOD | {"prompts": ["sometimes"]},
    GOOD | {"prompts": None},
    GOOD | {"scopes": ["User.Read", "Mail.Read"]},
    GOOD | {"prompts": 1, "scopes": 1, "tenantId": 1},
]
REFUSED_LATER: list[tuple[str, dict[str, Any]]] = [
    ("clientSecret", GOOD | {"clientSecret": ""}),
    ("cloudInstance", GOOD | {"cloudInstance": ""}),
    ("cloudInstance", GOOD | {"cloudInstance": "login.microsoftonline.com/"}),
    ("cloudInstance", GOOD | {"cloudInstance": "http://login.microsoftonline.com/"}),
    ("prompts", GOOD | {"prompts": ["login", "consent"]}),
]
"""Configs that the connector accepts as valid, and that fail when a user signs in."""

Connector = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def connector(node: str) -> Connector:
    """Return a function that gets the sign-in URL for each config from the real connector."""
    if not (ROOT / "tests/node/node_modules/@logto/connector-azuread").exists():
        missing("npm packages")

    def sign_in_urls(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [node, "connector.mjs"],
            cwd=ROOT / "tests/node",
            env=environment(),
            input=json.dumps(configs),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        outcomes: list[dict[str, Any]] = json.loads(done.stdout)
        return outcomes

    return sign_in_urls


@pytest.fixture(scope="module")
def logto(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(bake(), tmp_path_factory.mktemp("connector")) as started:
        yield started


def refused(logto: Commands, config: dict[str, Any]) -> list[str]:
    """Return the fields of a connector file that `check` refuses."""
    with logto.connector_file(json.dumps(config)):
        row = logto.check().checks["connector_file"]
    assert row["ok"] is (not row["fix"])
    return sorted(re.findall(r"^(\w+) ", row["fix"], re.MULTILINE))


def test_the_stub_leads_to_the_right_page_for_every_tenant_and_cloud(
    bake: Bake, logto: Commands, connector: Connector
) -> None:
    configs, expected = [], []
    with ExitStack() as stack:
        for tenant in TENANTS:
            stub = json.loads(bake(azure_tenant_id=tenant).read("connectors/azure-ad.json"))
            assert stub["cloudInstance"] == GLOBAL
            for cloud in (GLOBAL, GOVERNMENT, CHINA):
                stack.enter_context(
                    logto.connector_file(json.dumps(stub | {"cloudInstance": cloud}))
                )
                assert logto("provision").code == 0
                # Logto now has this config, and would pass it to its connector.
                configs.append(logto.logto.local.connectors[0]["config"])
                expected.append((cloud, tenant))

    for (cloud, tenant), outcome in zip(expected, connector(configs), strict=True):
        if cloud == CHINA and "error" in outcome:
            # For this cloud, the connector must fetch the URLs from the cloud itself.
            assert set(outcome["asked"]) == {urlsplit(CHINA).netloc}
            continue
        url = urlsplit(outcome["url"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"{cloud}{tenant}/oauth2/v2.0/authorize"
        query = parse_qs(url.query)
        assert query["client_id"] == [logto.variables["AZURE_CLIENT_ID"]]
        assert SECRETS[2] not in outcome["url"]


def test_the_optional_fields_are_accepted(logto: Commands, connector: Connector) -> None:
    config = GOOD | {"prompts": ["select_account"], "scopes": "User.Read Mail.Read"}
    assert refused(logto, config) == []
    (outcome,) = connector([config])
    query = parse_qs(urlsplit(outcome["url"]).query)
    assert query["prompt"] == ["select_account"]
    assert "Mail.Read" in query["scope"][0]


def test_the_check_refuses_the_same_fields_as_the_connector(
    logto: Commands, connector: Connector
) -> None:
    for config, outcome in zip(REFUSED_BY_BOTH, connector(REFUSED_BY_BOTH), strict=True):
        assert refused(logto, config) == sorted(set(outcome["fields"])), config


def test_the_check_also_refuses_fields_that_the_connector_refuses_later(
    logto: Commands, connector: Connector
) -> None:
    outcomes = connector([config for _, config in REFUSED_LATER])
    for (name, config), outcome in zip(REFUSED_LATER, outcomes, strict=True):
        assert "error" in outcome, config
        assert refused(logto, config) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clientId", " id"),
        ("clientSecret", "8d3a7b1e-2c4f-4e6a-9b0d-1f2e3d4c5b6a"),
        ("tenantId", ""),
        ("tenantId", "<tenant-id>"),
        ("tenantId", "contoso/../common"),
        ("cloudInstance", "https://login.microsoftonline.com"),
    ],
)
def test_the_check_refuses_values_that_were_copied_wrong(
    logto: Commands, name: str, value: str
) -> None:
    assert refused(logto, GOOD | {name: value}) == [name]


def test_placeholders_are_filled_in_by_their_variables(logto: Commands) -> None:
    stub = GOOD | {"clientId": "<client-id>", "clientSecret": "<client-secret>"}
    assert refused(logto, stub) == []
    with logto.connector_file(json.dumps(stub)):
        row = logto.check(AZURE_CLIENT_SECRET=GOOD["tenantId"] + " ").checks["connector_file"]
    assert row["fix"].startswith("clientSecret ")
