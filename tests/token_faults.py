"""Faults of Logto at its endpoints for tokens and keys, and browsers that are affected."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from typing import Any

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey
from jwt.algorithms import RSAAlgorithm
from sites import Browser, Fault, FaultyLogto, Site, changed

Sites = Callable[..., Site]
ALICE = "k3v9x0q2m7ae"
DISCOVERY = "/oidc/.well-known/openid-configuration"


def with_expired_token(site: Site, **choice: str) -> Browser:
    """Sign in a user whose access token has already expired."""
    browser = site.browser()
    with site.logto.expired_tokens():
        assert browser.sign_in(**choice).status_code == 302
    return browser


@contextmanager
def end_pause_after(site: Site) -> Iterator[None]:
    """End the app's pause after the `with` block, so that the app calls Logto again."""
    try:
        yield
    finally:
        for url in site.urls:
            httpx2.get(f"{url}/test/resume").raise_for_status()


def end_pause(site: Site) -> float:
    """End the pause of the app's first process, and return how many seconds were left."""
    return float(httpx2.get(f"{site.url}/test/resume").text)


def respond(status: int, content: object = b"", **headers: str) -> Fault:
    """Respond with this status, with bytes or anything else as JSON, and with these headers.

    `Retry_After` stands for the header `Retry-After`.
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    kind = "text/html" if isinstance(content, bytes) else "application/json"
    listed = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    listed += [(name.replace("_", "-"), value) for name, value in headers.items()]

    def fault(app: Any, environ: Any, start: Any, over: Any) -> Any:
        start(f"{status} {HTTPStatus(status).phrase}", listed)
        return [body]

    return fault


def endless(app: Any, environ: Any, start: Any, over: Any) -> Iterator[bytes]:
    """Send a response that has no end."""
    start("200 OK", [("Content-Type", "application/json")])
    yield b'{"access_token": "'
    while not over.is_set():
        yield b"x" * 2**16
        time.sleep(0.001)


def recording(seen: list[Any]) -> Fault:
    """Respond as Logto does, and add the WSGI environment of each request to `seen`."""

    def fault(app: Any, environ: Any, start: Any, over: Any) -> Any:
        seen.append(environ)
        return app(environ, start)

    return fault


def id_token(sign: Callable[[dict[str, Any]], str]) -> Fault:
    """Respond as Logto does, with an ID token that `sign` makes from the correct claims."""

    def replace(tokens: dict[str, Any]) -> dict[str, Any]:
        claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
        return tokens | {"id_token": sign(claims)}

    return changed(replace)


def id_token_issued_in(logto: FaultyLogto, seconds: float) -> Fault:
    """Respond with an ID token of a Logto whose clock is so many seconds ahead of the app's."""
    now = int(time.time() + seconds)
    return id_token(lambda claims: logto.signed({}, claims | {"iat": now, "exp": now + 60}))


@contextmanager
def publishing(logto: FaultyLogto, *entries: Any, algorithms: list[str]) -> Iterator[None]:
    """Publish these entries as the key set instead of Logto's, with these algorithms."""
    discovery = changed(lambda found: found | {"id_token_signing_alg_values_supported": algorithms})
    with (
        logto.fault(DISCOVERY, discovery),
        logto.fault("/oidc/jwks", respond(200, {"keys": entries})),
    ):
        yield


@cache
def rsa_key(bits: int = 2048) -> RSAKey:
    """Make an RSA key for RS256."""
    private = rsa.generate_private_key(65537, bits)
    published = {"kid": f"rsa-{bits}", "use": "sig", "alg": "RS256"}
    return RSAKey.import_key(RSAAlgorithm.to_jwk(private, as_dict=True) | published)


def public(key: Any) -> dict[str, Any]:
    """Return a key as a key set publishes it."""
    entry: dict[str, Any] = key.as_dict(private=False)
    return entry


def oct_entry(secret: bytes) -> dict[str, Any]:
    """Return a shared secret as a key set publishes it."""
    value = urlsafe_b64encode(secret).decode().rstrip("=")
    return {"kty": "oct", "kid": "shared", "alg": "HS256", "use": "sig", "k": value}
