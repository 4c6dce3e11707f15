"""What can be known of the set-up without an account at Logto or Azure, and without a change."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import parse_qs, urlsplit

from ..config import LOOPBACK, Config, ConfigError
from ..sessions.stores import StoreUnavailable, open_store
from . import connector
from .http import Answer, Unreachable, ask, calling

CLOCK_LEEWAY = 30
"""Seconds that the clocks may differ before tokens are refused as expired or not yet valid."""
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


class Wrong(Exception):
    """Takes what was found, what to do, and perhaps the value to paste."""


class Unknown(Exception):
    """It cannot be checked; the text says why."""


async def run() -> list[Check]:
    """All checks, in the order of LABELS. Ends within seconds, whoever does not answer."""
    checks = Checks()
    for names in (
        ["configuration"],
        ["session_store", "endpoint"],
        ["clock", "app_id"],
        ["signing_keys", "callback_url", "app_secret", "post_sign_out_uri", "microsoft"],
        {% if cookiecutter.api_resource %}
        ["api_resource"],
        {% endif %}
        ["connector_file"],
    ):
        await asyncio.gather(*(checks.carry_out(name) for name in names))
    return [checks.done[name] for name in LABELS]


class Checks:
    """Each method is a check: it gives what was found, or raises Wrong or Unknown.

    Logto is asked as by a stranger without cookies, so nobody is signed in or out.
    """

    config: Config
    discovery: Answer
    authorization: Answer

    def __init__(self) -> None:
        self.done: dict[str, Check] = {}

    async def carry_out(self, name: str) -> None:
        """Do the check of this name and remember what came of it."""
        done = partial(Check, name, LABELS[name])
        try:
            self.done[name] = done(True, await getattr(self, name)())
        except Unknown as error:
            self.done[name] = done(None, f"not checked: {error}")
        except Wrong as error:
            self.done[name] = done(False, *error.args)
        except Unreachable as error:
            self.done[name] = done(False, str(error), "Try again in a moment.")

    def need(self, name: str) -> None:
        """Raise Unknown if the check that this one builds on was not passed."""
        if not self.done[name].ok:
            raise Unknown(f"see {LABELS[name]}")

    async def ask(self, method: str, name: str, **sent: object) -> Answer:
        """Logto's answer at one of the addresses that it has named."""
        async with calling() as http:
            return await ask(http, method, str(self.discovery.json[name]), **sent)

    async def configuration(self) -> str:
        """Whether all variables are there, each of the right form."""
        try:
            self.config = Config.from_env()
        except ConfigError as error:
            found, *lines = error.message.splitlines()
            raise Wrong(found.rstrip(":"), "\n".join(lines)) from None
        return "complete"

    async def session_store(self) -> str:
        """Whether sessions can be written."""
        self.need("configuration")
        try:
            {{ cookiecutter.__await }}open_store(self.config.SESSION_URL).ping()
        except (StoreUnavailable, ValueError) as error:
            fix = "Correct SESSION_URL, start Redis, or let the app write to the file's folder."
            raise Wrong(f"cannot be written ({error})", fix) from None
        return self.config.SESSION_URL.partition(":")[0]

    async def endpoint(self) -> str:
        """Whether a Logto of that name is there (OpenID Connect Discovery, section 4)."""
        self.need("configuration")
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        fix = "Correct LOGTO_ENDPOINT; the Logto Console shows it on the page of your app."
        if urlsplit(endpoint).hostname in LOOPBACK:
            fix = "Start the local Logto with python -m dev, or correct LOGTO_ENDPOINT."
        try:
            async with calling() as http:
                address = f"{endpoint}/oidc/.well-known/openid-configuration"
                self.discovery = await ask(http, "GET", address)
        except Unreachable as error:
            raise Wrong(f"{endpoint}: {error}", fix) from None
        named = [self.discovery.json.get(name) for name in DISCOVERED]
        if self.discovery.status != 200 or not all(isinstance(each, str) for each in named):
            found = f"{endpoint} does not answer as a Logto does ({self.discovery.summary})"
            raise Wrong(found, fix)
        issuer = str(self.discovery.json["issuer"])
        if issuer != f"{endpoint}/oidc":
            found = f"{endpoint} calls itself {issuer!r}, a name that tokens must not have"
            fix = "Set LOGTO_ENDPOINT to the name that Logto has for itself:"
            raise Wrong(found, fix, issuer.removesuffix("/oidc"))
        return endpoint

    async def clock(self) -> str:
        """How far this machine's clock is from Logto's, by the Date of its answer."""
        self.need("endpoint")
        try:
            theirs = parsedate_to_datetime(self.discovery.headers["Date"])
            ahead = (datetime.now(UTC) - theirs).total_seconds()
        except (KeyError, TypeError, ValueError):
            raise Unknown("Logto does not say what time it is") from None
        if abs(ahead) <= CLOCK_LEEWAY:
            return f"within {CLOCK_LEEWAY} s of Logto's"
        found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Logto's"
        raise Wrong(found, "Let this machine take its time from a time server (NTP).")

    async def signing_keys(self) -> str:
        """Whether there is a key for ES384, which Logto signs with (RFC 7518, section 3.4)."""
        self.need("endpoint")
        answer = await self.ask("GET", "jwks_uri")
        keys = answer.json.get("keys")
        if isinstance(keys, list) and any("P-384" in str(key) for key in keys):
            return "ES384"
        raise Wrong(f"no ES384 key ({answer.summary})", "Is LOGTO_ENDPOINT really a Logto?")

    async def authorize(self, **more: str) -> Answer:
        """Logto's answer to the beginning of a sign-in, which ends there (RFC 6749, 4.1.1)."""
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
            raise Wrong(found, f"Copy the App ID to LOGTO_APP_ID: {APP_PAGE}.")
        return self.config.LOGTO_APP_ID

    async def callback_url(self) -> str:
        """Whether Logto sends people back to this app."""
        self.need("app_id")
        uri = self.config.LOGTO_CALLBACK_URL
        if self.authorization.error == "invalid_redirect_uri":
            raise Wrong("Logto does not know it", f"{APP_PAGE} > Redirect URIs, add:", uri)
        refusal = _refusal(self.authorization)
        if refusal:
            fix = f"Is it a Traditional web application? {APP_PAGE}."
            raise Wrong(f"Logto begins no sign-in ({refusal})", fix)
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
        answer = await self.ask("POST", "token_endpoint", data=form)
        if answer.error == "invalid_grant":
            return "accepted"
        found = "Logto refuses it" if answer.error == "invalid_client" else answer.summary
        raise Wrong(found, f"Copy it again to LOGTO_APP_SECRET: {APP_PAGE} > App secrets.")

    async def post_sign_out_uri(self) -> str:
        """Whether people come back after sign-out (OpenID Connect RP-Initiated Logout)."""
        self.need("app_id")
        uri = self.config.POST_SIGN_OUT_URI
        query = {"client_id": self.config.LOGTO_APP_ID, "post_logout_redirect_uri": uri}
        answer = await self.ask("GET", "end_session_endpoint", params=query)
        if answer.status < 400:
            return uri
        found = "Logto does not know it" if answer.status == 400 else answer.summary
        raise Wrong(found, f"{APP_PAGE} > Post sign-out redirect URIs, add:", uri)

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
        raise Wrong(found, fix, resource)

    {% endif %}
    async def microsoft(self) -> str:
        """Whether Logto's sign-in page, whose settings are public, offers Microsoft."""
        self.need("endpoint")
        endpoint = self.config.LOGTO_ENDPOINT.rstrip("/")
        async with calling() as http:
            answer = await ask(http, "GET", f"{endpoint}/api/.well-known/sign-in-exp")
        targets, known = (answer.json.get(name) for name in SIGN_IN_PAGE)
        if isinstance(targets, list) and connector.TARGET in targets and isinstance(known, list):
            for item in known:
                if isinstance(item, Mapping) and item.get("target") == connector.TARGET:
                    return f"Azure must know {endpoint}/callback/{item.get('id')}"
        fix = (
            "Run {{ cookiecutter.framework }} logto provision, or in the Logto Console:\n"
            "Connectors > Social connectors > Add social connector > Azure AD, and then\n"
            "Sign-in experience > Sign-up and sign-in > Social sign-in > Azure AD."
        )
        raise Wrong("not on the sign-in page", fix)

    async def connector_file(self) -> str:
        """Whether the file makes a connector, with the variables that fill it in."""
        try:
            config = connector.filled(connector.read(), os.environ)
        except connector.ConnectorFileError as error:
            raise Wrong("cannot be used", str(error)) from None
        wrong = connector.problems(config)
        if wrong:
            fix = "\n".join(f"{name} {what}." for name, what in wrong.items())
            raise Wrong(f"{connector.FILE} is not right", fix)
        waiting = connector.placeholders(config)
        if not waiting:
            return "filled in and well formed"
        # Whoever made the connector by hand has entered them in Logto, where they belong.
        if self.done["microsoft"].ok:
            return "well formed; Logto has the client ID and secret"
        names = " and ".join(connector.VARIABLES[name] for name in waiting)
        fix = f"Set {names}: Azure portal > App registrations > your app."
        raise Wrong("well formed, but not filled in", fix)


DISCOVERED = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "end_session_endpoint",
    "jwks_uri",
)
SIGN_IN_PAGE = ("socialSignInConnectorTargets", "socialConnectors")


def _refusal(answer: Answer) -> str:
    """Why no sign-in begins; empty if one does."""
    sent_back = parse_qs(answer.location.partition("?")[2]).get("error", [""])[0]
    return answer.error or sent_back[:60] or ("" if answer.location else answer.summary)
