"""Register this app and the Azure AD connector in Logto: read, merge, write what is missing.

The Management API replaces whole objects, so each is read before it is written, and nothing
that was there before is taken away.
"""

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

{% if cookiecutter.api_resource %}
from app.api import SCOPES
{% endif %}
from app.config import LOOPBACK, Config, ConfigError

from . import connector
from .management import ManagementApi, ManagementError, plain
from .output import say

NO_SIGN_UP = {"identifiers": [], "password": False, "verify": False}
AUDIENCES = {
    "common": "AzureADandPersonalMicrosoftAccount --requested-access-token-version 2",
    "consumers": "PersonalMicrosoftAccount --requested-access-token-version 2",
    "organizations": "AzureADMultipleOrgs",
}


@dataclass(frozen=True)
class Change:
    """One object to write at Logto: what it is, how it differs, and how to write it."""

    what: str
    differences: list[str]
    write: Callable[[], Awaitable[object]]


async def run(config: Config, *, dry_run: bool, social_only: bool) -> None:
    """Say what will be done and do it.

    Raises:
        ConfigError: if a variable or the connector file is not right; nothing was sent.
        ManagementError: if Logto refuses, saying what was done and what was not.
    """
    endpoint = config.LOGTO_ENDPOINT.rstrip("/")
    api = ManagementApi(endpoint)
    await api.sign_in()
    plan = Plan(api, config, social_only)
    changes = await plan.changes()
    for change in changes:
        say(change.what, "green")
        for difference in change.differences:
            say(f"  {difference}")
    if dry_run and changes:
        say("Nothing was sent (--dry-run).")
    elif changes:
        await _write(changes)
        # Logto answers 200 also where it drops what it was sent.
        left = await plan.changes()
        if left:
            raise ManagementError(f"Logto took, but did not keep: {_listed(left)}.")
        say("Done; Logto has all of it.")
    else:
        say("There is nothing to do: Logto has all of this.")
    _say_azure(config, plan.azure, f"{endpoint}/callback/{plan.connector_id}")


async def _write(changes: list[Change]) -> None:
    for number, change in enumerate(changes):
        try:
            await change.write()
        except ManagementError as error:
            raise ManagementError(
                f"{change.what}: {error.message}\n"
                f"Done: {_listed(changes[:number])}.\nNot done: {_listed(changes[number:])}.\n"
                "Run the command again to go on from there."
            ) from None


def _listed(changes: list[Change]) -> str:
    return ", ".join(change.what for change in changes) or "nothing"


class Plan:
    """Compares what Logto has with what this app needs.

    After `changes`, `connector_id` is that of the connector and `azure` its config.
    """

    def __init__(self, api: ManagementApi, config: Config, social_only: bool) -> None:
        self.api = api
        self.config = config
        self.social_only = social_only
        self.connector_id = connector.TARGET
        self.azure: dict[str, Any] = {}

    async def changes(self) -> list[Change]:
        """What is to be written, in this order; empty if Logto has it all."""
        try:
            found = [
                await self.application(),
                await self.connector(),
                await self.sign_in_experience(),
                {% if cookiecutter.api_resource %}
                await self.api_resource(),
                {% endif %}
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise ManagementError(f"Logto's Management API is not as expected: {error}.") from None
        return [change for change in found if change.differences]

    async def application(self) -> Change:
        """The addresses of this app."""
        path = f"applications/{quote(self.config.LOGTO_APP_ID, safe='')}"
        there = (await self.api.call("GET", path))["oidcClientMetadata"]
        merged, differences = dict(there), []
        for name, label, uri in (
            ("redirectUris", "redirect URI", self.config.LOGTO_CALLBACK_URL),
            ("postLogoutRedirectUris", "post sign-out URI", self.config.POST_SIGN_OUT_URI),
        ):
            if uri not in there.get(name, []):
                merged[name] = [*there.get(name, []), uri]
                differences.append(f"+ {label} {uri}")
        uri = f"{self.config.ORIGIN}/backchannel-logout"
        known = there.get("backchannelLogoutUri")
        # There is one at most. Logto never calls an address of its own machine.
        if known != uri and (not known or LOOPBACK.fullmatch(urlsplit(known).hostname or "")):
            merged |= {"backchannelLogoutUri": uri, "backchannelLogoutSessionRequired": True}
            differences.append(f"+ back-channel logout URI {uri}")
        body = {"oidcClientMetadata": merged}
        what = f"Application {self.config.LOGTO_APP_ID}"
        return Change(what, differences, partial(self.api.call, "PATCH", path, body))

    async def connector(self) -> Change:
        """The Azure AD connector: the one that is there, of which Logto has one at most."""
        everything = await self.api.call("GET", "connectors")
        ours = [item for item in everything if item["connectorId"] == connector.FACTORY]
        known = ours[0].get("config") or {} if ours else {}
        wanted = _from_file()
        for name in connector.placeholders(wanted):
            if known.get(name):
                wanted[name] = known[name]
        self.azure = merged = {**known, **wanted}
        if "clientId" not in connector.placeholders(merged):
            plain("The client ID of the connector", merged["clientId"])
        if ours:
            self.connector_id = plain("The ID of the connector", ours[0]["id"])
        waiting = [connector.VARIABLES[name] for name in connector.placeholders(merged)]
        if waiting:
            _say_azure(self.config, merged, f"{self.api.endpoint}/callback/{self.connector_id}")
            raise ConfigError(
                f"Nothing was sent. Set {' and '.join(waiting)} in .env:\n"
                "Azure portal > App registrations > your app; the commands above make one."
            )
        differences = [
            # Only the names of what may be secret.
            f"{'~' if known.get(name) else '+'} {name}"
            + (f" {value}" if name in ("tenantId", "cloudInstance") else "")
            for name, value in wanted.items()
            if known.get(name) != value
        ]
        write = partial(
            self.api.call, "PATCH", f"connectors/{self.connector_id}", {"config": merged}
        )
        if not ours:
            body = {"id": self.connector_id, "connectorId": connector.FACTORY, "config": merged}
            write = partial(self.api.call, "POST", "connectors", body)
        return Change(f"Azure AD connector {self.connector_id}", differences, write)

    async def sign_in_experience(self) -> Change:
        """The button on the sign-in page, and with `social_only` no other way to sign up."""
        there = await self.api.call("GET", "sign-in-exp")
        body: dict[str, Any] = {}
        differences = []
        targets = there["socialSignInConnectorTargets"]
        if connector.TARGET not in targets:
            body["socialSignInConnectorTargets"] = [*targets, connector.TARGET]
            differences.append("+ Continue with Microsoft")
        sign_up = there["signUp"]
        if self.social_only and sign_up != {**sign_up, **NO_SIGN_UP}:
            body["signUp"] = {**sign_up, **NO_SIGN_UP}
            differences.append(f"~ sign-up identifier None, was {sign_up['identifiers']}")
        write = partial(self.api.call, "PATCH", "sign-in-exp", body)
        return Change("Sign-in experience", differences, write)

    {% if cookiecutter.api_resource %}
    async def api_resource(self) -> Change:
        """The API that access tokens are for, and the scopes that its views ask for."""
        identifier = self.config.LOGTO_API_RESOURCE
        everything = await self.api.call("GET", "resources?includeScopes=true")
        there = next((item for item in everything if item["indicator"] == identifier), None)
        if there:
            plain("The ID of the API resource", there["id"])
        known = [scope["name"] for scope in (there or {}).get("scopes", [])]
        missing = {name: text for name, text in SCOPES.items() if name not in known}

        async def write() -> None:
            resource = there or await self.api.call(
                "POST", "resources", {"name": self.config.APP_NAME, "indicator": identifier}
            )
            for name, text in missing.items():
                body = {"name": name, "description": text}
                there_id = plain("The ID of the API resource", resource["id"])
                await self.api.call("POST", f"resources/{there_id}/scopes", body)

        differences = [] if there else [f"+ API identifier {identifier}"]
        differences += [f"+ scope {name}" for name in missing]
        return Change("API resource", differences, write)

    {% endif %}

def _from_file() -> dict[str, Any]:
    """The connector's config, of which only client ID and secret may be placeholders still.

    Raises:
        ConfigError: if Logto would refuse it, or store it and be of no use.
    """
    try:
        config = connector.filled(connector.read(), os.environ)
    except connector.ConnectorFileError as error:
        raise ConfigError(f"Nothing was sent. {error}") from None
    wrong = [f"  {name} {what}." for name, what in connector.problems(config).items()]
    if wrong:
        raise ConfigError("\n".join([f"Nothing was sent. {connector.FILE} is not right:", *wrong]))
    return config


def _say_azure(config: Config, azure: dict[str, Any], uri: str) -> None:
    """Say what Azure has to know, for the portal and as commands."""
    say("\nIn Azure, App registrations > your app > Authentication > Web > Redirect URIs:")
    say(f"  {uri}")
    if "clientId" not in connector.placeholders(azure):
        say("Or paste this after az login; it replaces all redirect URIs that are there:")
        say(f'  az ad app update --id "{azure["clientId"]}" --web-redirect-uris "{uri}"')
        return
    # Without what the shells would take for their own.
    name = re.sub(r"[^\w .-]", "", config.APP_NAME).strip(" .-") or config.LOGTO_APP_ID
    audience = AUDIENCES.get(str(azure["tenantId"]), "AzureADMyOrg")
    say("Or paste these after az login, the second with the appId that the first prints:")
    say(
        f'  az ad app create --display-name "{name}" --web-redirect-uris "{uri}"'
        f" --sign-in-audience {audience}"
    )
    say('  az ad app credential reset --id "<appId>" --display-name Logto')
