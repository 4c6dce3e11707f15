"""HTTP for the commands: with the library of the Logto SDK, so that they reach what the app
reaches, and with an end in sight."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

TIME_LIMIT = 5
"""Seconds that an answer may take."""
SIZE_LIMIT = 2**20
"""Bytes that are read of an answer."""


class Unreachable(Exception):
    """No answer; the text says why in a few words."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. `data` is its JSON, None if it is not JSON."""

    status: int
    headers: Mapping[str, str]
    data: Any

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object, empty if it is none."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def error(self) -> str:
        """Logto's code for what went wrong, without the `oidc.` in front; empty if none."""
        code = self.json.get("error") or self.json.get("code") or ""
        return str(code).removeprefix("oidc.")[:60] if self.status >= 400 else ""

    @property
    def location(self) -> str:
        """Where a redirect leads; empty if it is none."""
        return self.headers.get("Location", "") if 300 <= self.status < 400 else ""

    @property
    def summary(self) -> str:
        """The answer in a few words, fit for a terminal."""
        kind = self.headers.get("Content-Type", "nothing").partition(";")[0]
        if self.location:
            kind = f"a redirect to {self.location}"
        return ascii(f"HTTP {self.status}, {self.error or kind}"[:120])[1:-1]


def calling() -> aiohttp.ClientSession:
    """A client that keeps no cookies and waits `TIME_LIMIT` seconds for each answer."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIME_LIMIT), cookie_jar=aiohttp.DummyCookieJar()
    )


async def ask(http: aiohttp.ClientSession, method: str, url: str, **sent: Any) -> Answer:
    """The answer to a request; redirects are not followed.

    Raises:
        Unreachable: if there is none.
    """
    try:
        async with http.request(method, url, allow_redirects=False, **sent) as answer:
            try:
                body = await answer.content.readexactly(SIZE_LIMIT)
            except asyncio.IncompleteReadError as whole:
                body = whole.partial
    except TimeoutError:
        raise Unreachable(f"no answer within {TIME_LIMIT} s") from None
    except aiohttp.ClientConnectorDNSError:
        raise Unreachable("there is no such host, or no network") from None
    except aiohttp.ClientSSLError:
        raise Unreachable("there is no https with a certificate that this machine trusts") from None
    except aiohttp.ClientConnectorError:
        raise Unreachable("nothing listens there") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unreachable(f"no proper answer ({type(error).__name__})") from None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    return Answer(answer.status, answer.headers, data)
