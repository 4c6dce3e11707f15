"""Checks of the set-up. They need no account at Logto or Azure, and change nothing."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import click
from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}

from app.auth.oidc import LEEWAY, LogtoUnavailable, Response, request
from app.config import CONNECTORS, Config
from app.server.stores import RedisStore, StoreUnavailable, open_store

from . import connector
from .management import ManagementApi, expected, is_local

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "end_session_endpoint")
APP_PAGE = "Logto Console > Applications > your app"
CHECKS = {
    "configuration": ("Configuration", ""),
    "session_store": ("Session store", "configuration"),
    "endpoint": ("Logto endpoint", "configuration"),
    "clock": ("Clock", "endpoint"),
    "signing_keys": ("Signing keys", "endpoint"),
    "app_id": ("App ID", "endpoint"),
    "callback_url": ("Callback URL", "app_id"),
    "app_secret": ("App secret", "app_id"),
    "post_sign_out_uri": ("Post sign-out URI", "app_id"),
    {% if cookiecutter.api_resource %}
    "api_resource": ("API resource", "callback_url"),
    {% endif %}
    "microsoft": ("Continue with Microsoft", "endpoint"),
    "enterprise_sso": ("Enterprise SSO", "endpoint"),
    "webhook": ("Webhook", "endpoint"),
    "connector_file": ("Microsoft connector file", ""),
}
"""The label of each check, and the check that must be right before it."""


@dataclass(frozen=True)
class Check:
    """One line of the table. These names are the keys of `--json`, and do not change.

    `ok` is None if the check could not run. `value` is the text to paste where `fix` says.
    """

    name: str
    label: str
    ok: bool | None
    found: str
    fix: str = ""
    value: str = ""


class CheckFailed(Exception):
    """A check failed. Takes what was found, how to fix it, and optionally the value to paste."""


class NotChecked(Exception):
    """A check cannot run. The text says why."""


async def run() -> list[Check]:
    """Run the checks. Leave out those of Microsoft and enterprise SSO if they have no button."""
    ways = " ".join(way for _, way in CONNECTORS.values())
    needed = {"enterprise_sso": "sso:"}
    needed |= dict.fromkeys(("microsoft", "connector_file"), f"social:{connector.TARGET}")
    names = [name for name in CHECKS if needed.get(name, "") in ways]
    checks = Checks()
    checks.started = {name: asyncio.ensure_future(checks.carry_out(name)) for name in names}
    return [await each for each in checks.started.values()]


class Checks:
    """Each check is a method. It returns what was found, or raises CheckFailed or NotChecked.

    The requests to Logto have no cookies, so they sign nobody in or out.
    """

    config: Config
    discovery: Response
    authorization: Response
    started: dict[str, asyncio.Future[Check]]

    async def carry_out(self, name: str) -> Check:
        """Run the check of this name, after the check that must be right before it."""
        label, needed = CHECKS[name]
        done = partial(Check, name, label)
        try:
            if needed and not (await self.started[needed]).ok:
                raise NotChecked(f'"{CHECKS[needed][0]}" must be right first')
            return done(True, await getattr(self, name)())
        except NotChecked as error:
            return done(None, f"not checked: {error}")
        except CheckFailed as error:
            return done(False, *error.args)
        except LogtoUnavailable as error:
            return done(False, str(error), "Try again in a moment.")
        except click.ClickException as error:
            found, *fix = [line.strip() for line in error.message.splitlines()]
            return done(False, found.rstrip(":"), "\n".join(fix) or "Correct this and try again.")

    async def call(self, method: str, name: str, **sent: Any) -> Response:
        """Send a request to an endpoint of the discovery document, and return the response."""
        return await request(method, str(self.discovery.json[name]), **sent)

    async def configuration(self) -> str:
        """Check that all variables are set and have valid values."""
        self.config = Config.from_env()
        return "complete"

    async def session_store(self) -> str:
        """Check that sessions can be saved."""
        found, servers = self.config.SESSION_URL.partition(":")[0], []
        try:
            folder = {{ cookiecutter.__framework }}("app").instance_path
            store = open_store(self.config.SESSION_URL, folder, self.config.SESSION_PREFIX)
            for _ in range(9):  # On a cluster, one ping may reach the right server.
                {{ cookiecutter.__await }}store.ping()
            with suppress(StoreUnavailable):  # The Redis user may lack permission for INFO.
                servers = {{ cookiecutter.__await }}store.info() if isinstance(store, RedisStore) else []
            {{ cookiecutter.__await }}store.close()
        except (StoreUnavailable, ValueError) as error:
            fix = "Correct SESSION_URL, start Redis, or let the app write to the file's folder."
            raise CheckFailed(f"sessions cannot be saved ({error})", fix) from None
        if {server.get("maxmemory_policy", "noeviction") for server in servers} - {"noeviction"}:
            found += "; it may delete sessions: set its maxmemory-policy to noeviction"
        return found

    async def endpoint(self) -> str:
        """Check that Logto responds at its endpoint (OpenID Connect Discovery, section 4)."""
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        fix = f"Correct LOGTO_ENDPOINT. Copy it from {APP_PAGE}."
        if is_local(endpoint):
            fix = "Start the local Logto with python -m dev, or correct LOGTO_ENDPOINT."
        try:
            url = f"{endpoint}/oidc/.well-known/openid-configuration"
            self.discovery = await request("GET", url)
        except LogtoUnavailable as error:
            if "proxy" in str(error) or "certificate" in str(error):
                fix = "Correct HTTPS_PROXY, HTTP_PROXY, NO_PROXY or SSL_CERT_FILE."
            raise CheckFailed(f"{endpoint}: {error}", fix) from None
        named = [self.discovery.json.get(name) for name in ("issuer", "jwks_uri", *ENDPOINTS)]
        if self.discovery.status != 200 or not all(isinstance(each, str) for each in named):
            found = f"{endpoint} does not respond as Logto does ({self.discovery.summary})"
            raise CheckFailed(found, fix)
        issuer = str(self.discovery.json["issuer"])
        if issuer != f"{endpoint}/oidc":
            found = f"the Logto at {endpoint} has another URL for itself: {issuer!r}"
            fix = "Set LOGTO_ENDPOINT to the URL that Logto has for itself:"
            raise CheckFailed(found, fix, issuer.removesuffix("/oidc"))
        return endpoint

    async def clock(self) -> str:
        """Compare this machine's clock with the Date header of Logto's response."""
        ahead = self.discovery.clock_ahead
        if ahead is None:
            raise NotChecked("Logto's response has no Date header")
        if abs(ahead) <= LEEWAY:
            return f"within {LEEWAY} s of Logto's clock"
        found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Logto's clock"
        raise CheckFailed(found, "Set this machine's clock from a time server (NTP).")

    async def signing_keys(self) -> str:
        """Check that Logto has a key for ES384, its signature algorithm (RFC 7518, section 3.4)."""
        response = await self.call("GET", "jwks_uri")
        keys = response.json.get("keys")
        if isinstance(keys, list) and any("P-384" in str(key) for key in keys):
            return "ES384"
        raise CheckFailed(f"no ES384 key ({response.summary})", "Check the URL in LOGTO_ENDPOINT.")

    async def authorize(self, **more: str) -> Response:
        """Start a sign-in, do not finish it, and return Logto's response (RFC 6749, 4.1.1)."""
        config, challenge = self.config, secrets.token_urlsafe(32)
        query = {"response_type": "code", "scope": "openid", "code_challenge_method": "S256"}
        query |= {"client_id": config.LOGTO_APP_ID, "redirect_uri": config.LOGTO_CALLBACK_URL}
        query |= {"code_challenge": challenge, **more}
        return await self.call("GET", "authorization_endpoint", params=query)

    async def app_id(self) -> str:
        """Check that Logto knows the application."""
        self.authorization = await self.authorize()
        if self.authorization.error == "invalid_client":
            found = f"Logto has no application {self.config.LOGTO_APP_ID}"
            raise CheckFailed(found, f"Copy the App ID from {APP_PAGE} to LOGTO_APP_ID.")
        return self.config.LOGTO_APP_ID

    async def callback_url(self) -> str:
        """Check that Logto accepts the callback URL of this app."""
        uri = self.config.LOGTO_CALLBACK_URL
        if self.authorization.error == "invalid_redirect_uri":
            raise CheckFailed("unknown to Logto", f"Add it in {APP_PAGE} > Redirect URIs:", uri)
        if refusal := _refusal(self.authorization):
            fix = f"The app in Logto must be a Traditional web application: {APP_PAGE}."
            raise CheckFailed(f"Logto does not start a sign-in ({refusal})", fix)
        return uri

    async def app_secret(self) -> str:
        """Send an invalid code with the secret. Logto must reject the code, but not the secret."""
        config, verifier = self.config, secrets.token_urlsafe(32)
        form = {"grant_type": "authorization_code", "code": "made-up", "code_verifier": verifier}
        form |= {"client_id": config.LOGTO_APP_ID, "client_secret": config.LOGTO_APP_SECRET}
        form |= {"redirect_uri": config.LOGTO_CALLBACK_URL}
        response = await self.call("POST", "token_endpoint", data=form)
        if response.error == "invalid_grant":
            return "accepted"
        found = "Logto rejects it" if response.error == "invalid_client" else response.summary
        raise CheckFailed(found, f"Copy it from {APP_PAGE} > App secrets to LOGTO_APP_SECRET.")

    async def post_sign_out_uri(self) -> str:
        """Check that Logto returns users to the app (OpenID Connect RP-Initiated Logout)."""
        uri = self.config.POST_SIGN_OUT_URI
        query = {"client_id": self.config.LOGTO_APP_ID, "post_logout_redirect_uri": uri}
        response = await self.call("GET", "end_session_endpoint", params=query)
        if response.status < 400:
            return uri
        found = "unknown to Logto" if response.status == 400 else response.summary
        raise CheckFailed(found, f"Add it in {APP_PAGE} > Post sign-out redirect URIs:", uri)

    {% if cookiecutter.api_resource %}
    async def api_resource(self) -> str:
        """Check that Logto knows the API resource for access tokens (RFC 8707)."""
        resource = self.config.LOGTO_API_RESOURCE
        refusal = _refusal(await self.authorize(resource=resource))
        if not refusal:
            return resource
        found = "unknown to Logto" if refusal == "invalid_target" else refusal
        fix = "Create it in Logto Console > API resources, with this identifier:"
        raise CheckFailed(found, fix, resource)

    {% endif %}
    async def microsoft(self) -> str:
        """Check that Logto's sign-in page offers Microsoft."""
        for item in await self.sign_in_page("socialConnectors"):
            if item.get("target") == connector.TARGET:
                endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
                return f"redirect URI for Azure: {endpoint}/callback/{item.get('id')}"
        fix = (
            "Run {{ cookiecutter.framework }} logto provision, or in the Logto Console:\n"
            "Connectors > Social connectors > Add social connector > Microsoft, then\n"
            "Sign-in experience > Sign-up and sign-in > Social sign-in > Microsoft."
        )
        raise CheckFailed("not on the sign-in page", fix)

    async def enterprise_sso(self) -> str:
        """Check that Logto's sign-in page offers each `sso:` connector of `app/config.py`."""
        offered = {str(item.get("id")) for item in await self.sign_in_page("ssoConnectors")}
        wanted = {way.removeprefix("sso:") for _, way in CONNECTORS.values() if "sso:" in way}
        if wanted <= offered:
            return "on the sign-in page"
        fix = "Logto Console > Enterprise SSO: copy the ID to app/config.py, and add a domain."
        raise CheckFailed(f"not on the sign-in page: {', '.join(sorted(wanted - offered))}", fix)

    async def sign_in_page(self, name: str) -> list[Mapping[str, Any]]:
        """Return the list `name` in the settings of Logto's sign-in page, which are public."""
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        response = await request("GET", f"{endpoint}/api/.well-known/sign-in-exp")
        listed = response.json.get(name)
        return [i for i in listed if isinstance(i, Mapping)] if isinstance(listed, list) else []

    async def webhook(self) -> str:
        """Check the webhook for suspended and deleted users, which is optional."""
        if not (key := self.config.LOGTO_WEBHOOK_SIGNING_KEY):
            return "off: LOGTO_WEBHOOK_SIGNING_KEY is not set"
        if not os.environ.get("LOGTO_M2M_APP_SECRET"):
            return "not checked in Logto, because LOGTO_M2M_APP_SECRET is not set"
        api = ManagementApi(self.config.LOGTO_ENDPOINT.rstrip("/"))
        await api.sign_in()
        with expected():
            hooks = [h for h in await api.call("GET", "hooks") if h["signingKey"] == key]
            if hooks and hooks[0]["enabled"]:
                return str(hooks[0]["config"]["url"])
        if hooks:
            raise CheckFailed("disabled in Logto", "Enable it in Logto Console > Webhooks.")
        raise CheckFailed("no webhook has this signing key", "Run {{ cookiecutter.framework }} logto provision --create.")

    async def connector_file(self) -> str:
        """Check that the file and its variables make a valid connector."""
        if not connector.FOLDER.exists():
            raise NotChecked("the folder connectors/ does not exist")
        config = connector.load(os.environ)
        waiting = connector.placeholders(config)
        if not waiting:
            return "valid and complete"
        # A connector that was created in the Logto Console has these two values in Logto only.
        if (await self.started["microsoft"]).ok:
            return "valid; Logto has the client ID and secret"
        names = " and ".join(connector.VARIABLES[name] for name in waiting)
        fix = f"Set {names} in .env: Azure portal > App registrations > your app."
        raise CheckFailed("valid, but not complete", fix)


def _refusal(response: Response) -> str:
    """Return why Logto does not start a sign-in, or an empty text if it does."""
    location = response.headers.get("Location", "")
    sent_back = parse_qs(location.partition("?")[2]).get("error", [""])[0]
    return response.error or sent_back[:60] or ("" if location else response.summary)
