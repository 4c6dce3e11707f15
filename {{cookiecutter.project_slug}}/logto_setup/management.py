"""A small client of Logto's Management API."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click

from app.auth.oidc import LogtoUnavailable, request
from app.config import LOOPBACK, ConfigError
from app.server.logs import printable

ROLE = "the role Logto Management API access"


class ManagementError(click.ClickException):
    """Logto refuses a call or does not respond. The text contains no secret."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        # The text can quote a response of Logto, so escape its control characters.
        super().__init__("\n".join(printable(line, None) for line in message.split("\n")))


def plain(what: str, value: object, *, secret: bool = False) -> str:
    """Return a text from Logto. Raises ManagementError unless it has only A-Za-z0-9._-."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]+", value):
        return value
    shown = "" if secret else f": {str(value)[:100]!r}"
    raise ManagementError(f"{what} in Logto has unexpected characters{shown}.")


@contextmanager
def expected() -> Iterator[None]:
    """Raise ManagementError if the `with` block fails on an unexpected response of Logto."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ManagementError(f"Logto's response is not as expected: {error!r}.") from None


def is_local(url: str) -> bool:
    """Return whether a URL is on this machine. Logto never calls such a URL."""
    return LOOPBACK.fullmatch(urlsplit(url).hostname or "") is not None


def default_resource(endpoint: str) -> str:
    """Return the Management API's identifier. A self-hosted Logto has one tenant, "default"."""
    host = urlsplit(endpoint).hostname or ""
    return f"https://{host if host.endswith('.logto.app') else 'default.logto.app'}/api"


class ManagementApi:
    """Calls `{endpoint}/api/...` with a token for the machine-to-machine application."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.headers: dict[str, str] = {}

    async def sign_in(self) -> None:
        """Fetch the access token (RFC 6749, section 4.4; RFC 8707 for the resource).

        Raises ConfigError if a variable is not set, and ManagementError if Logto refuses.
        """
        names = ("LOGTO_M2M_APP_ID", "LOGTO_M2M_APP_SECRET")
        app_id, secret = (os.environ.get(name, "").strip() for name in names)
        if not app_id or not secret:
            raise ConfigError(
                f"{' or '.join(names)} is not set. Set both in .env: Logto Console\n"
                f"> Applications > Create application > Machine-to-machine, with {ROLE}."
            )
        resource = os.environ.get("LOGTO_MANAGEMENT_RESOURCE") or default_resource(self.endpoint)
        url = os.environ.get("LOGTO_MANAGEMENT_TOKEN_ENDPOINT") or f"{self.endpoint}/oidc/token"
        form = {"grant_type": "client_credentials", "scope": "all", "resource": resource}
        form |= {"client_id": app_id, "client_secret": secret}
        try:
            response = await request("POST", url, data=form)
        except LogtoUnavailable as error:
            raise ManagementError(f"{url}: {error}.") from None
        reasons = {
            "invalid_client": f"Logto rejects {' or '.join(names)}: copy both again.",
            "invalid_target": f"Logto has no API {resource}: correct LOGTO_MANAGEMENT_RESOURCE.",
        }
        if response.status != 200 or "access_token" not in response.json:
            other = f"{url} returned no token: {response.summary}."
            raise ManagementError(reasons.get(response.error, other))
        self.headers["Authorization"] = f"Bearer {response.json['access_token']}"

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the API, and return the JSON of its response.

        Raises ManagementError if Logto refuses, with Logto's error code and without `body`.
        """
        url = f"{self.endpoint}/api/{path}"
        try:
            response = await request(method, url, headers=self.headers, json=body)
        except LogtoUnavailable as error:
            raise ManagementError(f"{method} /api/{path}: {error}.") from None
        if not 200 <= response.status < 300 or response.data is None:
            hint = f" The app needs {ROLE}." if response.status in (401, 403) else ""
            message = f"{method} /api/{path}: {response.summary}.{hint}"
            raise ManagementError(message, response.status)
        return response.data

    async def write(
        self, path: str, known: dict[str, Any], body: dict[str, Any], about: dict[str, Any]
    ) -> Any:
        """Change an object that Logto has, or create it. `about` is for a new object only."""
        if "id" in known:
            return await self.call("PATCH", f"{path}/{plain('The ID', known['id'])}", body)
        return await self.call("POST", path, {**about, **body})
