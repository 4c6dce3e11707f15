"""What can be known of the set-up without an account at Logto or Azure, and without a change."""

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
from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}

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
"""The label of each check, and the check that it builds on."""


@dataclass(frozen=True)
class Check:
    """One line of the table; `name` and the other keys are stable for `--json`.

    `ok` is None for what could not be checked; `value` is what to paste where `fix` says.
    """

    name: str
    label: str
    ok: bool | None
    found: str
    fix: str = ""
    value: str = ""


class CheckFailed(Exception):
    """Takes what was found, what to do, and perhaps the value to paste."""


class NotChecked(Exception):
    """It cannot be checked; the text says why."""


async def run() -> list[Check]:
    """Return the checks, without Microsoft and enterprise SSO if they have no button."""
    ways = " ".join(way for _, way in CONNECTORS.values())
    needed = {"enterprise_sso": "sso:"}
    needed |= dict.fromkeys(("microsoft", "connector_file"), f"social:{connector.TARGET}")
    names = [name for name in CHECKS if needed.get(name, "") in ways]
    checks = Checks()
    checks.started = {name: asyncio.ensure_future(checks.carry_out(name)) for name in names}
    return [await each for each in checks.started.values()]


class Checks:
    """Each method is a check: it gives what was found, or raises CheckFailed or NotChecked.

    Logto is asked as by a stranger without cookies, so nobody is signed in or out.
    """

    config: Config
    discovery: Response
    authorization: Response
    started: dict[str, asyncio.Future[Check]]

    async def carry_out(self, name: str) -> Check:
        """Do the check of this name, after the one that it builds on."""
        label, needed = CHECKS[name]
        done = partial(Check, name, label)
        try:
            if needed and not (await self.started[needed]).ok:
                raise NotChecked(f"see {CHECKS[needed][0]}")
            return done(True, await getattr(self, name)())
        except NotChecked as error:
            return done(None, f"not checked: {error}")
        except CheckFailed as error:
            return done(False, *error.args)
        except LogtoUnavailable as error:
            return done(False, str(error), "Try again in a moment.")
        except click.ClickException as error:
            found, *fix = [line.strip() for line in error.message.splitlines()]
            return done(False, found.rstrip(":"), "\n".join(fix) or "Correct this, and try again.")

    async def ask(self, method: str, name: str, **sent: Any) -> Response:
        """Return the response of one of the endpoints in the discovery document."""
        return await request(method, str(self.discovery.json[name]), **sent)

    async def configuration(self) -> str:
        """Whether all variables are there, each of the right form."""
        self.config = Config.from_env()
        return "complete"

    async def session_store(self) -> str:
        """Whether sessions can be written."""
        found, servers = self.config.SESSION_URL.partition(":")[0], []
        try:
            folder = {{ cookiecutter.framework | capitalize }}("app").instance_path
            store = open_store(self.config.SESSION_URL, folder, self.config.SESSION_PREFIX)
            for _ in range(9):  # On a cluster, a ping may meet the right server.
                {{ cookiecutter.__await }}store.ping()
            with suppress(StoreUnavailable):  # Not every user of a Redis may send INFO.
                servers = {{ cookiecutter.__await }}store.info() if isinstance(store, RedisStore) else []
            {{ cookiecutter.__await }}store.close()
        except (StoreUnavailable, ValueError) as error:
            fix = "Correct SESSION_URL, start Redis, or let the app write to the file's folder."
            raise CheckFailed(f"cannot be written ({error})", fix) from None
        if {server.get("maxmemory_policy", "noeviction") for server in servers} - {"noeviction"}:
            found += "; it may drop sessions: set its maxmemory-policy to noeviction"
        return found

    async def endpoint(self) -> str:
        """Whether a Logto of that name is there (OpenID Connect Discovery, section 4)."""
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        fix = "Correct LOGTO_ENDPOINT; the Logto Console shows it on the page of your app."
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
            found = f"{endpoint} calls itself {issuer!r}, a name that tokens must not have"
            fix = "Set LOGTO_ENDPOINT to the name that Logto has for itself:"
            raise CheckFailed(found, fix, issuer.removesuffix("/oidc"))
        return endpoint

    async def clock(self) -> str:
        """How far this machine's clock is from Logto's, by the Date of its response."""
        ahead = self.discovery.clock_ahead
        if ahead is None:
            raise NotChecked("Logto's response has no Date header")
        if abs(ahead) <= LEEWAY:
            return f"within {LEEWAY} s of Logto's"
        found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Logto's"
        raise CheckFailed(found, "Let this machine take its time from a time server (NTP).")

    async def signing_keys(self) -> str:
        """Whether there is a key for ES384, which Logto signs with (RFC 7518, section 3.4)."""
        response = await self.ask("GET", "jwks_uri")
        keys = response.json.get("keys")
        if isinstance(keys, list) and any("P-384" in str(key) for key in keys):
            return "ES384"
        raise CheckFailed(f"no ES384 key ({response.summary})", "Is LOGTO_ENDPOINT really a Logto?")

    async def authorize(self, **more: str) -> Response:
        """Return Logto's response to a sign-in that begins and does not continue (RFC 6749, 4.1.1)."""
        config, challenge = self.config, secrets.token_urlsafe(32)
        query = {"response_type": "code", "scope": "openid", "code_challenge_method": "S256"}
        query |= {"client_id": config.LOGTO_APP_ID, "redirect_uri": config.LOGTO_CALLBACK_URL}
        query |= {"code_challenge": challenge, **more}
        return await self.ask("GET", "authorization_endpoint", params=query)

    async def app_id(self) -> str:
        """Whether Logto knows the application."""
        self.authorization = await self.authorize()
        if self.authorization.error == "invalid_client":
            found = f"Logto does not know {self.config.LOGTO_APP_ID}"
            raise CheckFailed(found, f"Copy the App ID to LOGTO_APP_ID: {APP_PAGE}.")
        return self.config.LOGTO_APP_ID

    async def callback_url(self) -> str:
        """Whether Logto sends people back to this app."""
        uri = self.config.LOGTO_CALLBACK_URL
        if self.authorization.error == "invalid_redirect_uri":
            raise CheckFailed("Logto does not know it", f"{APP_PAGE} > Redirect URIs, add:", uri)
        if refusal := _refusal(self.authorization):
            fix = f"Is it a Traditional web application? {APP_PAGE}."
            raise CheckFailed(f"Logto begins no sign-in ({refusal})", fix)
        return uri

    async def app_secret(self) -> str:
        """Whether Logto takes the secret, with a made-up code that it has to refuse."""
        config, verifier = self.config, secrets.token_urlsafe(32)
        form = {"grant_type": "authorization_code", "code": "made-up", "code_verifier": verifier}
        form |= {"client_id": config.LOGTO_APP_ID, "client_secret": config.LOGTO_APP_SECRET}
        form |= {"redirect_uri": config.LOGTO_CALLBACK_URL}
        response = await self.ask("POST", "token_endpoint", data=form)
        if response.error == "invalid_grant":
            return "accepted"
        found = "Logto refuses it" if response.error == "invalid_client" else response.summary
        raise CheckFailed(found, f"Copy it again to LOGTO_APP_SECRET: {APP_PAGE} > App secrets.")

    async def post_sign_out_uri(self) -> str:
        """Whether people come back after sign-out (OpenID Connect RP-Initiated Logout)."""
        uri = self.config.POST_SIGN_OUT_URI
        query = {"client_id": self.config.LOGTO_APP_ID, "post_logout_redirect_uri": uri}
        response = await self.ask("GET", "end_session_endpoint", params=query)
        if response.status < 400:
            return uri
        found = "Logto does not know it" if response.status == 400 else response.summary
        raise CheckFailed(found, f"{APP_PAGE} > Post sign-out redirect URIs, add:", uri)

    {% if cookiecutter.api_resource %}
    async def api_resource(self) -> str:
        """Whether Logto knows the API that access tokens are for (RFC 8707)."""
        resource = self.config.LOGTO_API_RESOURCE
        refusal = _refusal(await self.authorize(resource=resource))
        if not refusal:
            return resource
        found = "Logto does not know it" if refusal == "invalid_target" else refusal
        fix = "Logto Console > API resources > Create API resource, with this identifier:"
        raise CheckFailed(found, fix, resource)

    {% endif %}
    async def microsoft(self) -> str:
        """Whether Logto's sign-in page, whose settings are public, offers Microsoft."""
        for item in await self.sign_in_page("socialConnectors"):
            if item.get("target") == connector.TARGET:
                endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
                return f"Azure must know {endpoint}/callback/{item.get('id')}"
        fix = (
            "Run {{ cookiecutter.framework }} logto provision, or in the Logto Console:\n"
            "Connectors > Social connectors > Add social connector > Microsoft, and then\n"
            "Sign-in experience > Sign-up and sign-in > Social sign-in > Microsoft."
        )
        raise CheckFailed("not on the sign-in page", fix)

    async def enterprise_sso(self) -> str:
        """Whether Logto's sign-in page offers each `sso:` connector of `app/config.py`."""
        offered = {str(item.get("id")) for item in await self.sign_in_page("ssoConnectors")}
        wanted = {way.removeprefix("sso:") for _, way in CONNECTORS.values() if "sso:" in way}
        if wanted <= offered:
            return "on the sign-in page"
        fix = "Logto Console > Enterprise SSO: copy the ID to app/config.py, and add a domain."
        raise CheckFailed(f"not on the sign-in page: {', '.join(sorted(wanted - offered))}", fix)

    async def sign_in_page(self, name: str) -> list[Mapping[str, Any]]:
        """Return a list of the settings of Logto's sign-in page, which are public."""
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        response = await request("GET", f"{endpoint}/api/.well-known/sign-in-exp")
        listed = response.json.get(name)
        return [i for i in listed if isinstance(i, Mapping)] if isinstance(listed, list) else []

    async def webhook(self) -> str:
        """Whether Logto tells the app of suspended and deleted users. This is optional."""
        if not (key := self.config.LOGTO_WEBHOOK_SIGNING_KEY):
            return "off: LOGTO_WEBHOOK_SIGNING_KEY is not set"
        if not os.environ.get("LOGTO_M2M_APP_SECRET"):
            return "the key is set; LOGTO_M2M_APP_SECRET is not, so Logto was not asked"
        api = ManagementApi(self.config.LOGTO_ENDPOINT.rstrip("/"))
        await api.sign_in()
        with expected():
            hooks = [h for h in await api.call("GET", "hooks") if h["signingKey"] == key]
            if hooks and hooks[0]["enabled"]:
                return str(hooks[0]["config"]["url"])
        if hooks:
            raise CheckFailed("it is disabled", "Enable it: Logto Console > Webhooks.")
        raise CheckFailed("no webhook has this key", "Run {{ cookiecutter.framework }} logto provision --create.")

    async def connector_file(self) -> str:
        """Whether the file makes a connector, with the variables that fill it in."""
        if not connector.FOLDER.exists():
            raise NotChecked("there is no folder connectors/ here")
        config = connector.load(os.environ)
        waiting = connector.placeholders(config)
        if not waiting:
            return "filled in and well formed"
        # Whoever made the connector by hand has entered them in Logto, where they belong.
        if (await self.started["microsoft"]).ok:
            return "well formed; Logto has the client ID and secret"
        names = " and ".join(connector.VARIABLES[name] for name in waiting)
        fix = f"Set {names}: Azure portal > App registrations > your app."
        raise CheckFailed("well formed, but not filled in", fix)


def _refusal(response: Response) -> str:
    """Why no sign-in begins; empty if one does."""
    location = response.headers.get("Location", "")
    sent_back = parse_qs(location.partition("?")[2]).get("error", [""])[0]
    return response.error or sent_back[:60] or ("" if location else response.summary)
