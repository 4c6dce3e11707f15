"""All HTTP calls to Logto, through the function `request`, and the rules for Logto's tokens.

SDK 0.2.1 sends its calls without a time limit and a proxy, follows redirects, and drops the HTTP
status. `Oidc` replaces this part of the SDK.
"""

import asyncio
import functools
import json
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import jwt
from jwt.utils import base64url_encode
from logto.models.oidc import OidcProviderMetadata
from logto.models.response import TokenResponse, UserInfoResponse
from logto.OidcCore import OidcCore
from pydantic import BaseModel, ValidationError

from ..config import LOOPBACK
from ..server.logs import printable
from ..server.stores import APP
from .keys import KeySet

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=BaseModel)

TIME_LIMIT = 10.0  # Seconds that a request waits for Logto.
RETRY = 5.0  # Seconds between two attempts to fetch discovery and keys, if the first failed.
PAUSE = 30.0  # Seconds after Logto did not respond, in which signed-in users do not wait again.
MAX_PAUSE = 60  # The most seconds of a `Retry-After` header that the app respects.
SIZE_LIMIT = 2**20  # The most bytes of a response that the app reads.
LEEWAY = 30  # Seconds that the clocks of Logto and of this machine may differ.
HEADERS = {"User-Agent": f"{APP}/1.0"}  # Some firewalls refuse the default of Python's libraries.
# aiohttp creates its TLS context at the import, before `.env` sets SSL_CERT_FILE.
_tls = functools.cache(ssl.create_default_context)
REQUIRED = ("iss", "aud", "iat", "exp")
CLAIM_TYPES = dict.fromkeys(("exp", "iat", "nbf"), (int, float)) | dict.fromkeys(
    ("sub", "sid", "jti", "nonce", "azp", "client_id"), (str,)
)
"""Types of the claims that all tokens share. PyJWT accepts an `exp` that is a string."""
USER_TEXTS = ("name", "username", "email", "picture")
USER_LISTS = ("roles", "organizations", "organization_roles")
REASONS = {
    aiohttp.ClientSSLError: "no trusted certificate; for a private authority, set SSL_CERT_FILE",
    aiohttp.ClientProxyConnectionError: "the proxy cannot be reached",
    aiohttp.ClientConnectorDNSError: "there is no such host, or no network",
    aiohttp.ClientConnectorError: "no server accepts the connection",
    TimeoutError: "no response in time",
}


class LogtoUnavailable(Exception):
    """Logto cannot be reached, or its response is not valid."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        """Take the reason, and how many seconds the app should wait before it calls Logto again."""
        super().__init__(reason)
        self.pause = pause


class SignInInvalid(Exception):
    """Logto rejected the code or token, or its ID token is invalid."""


class NotGranted(Exception):
    """Logto does not grant the user an access token for this resource."""


@dataclass(frozen=True)
class Response:
    """An HTTP response. `data` is any JSON value or None; `json` is a JSON object or empty."""

    status: int
    headers: Mapping[str, str]
    data: Any
    json: dict[str, Any]

    @property
    def error(self) -> str:
        """Logto's error code, or an empty string."""
        code = self.json.get("error") or self.json.get("code") or ""
        return str(code).removeprefix("oidc.")[:60]

    @property
    def summary(self) -> str:
        """A short description of the response that is safe to print."""
        kind = self.error or self.headers.get("Content-Type", "no content").partition(";")[0]
        if 300 <= self.status < 400:
            kind = f"a redirect to {self.headers.get('Location')}"
        return ascii(f"HTTP {self.status}, {kind}"[:120])[1:-1]

    @property
    def clock_ahead(self) -> float | None:
        """Seconds that this machine's clock is ahead of the sender's clock, or None if unknown."""
        try:
            sent_at = parsedate_to_datetime(self.headers["Date"])
            return (datetime.now(UTC) - sent_at).total_seconds()
        except (KeyError, TypeError, ValueError):
            return None


async def request(method: str, url: str, *, seconds: float | None = None, **sent: Any) -> Response:
    """Send an HTTP request to Logto, and return any response. Raises LogtoUnavailable.

    Follow no redirect and keep no cookie. `sent` is `data`, `json`, `params` or `headers`.
    Use HTTPS_PROXY, HTTP_PROXY and NO_PROXY, but never use a proxy for a loopback URL.
    """
    target, proxy = urlsplit(url), None
    if not LOOPBACK.fullmatch(target.hostname or "") and not proxy_bypass(target.netloc):
        proxy = getproxies().get(target.scheme)
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    options: Any = {"proxy": proxy, "allow_redirects": False, "ssl": _tls(), **sent}
    http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=HEADERS)
    try:
        async with asyncio.timeout(seconds or TIME_LIMIT), http:
            response = await http.request(method, url, **options)
            try:
                body = await response.content.readexactly(SIZE_LIMIT)
            except asyncio.IncompleteReadError as whole:
                body = whole.partial
    except (aiohttp.ClientError, OSError, ValueError) as error:
        other = f"no valid HTTP response ({type(error).__name__})"
        reason = next((text for kind, text in REASONS.items() if isinstance(error, kind)), other)
        through = f", through the proxy {proxy.rpartition('@')[2]}" if proxy else ""
        raise LogtoUnavailable(f"{reason}{through}", PAUSE) from None
    try:
        data = _savable(json.loads(body))
    except (ValueError, RecursionError):
        data = None
    return Response(response.status, response.headers, data, data if isinstance(data, dict) else {})


def _savable(data: Any) -> Any:
    # Raises ValueError for a lone surrogate, which can be neither saved nor shown.
    json.dumps(data, ensure_ascii=False).encode()
    return data


def _checked(response: Response, model: type[Model], resource: str = "") -> Model:
    """Return the content of a response, or raise the exception for its error (RFC 6749, 5.2).

    A refusal signs the user out. A rate limit, a proxy's page or a restart is not a refusal.
    """
    error = response.json.get("error")
    if response.status in (400, 401, 403) and isinstance(error, str):
        reason = printable(f"{error}: {response.json.get('error_description')}")
        if error == "invalid_grant" and response.status == 400:
            raise SignInInvalid(reason)
        if error in ("invalid_client", "unauthorized_client"):
            names = "LOGTO_APP_ID and LOGTO_APP_SECRET"
            raise LogtoUnavailable(f"it refuses this app, check {names} ({reason})")
        raise NotGranted(reason) if resource else LogtoUnavailable(reason)
    if response.status != 200 or not response.json:
        after = response.headers.get("Retry-After", "") if response.status == 429 else ""
        pause = min(int(after[:9]), MAX_PAUSE) if after.isdecimal() else 0
        raise LogtoUnavailable(f"not a response of Logto ({response.summary})", pause)
    try:
        return model.model_validate(response.json)
    except ValidationError as invalid:
        # Name only the fields: the text of this error contains the response with its tokens.
        wrong = ", ".join(".".join(map(str, fault["loc"])) for fault in invalid.errors())
        raise LogtoUnavailable(f"its response has no valid {printable(wrong)}") from None


class Oidc(OidcCore):
    """The SDK's OIDC functions, with HTTP calls by `request` and more checks of ID tokens."""

    def __init__(self, issuer: str) -> None:
        # Do not call the SDK's __init__: it needs the metadata, which is fetched later.
        self.issuer = issuer
        self.keys = KeySet(self._fetch_published)
        self.published: dict[str, Any] = {}
        self._retry_at = 0.0
        self._last_response: Response | None = None

    async def signing_key(self, token: str) -> jwt.PyJWK:
        """Return the public key that a token names. Raises LogtoUnavailable and jwt.PyJWTError."""
        try:
            return await self.keys.find(token)
        except (LogtoUnavailable, TimeoutError) as error:
            if key := self.keys.known(token):
                return key
            raise LogtoUnavailable(f"its keys cannot be fetched: {error}") from None

    def decode(
        self, token: str, key: jwt.PyJWK, *, typ: str, require: list[str], audience: str = ""
    ) -> dict[str, Any]:
        """Verify a token of Logto (RFC 7519, 7.2), and return its claims. Raises jwt.PyJWTError.

        `typ` is the required type (RFC 8725, 3.11). A token that names no type counts as a `jwt`.
        """
        try:
            decoded = jwt.decode_complete(
                token,
                key,
                # Use the algorithm that Logto publishes, and ignore that of the token's header.
                algorithms=[key.algorithm_name],
                issuer=self.issuer,
                audience=audience or None,
                leeway=LEEWAY,
                options={"require": [*require, *REQUIRED], "verify_aud": bool(audience)},
            )
            claims: dict[str, Any] = _savable(decoded["payload"])
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            # PyJWT raises these for unexpected numbers, strings and nesting depths.
            raise jwt.InvalidTokenError(f"the token cannot be read: {error}") from error
        if str(decoded["header"].get("typ", "jwt")).lower().removeprefix("application/") != typ:
            raise jwt.InvalidTokenError(f"typ is not {typ}")
        for name, kinds in CLAIM_TYPES.items():
            value = claims.get(name)
            if value is not None and (type(value) not in kinds or value == ""):
                raise jwt.InvalidTokenError(f"{name} is empty or has a wrong type")
        return claims

    async def _fetch_published(self) -> dict[str, jwt.PyJWK]:
        """Fetch the discovery document and the public keys."""
        if time.monotonic() < self._retry_at:
            raise LogtoUnavailable("it did not respond a moment ago")
        try:
            # Two requests share the time limit of one operation.
            url, seconds = f"{self.issuer}/.well-known/openid-configuration", TIME_LIMIT / 2
            response = await request("GET", url, seconds=seconds)
            metadata = _checked(response, OidcProviderMetadata)
            if metadata.issuer != self.issuer:  # OpenID Connect Discovery, 4.3.
                reason = f"its issuer is {printable(metadata.issuer)}, not {self.issuer}"
                raise LogtoUnavailable(reason)
            published = {"revocation_endpoint": f"{self.issuer}/token/revocation"} | response.json
            kinds = ("authorization", "token", "userinfo", "end_session", "revocation")
            for endpoint in (metadata.jwks_uri, *(published.get(f"{k}_endpoint") for k in kinds)):
                # The app sends its secret and tokens to these URLs.
                if not str(endpoint).startswith(self.issuer.removesuffix("oidc")):
                    raise LogtoUnavailable(f"{printable(endpoint)} is not below LOGTO_ENDPOINT")
            response = await request("GET", metadata.jwks_uri, seconds=seconds)
            keys = _usable_keys(response, metadata.id_token_signing_alg_values_supported)
            if not keys:
                raise LogtoUnavailable(f"it publishes no usable key ({response.summary})")
        except (LogtoUnavailable, SignInInvalid) as error:
            self._retry_at = time.monotonic() + RETRY
            raise LogtoUnavailable(str(error), getattr(error, "pause", 0)) from None
        self.published, self.metadata = published, metadata
        return keys

    async def fetchTokenByCode(self, *_: Any, **sent: Any) -> TokenResponse:
        form = {"grant_type": "authorization_code", "code": sent["code"]}
        form |= {"redirect_uri": sent["redirectUri"], "code_verifier": sent["codeVerifier"]}
        return await self._fetch_tokens(sent["clientId"], sent["clientSecret"], form)

    async def fetchTokenByRefreshToken(
        self, clientId: str, clientSecret: str | None, refreshToken: str, resource: str = ""
    ) -> TokenResponse:
        form = {"grant_type": "refresh_token", "refresh_token": refreshToken}
        if resource:
            organization = resource.removeprefix("urn:logto:organization:")
            form["resource" if organization == resource else "organization_id"] = organization
        return await self._fetch_tokens(clientId, clientSecret, form, resource)

    async def _fetch_tokens(
        self, app_id: str, secret: str | None, form: dict[str, str], resource: str = ""
    ) -> TokenResponse:
        form |= {"client_id": app_id, "client_secret": str(secret)}
        response = await request("POST", self.metadata.token_endpoint, data=form)
        tokens = _checked(response, TokenResponse, resource)
        self._last_response = response
        if tokens.id_token:
            try:
                await self.keys.find(tokens.id_token, trusted=True)
                self.verifyIdToken(tokens.id_token, app_id, tokens.access_token)
            except jwt.PyJWTError as error:
                raise SignInInvalid(f"the ID token is invalid: {printable(error)}") from None
            except (LogtoUnavailable, TimeoutError) as error:
                if form["grant_type"] != "refresh_token":
                    raise
                # The session keeps its old claims, but needs the new refresh token.
                log.warning("The ID token of a refresh is ignored: %s", error)
                tokens.id_token = None
        return tokens

    def verifyIdToken(self, idToken: str, clientId: str, accessToken: str | None = None) -> None:
        """Check an ID token (OpenID Connect Core, 3.1.3.7). Raises jwt.PyJWTError, and
        LogtoUnavailable if this machine's clock is wrong."""
        key = self.keys.known(idToken)
        if key is None:
            raise jwt.InvalidTokenError("the key of the token is not known")
        try:
            claims = self.decode(idToken, key, typ="jwt", require=["sub"], audience=clientId)
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as error:
            ahead = self._last_response.clock_ahead if self._last_response else None
            if isinstance(error, jwt.ImmatureSignatureError) or (ahead or 0) > LEEWAY:
                reason = f"check this machine's clock, because the new ID token is invalid: {error}"
                raise LogtoUnavailable(reason) from None
            raise
        if claims["aud"] not in (clientId, [clientId]) or claims.get("azp") not in (None, clientId):
            raise jwt.InvalidTokenError("the token is also for other apps")
        texts = all(isinstance(claims.get(name), str | None) for name in USER_TEXTS)
        lists = [claims.get(name) or [] for name in USER_LISTS]
        if not texts or not all(type(e) is list and {*map(type, e)} <= {str} for e in lists):
            raise jwt.InvalidTokenError("a claim about the user has a wrong type")
        if accessToken and claims.get("at_hash") is not None:
            # OpenID Connect Core, 3.1.3.8.
            digest = key.Algorithm.compute_hash_digest(accessToken.encode())
            if claims["at_hash"] != base64url_encode(digest[: len(digest) // 2]).decode():
                raise jwt.InvalidTokenError("at_hash does not match the access token")

    async def fetchUserInfo(self, accessToken: str) -> UserInfoResponse:
        """Fetch claims (OpenID Connect Core, 5.3). Raises SignInInvalid and LogtoUnavailable."""
        headers = {"Authorization": f"Bearer {accessToken}"}
        response = await request("GET", self.metadata.userinfo_endpoint, headers=headers)
        if response.status == 401 and response.json.get("error") == "invalid_token":
            raise SignInInvalid("invalid_token at the userinfo endpoint")
        return _checked(response, UserInfoResponse)

    async def revoke(self, refresh_token: str, client_id: str, client_secret: str) -> None:
        """Revoke a refresh token (RFC 7009). Raises LogtoUnavailable."""
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        form |= {"client_id": client_id, "client_secret": client_secret}
        url = self.published["revocation_endpoint"]
        response = await request("POST", url, seconds=3, data=form)
        if response.status != 200:
            raise LogtoUnavailable(f"it does not revoke the refresh token ({response.summary})")


def _usable_keys(response: Response, algorithms: list[str]) -> dict[str, jwt.PyJWK]:
    """Return the keys of a JSON Web Key Set (RFC 7517) that can verify signatures, by their ID."""
    keys, entries = {}, response.json.get("keys") if response.status == 200 else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, AttributeError, NotImplementedError, TypeError, ValueError):
            continue
        # Refuse `oct` keys: every reader of the key set could sign tokens with such a key.
        strong = key.key_type == "EC" or (key.key_type == "RSA" and key.key.key_size >= 2048)
        signs = key.public_key_use in (None, "sig") and key.algorithm_name in algorithms
        if isinstance(key.key_id, str) and strong and signs:
            keys[key.key_id] = key
    return keys
