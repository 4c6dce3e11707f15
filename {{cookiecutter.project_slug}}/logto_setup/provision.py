"""Register this app and the Azure AD connector in Logto: read, merge, write what is missing.

A write of the Management API replaces a whole object. So each object is read first, and nothing
that was in Logto before is removed.
"""

import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dotenv import dotenv_values, load_dotenv
from environs import ValidationError

{% if cookiecutter.api_resource %}
from app.api import SCOPES
{% endif %}
from app.config import PROJECT_DIR, Config, ConfigError, check_callback_url

from . import connector
from .management import ManagementApi, ManagementError, expected, is_local, plain
from .output import say

SIGNING_KEY = "LOGTO_WEBHOOK_SIGNING_KEY"
EVENTS = ("User.Created", "User.Data.Updated", "User.Deleted", "User.SuspensionStatus.Updated")
PAGE_SIZE, MOST_PAGES = 20, 500
LINE = r"""(?m)^(\s*(?:export\s+)?NAME\s*=)(?:[ \t]*(?:'[^'\n]*'|"[^"\n]*")|.*?)(?=\s+#|\s*$)"""
NO_SIGN_UP = {"identifiers": [], "password": False, "verify": False}
AUDIENCES = {
    "common": "AzureADandPersonalMicrosoftAccount --requested-access-token-version 2",
    "consumers": "PersonalMicrosoftAccount --requested-access-token-version 2",
    "organizations": "AzureADMultipleOrgs",
}


@dataclass(frozen=True)
class Change:
    """One object to write in Logto: its name, the differences, and a function that writes it."""

    what: str
    differences: list[str]
    write: Callable[[], Awaitable[object]]


async def run(
    dry_run: bool, social_only: bool, create: bool, env_file: str | None, callback_url: list[str]
) -> None:
    """Print the changes, then send them. Raises ConfigError before anything is sent, or
    ManagementError, whose message says what was done and what was not done."""
    file = Path(env_file or PROJECT_DIR / ".env").resolve()  # A symbolic link stays a link.
    if env_file:
        load_dotenv(file, override=True, encoding="utf-8")
    load_dotenv(PROJECT_DIR / ".env", encoding="utf-8")
    before, environ = dotenv_values(file, encoding="utf-8"), dict(os.environ)
    for name in ("LOGTO_APP_ID", "LOGTO_APP_SECRET") if create else ():
        os.environ[name] = environ.get(name, "").strip() or "unknown"
    config = Config.from_env()
    try:
        for url in callback_url:
            check_callback_url(url)
    except ValidationError as error:
        raise ConfigError(f"--callback-url: {error}") from None
    environments = [config, *(replace(config, LOGTO_CALLBACK_URL=url) for url in callback_url)]
    api = ManagementApi(config.LOGTO_ENDPOINT.rstrip("/"))
    await api.sign_in()
    plan = Plan(api, config, environments, social_only, file if create else None)
    changes = await plan.changes()
    for change in changes:
        say(change.what, "green")
        for difference in change.differences:
            say(f"  {difference}")
    if dry_run and changes:
        say("Nothing was sent (--dry-run).")
    elif changes:
        await _write(changes)
        # Logto responds with 200 even if it drops values, so read everything again.
        if left := await plan.changes():
            raise ManagementError(f"Logto did not keep: {_listed(left)}. Set it in the Console.")
        say("Done. Logto has all settings.")
    else:
        say("There is nothing to do: Logto has all settings.")
    for name, value in plan.variables.items():
        if not env_file and environ.get(name, value) not in (value, before.get(name)):
            say(f"{name} of the environment wins over {file}: unset the variable.", "yellow")
    plan.say_azure()


async def _write(changes: list[Change]) -> None:
    for number, change in enumerate(changes):
        try:
            with expected():
                await change.write()
        except ManagementError as error:
            raise ManagementError(
                f"{change.what}: {error.message}\n"
                f"Done: {_listed(changes[:number])}.\nNot done: {_listed(changes[number:])}.\n"
                "Run the command again to continue from there."
            ) from None


def _listed(changes: list[Change]) -> str:
    return ", ".join(change.what for change in changes) or "nothing"


@dataclass
class Plan:
    """Compares what Logto has with what this app needs in each of its environments."""

    api: ManagementApi
    config: Config
    environments: list[Config]
    social_only: bool
    file: Path | None  # Only with `--create`, which writes the variables.
    variables: dict[str, str] = field(default_factory=dict)
    connector_id: str = connector.TARGET
    azure: dict[str, Any] = field(default_factory=dict)

    async def changes(self) -> list[Change]:
        """Return what must be written, in this order. The list is empty if Logto has everything."""
        with expected():
            found = [
                await self.application(),
                *([await self.webhook(), self.env_file(self.file)] if self.file else []),
                await self.connector(),
                await self.sign_in_experience(),
                {% if cookiecutter.api_resource %}
                await self.api_resource(),
                {% endif %}
            ]
        return [change for change in found if change.differences]

    async def application(self) -> Change:
        """Return the change of the app's URIs. With `--create`, this can be a new application."""
        known = await self._known_application()
        metadata = known["oidcClientMetadata"]
        differences = [] if "id" in known else ["+ Traditional web application"]
        homes = [each.POST_SIGN_OUT_URI for each in self.environments]
        for name, label, uris in (
            ("redirectUris", "redirect", [e.LOGTO_CALLBACK_URL for e in self.environments]),
            ("postLogoutRedirectUris", "post sign-out", homes),
        ):
            new = [uri for uri in dict.fromkeys(uris) if uri not in metadata.get(name, [])]
            metadata[name] = [*metadata.get(name, []), *new]
            differences += [f"+ {label} URI {uri}" for uri in new]
        uri, old = self._public("backchannel-logout"), metadata.get("backchannelLogoutUri")
        # An application has one such URI at most. Logto never calls a URL of its own machine.
        if old != uri and (not old or is_local(old)):
            metadata |= {"backchannelLogoutUri": uri, "backchannelLogoutSessionRequired": True}
            differences.append(f"+ back-channel logout URI {uri}")

        async def write() -> None:
            about = {"name": self.config.APP_NAME, "type": "Traditional"}
            body = {"oidcClientMetadata": metadata}
            saved = await self.api.write("applications", known, body, about)
            if "id" not in known:
                self._save(LOGTO_APP_ID=plain("The App ID", saved["id"]))
                self._save(LOGTO_APP_SECRET=await self._secret())

        return Change(f"Application {known.get('id', self.config.APP_NAME)}", differences, write)

    async def _known_application(self) -> Any:
        """Return the application in Logto. With `--create`, it can be a new one without an ID."""
        app_id = self.variables.get("LOGTO_APP_ID", self.config.LOGTO_APP_ID)
        try:
            path = f"applications/{quote(app_id, safe='')}"
            found = {**await self.api.call("GET", path), "id": app_id}
        except ManagementError as error:
            if not self.file or error.status != 404:
                raise
            found = await self._application_by_name()
        if self.file and "id" in found:
            self.variables["LOGTO_APP_ID"] = plain("The App ID", found["id"])
            self.variables["LOGTO_APP_SECRET"] = await self._secret()
        return found

    async def _application_by_name(self) -> Any:
        """Return the application with this app's name and callback; names alone are not unique."""
        name, callback = self.config.APP_NAME, self.config.LOGTO_CALLBACK_URL
        for page in range(1, MOST_PAGES):
            query = f"types=Traditional&page={page}&page_size={PAGE_SIZE}"
            items = await self.api.call("GET", f"applications?{query}")
            for each in items:
                if each["name"] == name and callback in each["oidcClientMetadata"]["redirectUris"]:
                    return each
            if len(items) < PAGE_SIZE:
                break
        return {"oidcClientMetadata": {}}

    async def _secret(self) -> str:
        """Return a valid secret of the application: LOGTO_APP_SECRET if it is valid, or another."""
        app_id, now = self.variables["LOGTO_APP_ID"], time.time() * 1000
        secrets = await self.api.call("GET", f"applications/{app_id}/secrets")
        valid = [s["value"] for s in secrets if not s["expiresAt"] or s["expiresAt"] > now]
        if not valid:
            raise ManagementError(f"Application {app_id} has no valid secret: add one in Logto.")
        current = self.config.LOGTO_APP_SECRET
        return plain("The App secret", current if current in valid else valid[0], secret=True)

    async def webhook(self) -> Change:
        """Return the change of the webhook that notifies the app of suspended and deleted users."""
        url, key = self._public("webhooks/logto"), self.config.LOGTO_WEBHOOK_SIGNING_KEY
        known = [h for h in await self.api.call("GET", "hooks") if h["config"]["url"] == url]
        # URLs are not unique, so look for the key first.
        hook = next((h for h in known if h["signingKey"] == key), known[0] if known else {})
        events = hook.get("events", [])
        missing = [event for event in EVENTS if event not in events]
        differences = [] if hook else [f"+ webhook {url}"]
        differences += [f"+ {event}" for event in missing]
        if hook:
            self.variables[SIGNING_KEY] = plain("The signing key", hook["signingKey"], secret=True)

        async def write() -> None:
            about = {"name": self.config.APP_NAME, "config": {"url": url}}
            saved = await self.api.write("hooks", hook, {"events": [*events, *missing]}, about)
            if not hook:
                key = plain("The signing key", saved["signingKey"], secret=True)
                self._save(**{SIGNING_KEY: key})

        return Change("Webhook", differences, write)

    def _public(self, path: str) -> str:
        """Return a URL of the app. Logto can call it if an environment is not on this machine."""
        homes = [each.POST_SIGN_OUT_URI for each in self.environments]
        return next((home for home in homes if not is_local(home)), homes[0]) + path

    def env_file(self, file: Path) -> Change:
        """Return the change of the file: the variables of the application and the webhook."""
        there = dotenv_values(file, encoding="utf-8")
        names = ("LOGTO_APP_ID", "LOGTO_APP_SECRET", SIGNING_KEY)
        differences = [f"~ {n}" for n in names if self.variables.get(n, "") != there.get(n)]

        async def write() -> None:
            self._save(**self.variables)

        return Change(str(file), differences, write)

    def _save(self, **values: str) -> None:
        """Set variables in the env file, and change nothing else in it."""
        assert self.file
        self.variables |= values
        new = self.file.with_name(".env.new")
        try:
            text = self.file.read_bytes().decode() if self.file.exists() else ""
            for name, value in values.items():
                # dotenv's `set_key` would drop empty lines, `export` and the comment of the line.
                text, found = re.subn(LINE.replace("NAME", name), rf"\g<1>{value}", text)
                if not found:
                    text += "\n" if text and not text.endswith("\n") else ""
                    text += f"{name}={value}\n"
            new.unlink(missing_ok=True)
            new.touch(mode=0o600)
            new.write_bytes(text.encode())
            # Replace the file in one step, so that a crash loses nothing.
            new.replace(self.file)
        except OSError as error:
            raise ManagementError(f"{self.file} cannot be written: {error.strerror}.") from None
        say(f"{', '.join(values)}: written to {self.file}")

    async def connector(self) -> Change:
        """Return the change of the Azure AD connector. Logto has one at most."""
        items = await self.api.call("GET", "connectors")
        ours: dict[str, Any] = next((i for i in items if i["connectorId"] == connector.FACTORY), {})
        known = ours.get("config") or {}
        wanted = connector.load(os.environ)
        wanted |= {name: known[name] for name in connector.placeholders(wanted) if known.get(name)}
        self.azure = merged = {**known, **wanted}
        if "clientId" not in connector.placeholders(merged):
            plain("The client ID of the connector", merged["clientId"])
        if ours:
            self.connector_id = plain("The ID of the connector", ours["id"])
        waiting = [connector.VARIABLES[name] for name in connector.placeholders(merged)]
        if waiting:
            self.say_azure()
            raise ConfigError(
                f"Nothing was sent. Set {' and '.join(waiting)} in .env:\n"
                "Azure portal > App registrations > your app. The commands above create it."
            )
        shown = ("tenantId", "cloudInstance")  # The other values may be secret.
        differences = [
            f"{'~' if known.get(name) else '+'} {name} {value if name in shown else ''}".rstrip()
            for name, value in wanted.items()
            if known.get(name) != value
        ]
        about = {"id": self.connector_id, "connectorId": connector.FACTORY}
        write = partial(self.api.write, "connectors", ours, {"config": merged}, about)
        return Change(f"Microsoft connector {self.connector_id}", differences, write)

    async def sign_in_experience(self) -> Change:
        """Return the change of the sign-in page: the button, and with `social_only` no sign-up."""
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
        """Return the change of the API resource: its identifier, and the scopes of its views."""
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
            path = f"resources/{plain('The ID of the API resource', resource['id'])}/scopes"
            for name, text in missing.items():
                await self.api.call("POST", path, {"name": name, "description": text})

        differences = [] if there else [f"+ API identifier {identifier}"]
        differences += [f"+ scope {name}" for name in missing]
        return Change("API resource", differences, write)

    {% endif %}
    def say_azure(self) -> None:
        """Print the redirect URI that Azure needs, for the portal and as commands."""
        uri = f"{self.api.endpoint}/callback/{self.connector_id}"
        say("\nAdd in Azure: App registrations > your app > Authentication > Web > Redirect URIs:")
        say(f"  {uri}")
        if "clientId" not in connector.placeholders(self.azure):
            say("Or run this after az login. It replaces all redirect URIs of your app:")
            client_id = self.azure["clientId"]
            say(f'  az ad app update --id "{client_id}" --web-redirect-uris "{uri}"')
            return
        # Remove characters that have a meaning in a shell.
        name = re.sub(r"[^\w .-]", "", self.config.APP_NAME).strip(" .-")
        audience = AUDIENCES.get(str(self.azure["tenantId"]), "AzureADMyOrg")
        say("Or run these after az login. The first prints an appId; put it into the second:")
        say(
            f'  az ad app create --display-name "{name or self.config.LOGTO_APP_ID}"'
            f' --web-redirect-uris "{uri}" --sign-in-audience {audience}'
        )
        say('  az ad app credential reset --id "<appId>" --display-name Logto')
