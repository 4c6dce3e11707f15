"""Register this app and the Azure AD connector in Logto: read, merge, write what is missing.

The Management API replaces whole objects, so each is read before it is written, and nothing
that was there before is taken away.
"""

import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dotenv import load_dotenv, set_key
from environs import ValidationError

{% if cookiecutter.api_resource %}
from app.api import SCOPES
{% endif %}
from app.config import LOOPBACK, PROJECT_DIR, Config, ConfigError, check_callback_url

from . import connector
from .management import ManagementApi, ManagementError, plain
from .output import say

APPLICATIONS = "applications?types=Traditional&page_size=20"
EVENTS = ("User.Created", "User.Data.Updated", "User.Deleted", "User.SuspensionStatus.Updated")
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


async def run(
    dry_run: bool, social_only: bool, create: bool, env_file: str | None, callback_url: list[str]
) -> None:
    """Say what will be done and do it.

    Raises ConfigError if a variable or the connector file is wrong, before anything is sent, and
    ManagementError if Logto refuses, with what was done and what was not.
    """
    load_dotenv(PROJECT_DIR / ".env", encoding="utf-8")
    for name in ("LOGTO_APP_ID", "LOGTO_APP_SECRET"):
        if create and not os.environ.get(name, "").strip():
            os.environ[name] = "unknown"
    config = Config.from_env()
    try:
        for url in callback_url:
            check_callback_url(url)
    except ValidationError as error:
        raise ConfigError(f"--callback-url: {error}") from None
    environments = [config, *(replace(config, LOGTO_CALLBACK_URL=url) for url in callback_url)]
    endpoint = config.LOGTO_ENDPOINT.rstrip("/")
    api = ManagementApi(endpoint)
    await api.sign_in()
    file = Path(env_file or PROJECT_DIR / ".env") if create else None
    plan = Plan(api, environments, social_only, file)
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

    def __init__(
        self, api: ManagementApi, environments: list[Config], social_only: bool, file: Path | None
    ) -> None:
        """Take the app in each of its environments, and the file for `--create`."""
        self.api = api
        self.config = environments[0]
        self.environments = environments
        self.social_only = social_only
        self.file = file
        self.connector_id = connector.TARGET
        self.azure: dict[str, Any] = {}

    async def changes(self) -> list[Change]:
        """What is to be written, in this order; empty if Logto has it all."""
        try:
            found = [
                await self.application(),
                *([await self.webhook()] if self.file else []),
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
        """The URLs of this app. With `--create`, a new application if there is none."""
        known = await self._known_application()
        there = known["oidcClientMetadata"]
        merged, differences = dict(there), [] if known["id"] else [f"+ {self.config.APP_NAME}"]
        homes = [each.POST_SIGN_OUT_URI for each in self.environments]
        for name, label, uris in (
            ("redirectUris", "redirect", [e.LOGTO_CALLBACK_URL for e in self.environments]),
            ("postLogoutRedirectUris", "post sign-out", homes),
        ):
            new = [uri for uri in uris if uri not in there.get(name, [])]
            merged[name] = [*there.get(name, []), *dict.fromkeys(new)]
            differences += [f"+ {label} URI {uri}" for uri in new]
        uri, old = self._public("backchannel-logout"), there.get("backchannelLogoutUri")
        # There is one at most. Logto never calls a URL of its own machine.
        if old != uri and (not old or _is_local(old)):
            merged |= {"backchannelLogoutUri": uri, "backchannelLogoutSessionRequired": True}
            differences.append(f"+ back-channel logout URI {uri}")
        to_save = await self._credentials(known["id"]) if self.file and known["id"] else {}
        differences += [f"~ {name} in {self.file}" for name in to_save]

        async def write() -> None:
            body: dict[str, Any] = {"oidcClientMetadata": merged}
            if known["id"]:
                await self.api.call("PATCH", f"applications/{known['id']}", body)
                self._save(to_save)
            else:
                body |= {"name": self.config.APP_NAME, "type": "Traditional"}
                new = await self.api.call("POST", "applications", body)
                self._save(await self._credentials(new["id"]))

        return Change(f"Application {known['id'] or self.config.APP_NAME}", differences, write)

    async def _known_application(self) -> dict[str, Any]:
        """Return the application that Logto has for this app. With `--create`, the ID may be empty."""
        path = f"applications/{quote(self.config.LOGTO_APP_ID, safe='')}"
        try:
            found: dict[str, Any] = await self.api.call("GET", path)
            return found
        except ManagementError as error:
            if not self.file or error.status != 404:
                raise
        page, callback = 1, self.config.LOGTO_CALLBACK_URL
        # Names are not unique, so the callback must be the same too.
        while items := await self.api.call("GET", f"{APPLICATIONS}&page={page}"):
            for found in items:
                uris = found["oidcClientMetadata"].get("redirectUris", [])
                if found["name"] == self.config.APP_NAME and callback in uris:
                    return found
            page += 1
        return {"id": "", "oidcClientMetadata": {}}

    async def _credentials(self, app_id: str) -> dict[str, str]:
        """Return what of the application's ID and secret the configuration does not have."""
        plain("The App ID", app_id)
        found = await self.api.call("GET", f"applications/{app_id}/secrets")
        now = time.time() * 1000
        secrets = [each["value"] for each in found if (each.get("expiresAt") or now + 1) > now]
        if not secrets:
            raise ManagementError(f"Application {app_id} has no secret that is valid: add one.")
        wanted = {"LOGTO_APP_ID": app_id}
        if self.config.LOGTO_APP_SECRET not in secrets:
            wanted["LOGTO_APP_SECRET"] = plain("The App secret", secrets[0], secret=True)
        return {n: value for n, value in wanted.items() if getattr(self.config, n) != value}

    async def webhook(self) -> Change:
        """The webhook that tells the app of suspended and deleted users, and its signing key."""
        uri = self._public("webhooks/logto")
        hooks = [h for h in await self.api.call("GET", "hooks") if h["config"]["url"] == uri]
        hook = hooks[0] if hooks else {"events": []}
        events = sorted({*hook["events"], *EVENTS})
        differences = [f"+ {event}" for event in events if event not in hook["events"]]
        if not hooks:
            differences.insert(0, f"+ webhook {uri}")
        elif hook["signingKey"] != self.config.LOGTO_WEBHOOK_SIGNING_KEY:
            differences.append(f"~ LOGTO_WEBHOOK_SIGNING_KEY in {self.file}")

        async def write() -> None:
            body = {"name": self.config.APP_NAME, "events": events, "config": {"url": uri}}
            if hooks:
                path = f"hooks/{plain('The ID of the webhook', hook['id'])}"
                new = await self.api.call("PATCH", path, {"events": events})
            else:
                new = await self.api.call("POST", "hooks", body)
            key = plain("The signing key", new["signingKey"], secret=True)
            self._save({"LOGTO_WEBHOOK_SIGNING_KEY": key})

        return Change("Webhook", differences, write)

    def _public(self, path: str) -> str:
        """Return a URL of the app that Logto can call, if an environment is not on this machine."""
        homes = [each.POST_SIGN_OUT_URI for each in self.environments]
        return next((home for home in homes if not _is_local(home)), homes[0]) + path

    def _save(self, values: dict[str, str]) -> None:
        if self.file and values:
            self.file.touch(mode=0o600)
            self.file.chmod(0o600)
            for name, value in values.items():
                # It replaces the file in one step.
                set_key(self.file, name, value, quote_mode="never")
            self.config = replace(self.config, **values)  # type: ignore[arg-type]
            say(f"{', '.join(values)}: written to {self.file}")

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

def _is_local(url: str) -> bool:
    return LOOPBACK.fullmatch(urlsplit(url).hostname or "") is not None


def _from_file() -> dict[str, Any]:
    """Return the connector's config, in which client ID and secret may be placeholders.

    Raises ConfigError if Logto would refuse it, or store it and be of no use.
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
