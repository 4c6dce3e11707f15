"""What can be known of the set-up without an account at Logto or Azure, and without a change."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}

from app.auth.oidc import LEEWAY, LogtoUnavailable, Response, request
from app.config import CONNECTORS, LOOPBACK, Config, ConfigError
from app.server.stores import IS_CLUSTER, RedisStore, StoreUnavailable, open_store

from . import connector
from .management import ManagementApi

APP_PAGE = "Logto Console > Applications > your app"
LABELS = {
    "configuration": "Configuration",
    "session_store": "Session store",
    "endpoint": "Logto endpoint",
    "clock": "Clock",
    "signing_keys": "Signing keys",
    "app_id": "App ID",
    "callback_url": "Callback URL",
    "app_secret": "App secret",
    "post_sign_out_uri": "Post sign-out URI",
    {% if cookiecutter.api_resource %}
    "api_resource": "API resource",
    {% endif %}
    "microsoft": "Continue with Microsoft",
    "webhook": "Webhook",
    "connector_file": "Azure AD connector file",
}


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
    """Return all checks, in the order of LABELS. This ends within seconds.

    Without a sign-in button for Microsoft in `app/config.py`, nothing of Microsoft is checked.
    """
    checks = Checks()
    with_microsoft = any(way == f"social:{connector.TARGET}" for _, way in CONNECTORS.values())
    microsoft = {"microsoft", "connector_file"}
    for names in (
        ["configuration"],
        ["session_store", "endpoint"],
        ["clock", "app_id"],
        ["signing_keys", "callback_url", "app_secret", "post_sign_out_uri", "microsoft", "webhook"],
        {% if cookiecutter.api_resource %}
        ["api_resource"],
        {% endif %}
        ["connector_file"],
    ):
        wanted = [name for name in names if with_microsoft or name not in microsoft]
        await asyncio.gather(*(checks.carry_out(name) for name in wanted))
    return [checks.done[name] for name in LABELS if name in checks.done]


class Checks:
    """Each method is a check: it gives what was found, or raises CheckFailed or NotChecked.

    Logto is asked as by a stranger without cookies, so nobody is signed in or out.
    """

    config: Config
    discovery: Response
    authorization: Response

    def __init__(self) -> None:
        self.done: dict[str, Check] = {}

    async def carry_out(self, name: str) -> None:
        """Do the check of this name and remember what came of it."""
        done = partial(Check, name, LABELS[name])
        try:
            self.done[name] = done(True, await getattr(self, name)())
        except NotChecked as error:
            self.done[name] = done(None, f"not checked: {error}")
        except CheckFailed as error:
            self.done[name] = done(False, *error.args)
        except LogtoUnavailable as error:
            self.done[name] = done(False, str(error), "Try again in a moment.")

    def need(self, name: str) -> None:
        """Raise NotChecked if the check that this one builds on was not passed."""
        if not self.done[name].ok:
            raise NotChecked(f"see {LABELS[name]}")

    async def ask(self, method: str, name: str, **sent: Any) -> Response:
        """Return the response of one of the endpoints in the discovery document."""
        return await request(method, str(self.discovery.json[name]), **sent)

    async def configuration(self) -> str:
        """Whether all variables are there, each of the right form."""
        try:
            self.config = Config.from_env()
        except ConfigError as error:
            found, *lines = error.message.splitlines()
            raise CheckFailed(found.rstrip(":"), "\n".join(lines)) from None
        return "complete"

    async def session_store(self) -> str:
        """Whether sessions can be written."""
        self.need("configuration")
        found = self.config.SESSION_URL.partition(":")[0]
        try:
            folder = {{ cookiecutter.framework | capitalize }}("app").instance_path
            store = open_store(self.config.SESSION_URL, folder, self.config.SESSION_PREFIX)
            {{ cookiecutter.__await }}store.ping()
            servers = []
            with suppress(StoreUnavailable):  # Not every user of a Redis may send INFO.
                servers = {{ cookiecutter.__await }}store.info() if isinstance(store, RedisStore) else []
            {{ cookiecutter.__await }}store.close()
            if not found.endswith("+cluster") and any(s.get("cluster_enabled") for s in servers):
                raise StoreUnavailable(IS_CLUSTER)
        except (StoreUnavailable, ValueError) as error:
            fix = "Correct SESSION_URL, start Redis, or let the app write to the file's folder."
            raise CheckFailed(f"cannot be written ({error})", fix) from None
        if {server.get("maxmemory_policy", "noeviction") for server in servers} - {"noeviction"}:
            found += "; it may drop sessions: set its maxmemory-policy to noeviction"
        return found

    async def endpoint(self) -> str:
        """Whether a Logto of that name is there (OpenID Connect Discovery, section 4)."""
        self.need("configuration")
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        fix = "Correct LOGTO_ENDPOINT; the Logto Console shows it on the page of your app."
        if LOOPBACK.fullmatch(urlsplit(endpoint).hostname or ""):
            fix = "Start the local Logto with python -m dev, or correct LOGTO_ENDPOINT."
        try:
            url = f"{endpoint}/oidc/.well-known/openid-configuration"
            self.discovery = await request("GET", url)
        except LogtoUnavailable as error:
            if "proxy" in str(error) or "certificate" in str(error):
                fix = "Correct HTTPS_PROXY, HTTP_PROXY, NO_PROXY or SSL_CERT_FILE."
            raise CheckFailed(f"{endpoint}: {error}", fix) from None
        named = [self.discovery.json.get(name) for name in DISCOVERED]
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
        self.need("endpoint")
        ahead = self.discovery.clock_ahead
        if ahead is None:
            raise NotChecked("Logto's response has no Date header")
        if abs(ahead) <= LEEWAY:
            return f"within {LEEWAY} s of Logto's"
        found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Logto's"
        raise CheckFailed(found, "Let this machine take its time from a time server (NTP).")

    async def signing_keys(self) -> str:
        """Whether there is a key for ES384, which Logto signs with (RFC 7518, section 3.4)."""
        self.need("endpoint")
        response = await self.ask("GET", "jwks_uri")
        keys = response.json.get("keys")
        if isinstance(keys, list) and any("P-384" in str(key) for key in keys):
            return "ES384"
        raise CheckFailed(f"no ES384 key ({response.summary})", "Is LOGTO_ENDPOINT really a Logto?")

    async def authorize(self, **more: str) -> Response:
        """Return Logto's response to a sign-in that begins and does not continue (RFC 6749, 4.1.1)."""
        query = {
            "client_id": self.config.LOGTO_APP_ID,
            "redirect_uri": self.config.LOGTO_CALLBACK_URL,
            "response_type": "code",
            "scope": "openid",
            "code_challenge": secrets.token_urlsafe(32),
            "code_challenge_method": "S256",
            **more,
        }
        return await self.ask("GET", "authorization_endpoint", params=query)

    async def app_id(self) -> str:
        """Whether Logto knows the application."""
        self.need("endpoint")
        self.authorization = await self.authorize()
        if self.authorization.error == "invalid_client":
            found = f"Logto does not know {self.config.LOGTO_APP_ID}"
            raise CheckFailed(found, f"Copy the App ID to LOGTO_APP_ID: {APP_PAGE}.")
        return self.config.LOGTO_APP_ID

    async def callback_url(self) -> str:
        """Whether Logto sends people back to this app."""
        self.need("app_id")
        uri = self.config.LOGTO_CALLBACK_URL
        if self.authorization.error == "invalid_redirect_uri":
            raise CheckFailed("Logto does not know it", f"{APP_PAGE} > Redirect URIs, add:", uri)
        refusal = _refusal(self.authorization)
        if refusal:
            fix = f"Is it a Traditional web application? {APP_PAGE}."
            raise CheckFailed(f"Logto begins no sign-in ({refusal})", fix)
        return uri

    async def app_secret(self) -> str:
        """Whether Logto takes the secret, with a made-up code that it has to refuse."""
        self.need("app_id")
        form = {
            "grant_type": "authorization_code",
            "client_id": self.config.LOGTO_APP_ID,
            "client_secret": self.config.LOGTO_APP_SECRET,
            "code": "made-up",
            "redirect_uri": self.config.LOGTO_CALLBACK_URL,
            "code_verifier": secrets.token_urlsafe(32),
        }
        response = await self.ask("POST", "token_endpoint", data=form)
        if response.error == "invalid_grant":
            return "accepted"
        found = "Logto refuses it" if response.error == "invalid_client" else response.summary
        raise CheckFailed(found, f"Copy it again to LOGTO_APP_SECRET: {APP_PAGE} > App secrets.")

    async def post_sign_out_uri(self) -> str:
        """Whether people come back after sign-out (OpenID Connect RP-Initiated Logout)."""
        self.need("app_id")
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
        self.need("callback_url")
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
        self.need("endpoint")
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        response = await request("GET", f"{endpoint}/api/.well-known/sign-in-exp")
        targets, known = (response.json.get(name) for name in SIGN_IN_PAGE)
        if isinstance(targets, list) and connector.TARGET in targets and isinstance(known, list):
            for item in known:
                if isinstance(item, Mapping) and item.get("target") == connector.TARGET:
                    return f"Azure must know {endpoint}/callback/{item.get('id')}"
        fix = (
            "Run {{ cookiecutter.framework }} logto provision, or in the Logto Console:\n"
            "Connectors > Social connectors > Add social connector > Azure AD, and then\n"
            "Sign-in experience > Sign-up and sign-in > Social sign-in > Azure AD."
        )
        raise CheckFailed("not on the sign-in page", fix)

    async def webhook(self) -> str:
        """Whether Logto tells the app of suspended users. This is optional."""
        self.need("endpoint")
        if not (key := self.config.LOGTO_WEBHOOK_SIGNING_KEY):
            return "off: LOGTO_WEBHOOK_SIGNING_KEY is not set"
        if not os.environ.get("LOGTO_M2M_APP_SECRET"):
            return "the key is set; with LOGTO_M2M_APP_SECRET, the registration is checked too"
        fix = "Run {{ cookiecutter.framework }} logto provision --create."
        url = f"{self.config.POST_SIGN_OUT_URI}webhooks/logto"
        try:
            api = ManagementApi(self.config.LOGTO_ENDPOINT.rstrip("/"))
            await api.sign_in()
            hooks = [h for h in await api.call("GET", "hooks") if h["config"]["url"] == url]
        except (click.ClickException, KeyError, TypeError) as error:
            raise CheckFailed(f"cannot be read: {error}", "Try again in a moment.") from None
        if not hooks:
            raise CheckFailed(f"Logto has no webhook for {url}", fix)
        if not any(hook.get("signingKey") == key for hook in hooks):
            raise CheckFailed("LOGTO_WEBHOOK_SIGNING_KEY is not the key that Logto has", fix)
        if not any(hook.get("enabled") for hook in hooks):
            raise CheckFailed("it is disabled", "Enable it: Logto Console > Webhooks.")
        return url

    async def connector_file(self) -> str:
        """Whether the file makes a connector, with the variables that fill it in."""
        if not connector.FOLDER.exists():
            raise NotChecked("there is no folder connectors/ here")
        try:
            config = connector.filled(connector.read(), os.environ)
        except connector.ConnectorFileError as error:
            raise CheckFailed("cannot be used", str(error)) from None
        wrong = connector.problems(config)
        if wrong:
            fix = "\n".join(f"{name} {what}." for name, what in wrong.items())
            raise CheckFailed(f"{connector.FILE} is not right", fix)
        waiting = connector.placeholders(config)
        if not waiting:
            return "filled in and well formed"
        # Whoever made the connector by hand has entered them in Logto, where they belong.
        if self.done["microsoft"].ok:
            return "well formed; Logto has the client ID and secret"
        names = " and ".join(connector.VARIABLES[name] for name in waiting)
        fix = f"Set {names}: Azure portal > App registrations > your app."
        raise CheckFailed("well formed, but not filled in", fix)


DISCOVERED = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "end_session_endpoint",
    "jwks_uri",
)
SIGN_IN_PAGE = ("socialSignInConnectorTargets", "socialConnectors")


def _refusal(response: Response) -> str:
    """Why no sign-in begins; empty if one does."""
    location = response.headers.get("Location", "")
    sent_back = parse_qs(location.partition("?")[2]).get("error", [""])[0]
    return response.error or sent_back[:60] or ("" if location else response.summary)
