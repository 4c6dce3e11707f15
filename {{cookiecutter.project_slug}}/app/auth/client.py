"""The Logto SDK's client, made safe for production.

Each override stands beside the fault of SDK 0.2.1 that it mends, to go when the SDK mends it.
"""

import asyncio
import contextlib
import copy
import json
import logging
import time
{% if cookiecutter.api_resource %}
from collections.abc import AsyncIterator, Iterable, Mapping
{% else %}
from collections.abc import AsyncIterator, Mapping
{% endif %}
from typing import Any
from urllib.parse import urlencode

import aiohttp
import jwt
import pydantic
{% if cookiecutter.framework == "flask" %}
from flask import current_app
{% endif %}
from logto import LogtoClient, LogtoConfig, LogtoException, UserInfoScope
from logto.models.response import TokenResponse
from logto.OidcCore import OidcCore
{% if cookiecutter.framework == "quart" %}
from quart import current_app
{% endif %}
from werkzeug.local import LocalProxy

from ..config import Config
from ..sessions import StoreUnavailable, session, sessions
from .keys import KeySet
from .storage import SessionStorage

log = logging.getLogger(__name__)

TIME_LIMIT = 10.0
"""Seconds that a request waits for Logto at most."""
PAUSE = 30.0
"""Seconds in which the signed-in are not kept waiting again for a Logto that did not answer."""


def one_line(text: str) -> str:
    """Text from outside as it may stand in the log: on one line, and not too long."""
    return "".join(c if c.isprintable() else " " for c in text[:300])


class LogtoUnavailable(Exception):
    """Logto cannot be reached, or does not answer as Logto does."""


class SignInInvalid(Exception):
    """Logto refuses this sign-in or token, or what it sent does not hold."""


class GrantInvalid(SignInInvalid):
    """Logto knows the code or refresh token no more, or gave an ID token for it that is wrong."""


class SessionEnded(Exception):
    """Logto no longer stands by this session: the user must sign in again."""


class AppLogtoClient(LogtoClient):
    """One client for the whole app: safe on threads and event loops, as what belongs to a
    visitor is in the session only."""

    _storage: SessionStorage

    {% if cookiecutter.api_resource %}
    def __init__(self, config: Config, api_scopes: Iterable[str] = ()) -> None:
        """Take the configuration and the scopes of the API that users may be granted."""
    {% else %}
    def __init__(self, config: Config) -> None:
    {% endif %}
        super().__init__(
            LogtoConfig(
                # A trailing slash breaks the SDK's discovery.
                endpoint=config.LOGTO_ENDPOINT.rstrip("/"),
                appId=config.LOGTO_APP_ID,
                appSecret=config.LOGTO_APP_SECRET,
                # The SDK compares with members, never with text.
                {% if cookiecutter.api_resource %}
                scopes=[UserInfoScope.email, *api_scopes],
                # Logto gives tokens only for the resources that were named at sign-in.
                resources=[config.LOGTO_API_RESOURCE],
                {% else %}
                scopes=[UserInfoScope.email],
                {% endif %}
            ),
            storage=SessionStorage(),
        )
        self.keys = KeySet(f"{self.issuer}/jwks")
        self._paused_until = 0.0

    async def begin_sign_in(self, redirect_uri: str, **parameters: str) -> tuple[str, str, str]:
        """Start a sign-in, which leaves the session as it is until it has succeeded.

        Takes the registered redirect URI and Logto's own authorization parameters
        (`first_screen`, `direct_sign_in`, `ui_locales`, ...); gives the address of the sign-in
        page, the `state`, and what `finish_sign_in` needs.

        Raises:
            LogtoUnavailable: if Logto cannot be reached.
        """
        own_storage: dict[str, Any] = {}
        async with _calling_logto():
            url = await (await self._with_storage(own_storage)).signIn(redirect_uri)
        # The SDK has no way to pass them.
        url = f"{url}&{urlencode(parameters)}" if parameters else url
        attempt = own_storage["signInSession"]
        return url, json.loads(attempt)["state"], attempt

    async def finish_sign_in(self, attempt: str, answer: Mapping[str, str]) -> dict[str, Any]:
        """Turn the parameters of the callback into tokens (OpenID Connect Core, 3.1.2.5).

        Gives the new content of the session: the tokens, and the claims of the verified ID token
        as `user`. A storage of its own keeps the SDK from leaving one user's access tokens to
        the next.

        Raises:
            LogtoUnavailable, SignInInvalid
        """
        if answer.get("iss", self.issuer) != self.issuer:
            # RFC 9207, 2.4.
            raise SignInInvalid(f"iss is {one_line(answer['iss'])}")
        if answer.get("error"):
            raise _refusal(answer["error"], answer.get("error_description"))
        if not answer.get("code"):
            raise SignInInvalid("there is no code")
        query = urlencode({"code": answer["code"], "state": answer["state"]})
        tokens: dict[str, Any] = {"signInSession": attempt}
        async with _calling_logto():
            client = await self._with_storage(tokens)
            await client.handleSignInCallback(f"{json.loads(attempt)['redirectUri']}?{query}")
        if "user" not in tokens:
            raise SignInInvalid("Logto sent no ID token")
        return tokens

    async def access_token(self, resource: str = "") -> str:
        """The signed-in user's access token for a resource, refreshed when it has expired.

        Without a resource, the opaque token for Logto's own userinfo endpoint. However many
        requests of a session need it at once, in however many processes, one of them refreshes.

        Raises:
            SessionEnded: if Logto refuses the refresh token, or there is none.
            SignInInvalid: if Logto does not grant this resource.
            LogtoUnavailable: if Logto cannot be reached; the session goes on.
        """
        token = self._getAccessToken(resource)
        if token is None:
            # Shielded: when a visitor leaves half-way, the new refresh token must still be saved.
            token = await asyncio.shield(self._refresh(resource))
        return token

    def refresh_due(self) -> bool:
        """Whether the access token has expired, so that Logto should be asked about the session."""
        return self._getAccessToken("") is None and not self._paused

    async def keep_alive(self) -> None:
        """See whether Logto still stands by the session.

        Raises:
            SessionEnded: if it does not. A Logto that cannot be reached changes nothing.
        """
        try:
            await self.access_token()
        except LogtoUnavailable as error:
            log.warning("Refresh put off, Logto is unavailable: %s", error)

    async def user_info(self) -> dict[str, Any]:
        """The user's claims as Logto has them now (OpenID Connect Core, 5.3); None where unset.

        Raises:
            SessionEnded, LogtoUnavailable
        """
        token = await self.access_token()
        try:
            async with self._calling_for_session():
                core = await self.getOidcCore()
                found = (await core.fetchUserInfo(token)).model_dump()
        except SignInInvalid as error:
            raise SessionEnded(str(error)) from error
        if found["sub"] != session["user"]["sub"]:
            # OpenID Connect Core, 5.3.2.
            raise SessionEnded("userinfo is about another user")
        return found

    async def sign_out_url(self, post_sign_out_uri: str) -> str:
        """The address that ends the session at Logto (OpenID Connect RP-Initiated Logout).

        Raises:
            LogtoUnavailable: if Logto cannot be reached.
        """
        async with _calling_logto():
            return await (await self._with_storage({})).signOut(post_sign_out_uri)

    async def signing_key(self, token: str) -> jwt.PyJWK:
        """The public key of this Logto that the token names in its header.

        Raises:
            LogtoUnavailable: if the keys cannot be fetched.
            jwt.InvalidTokenError: if Logto publishes no such key, or this is no token at all.
        """
        async with _calling_logto():
            await self.keys.ensure(token)
        return self.keys.get_signing_key_from_jwt(token)

    @property
    def issuer(self) -> str:
        """What Logto calls itself in `iss`."""
        return f"{self.config.endpoint}/oidc"

    async def getOidcCore(self) -> OidcCore:
        if self._oidcCore is None:
            discovery = f"{self.issuer}/.well-known/openid-configuration"
            metadata = await OidcCore.getProviderMetadata(discovery)
            # OpenID Connect Discovery, 4.3.
            if metadata.issuer != self.issuer:
                raise ValueError(f"the issuer is {metadata.issuer!r}, not {self.issuer!r}")
            core = OidcCore(metadata)
            # The SDK's own key client blocks the event loop while it fetches.
            self.keys.uri = metadata.jwks_uri
            core.jwksClient = self.keys
            # Last, as another thread takes it up from here.
            self._oidcCore = core
        return self._oidcCore

    async def _handleTokenResponse(self, resource: str, tokenResponse: TokenResponse) -> None:
        if tokenResponse.id_token:
            await self.keys.ensure(tokenResponse.id_token, min_interval=0)
        await super()._handleTokenResponse(resource, tokenResponse)
        if tokenResponse.id_token:
            self._take_claims(tokenResponse.id_token)

    def _take_claims(self, id_token: str) -> None:
        """Keep the claims of an ID token that the SDK has just verified."""
        claims = jwt.decode(id_token, options={"verify_signature": False})
        # The SDK accepts a token without them.
        if not all(claims.get(name) for name in ("sub", "iat", "exp")):
            raise jwt.InvalidTokenError("the ID token lacks sub, iat or exp")
        user = self._storage.data.get("user", claims)
        if user["sub"] != claims["sub"]:
            # OpenID Connect Core, 12.2.
            raise jwt.InvalidTokenError("the refreshed ID token is about another user")
        self._storage.data["user"] = user | claims

    async def _with_storage(self, data: dict[str, Any]) -> "AppLogtoClient":
        """This client over a storage of its own, sharing what is known of Logto."""
        await self.getOidcCore()
        client = copy.copy(self)
        client._storage = SessionStorage(data)
        return client

    @property
    def _paused(self) -> bool:
        return time.monotonic() < self._paused_until

    @contextlib.asynccontextmanager
    async def _calling_for_session(self, limit: float | None = None) -> AsyncIterator[None]:
        """Call Logto for somebody who is signed in and can do without for a while."""
        if self._paused:
            raise LogtoUnavailable("it did not answer a moment ago")
        try:
            async with _calling_logto(limit):
                yield
        except LogtoUnavailable:
            self._paused_until = time.monotonic() + PAUSE
            raise

    async def _refresh(self, resource: str) -> str:
        """Refresh once, however many requests of the session ask, and save what Logto answers.

        The SDK refreshes in every parallel request, and a rotated refresh token that is used
        again costs the user the whole grant.
        """
        if not session.get("refreshToken"):
            raise SessionEnded("the session has no refresh token")
        name = f"refresh:{session.key}"
        async with _calling_logto() as limit:
            while not {{ cookiecutter.__await }}sessions.store.claim(name, ttl=15):
                if self._paused:
                    raise LogtoUnavailable("it did not answer a moment ago")
                await asyncio.sleep(0.05)
                {{ cookiecutter.__await }}sessions.reload(session)
                if token := self._getAccessToken(resource):
                    return token
        try:
            {{ cookiecutter.__await }}sessions.reload(session)
            async with self._calling_for_session(limit):
                token = await self.getAccessToken(resource)
            {{ cookiecutter.__await }}sessions.commit(session)
        except SignInInvalid as error:
            # A resource that Logto does not grant says nothing about the session.
            if resource and not isinstance(error, GrantInvalid):
                raise
            raise SessionEnded(str(error)) from error
        finally:
            # Whoever cannot release it leaves it to its time to live.
            with contextlib.suppress(StoreUnavailable):
                {{ cookiecutter.__await }}sessions.store.release(name)
        if token is None:
            raise SessionEnded("it was ended meanwhile")
        return token


@contextlib.asynccontextmanager
async def _calling_logto(limit: float | None = None) -> AsyncIterator[float]:
    """Give a call of the SDK a time limit, and tell its exceptions apart.

    Takes and gives the limit on the event loop's clock, so that several calls can share one.
    """
    limit = limit or asyncio.get_running_loop().time() + TIME_LIMIT
    try:
        # The SDK has no time limit; aiohttp's is 300 s.
        async with asyncio.timeout_at(limit):
            yield limit
    except LogtoException as error:
        raise _told_apart(str(error)) from error
    except jwt.PyJWTError as error:
        raise GrantInvalid(f"the ID token does not hold: {one_line(str(error))}") from error
    except TimeoutError as error:
        raise LogtoUnavailable(f"no answer within {TIME_LIMIT:.0f} s") from error
    except pydantic.ValidationError as error:
        # Its own text quotes the answer, with the tokens in it.
        wrong = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise LogtoUnavailable(f"its answer lacks or garbles {one_line(wrong)}") from error
    except (aiohttp.ClientError, OSError, RecursionError, TypeError, ValueError) as error:
        raise LogtoUnavailable(one_line(f"{type(error).__name__}: {error}")) from error


def _told_apart(text: str) -> Exception:
    """What a LogtoException means: the SDK raises the same one for every answer but 200."""
    try:
        answer = json.loads(text)
    except (RecursionError, ValueError):
        # A page, not of Logto's making; its beginning tells a proxy from a wrong address.
        return LogtoUnavailable(one_line(text)[:80])
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(error, str):
        return LogtoUnavailable("an error without a code")
    return _refusal(error, answer.get("error_description"))


def _refusal(error: str, description: object) -> Exception:
    """What Logto's `error` means for the person (RFC 6749, 4.1.2.1 and 5.2)."""
    reason = one_line(f"{error}: {description}")
    if error in ("invalid_client", "unauthorized_client"):
        return LogtoUnavailable(
            f"it refuses this app, check LOGTO_APP_ID and LOGTO_APP_SECRET ({reason})"
        )
    if error in ("server_error", "temporarily_unavailable"):
        return LogtoUnavailable(reason)
    return GrantInvalid(reason) if error == "invalid_grant" else SignInInvalid(reason)


logto: AppLogtoClient = LocalProxy(lambda: current_app.extensions["logto"])  # type: ignore[assignment]
"""The client of the current app."""
{% if cookiecutter.api_resource %}


async def access_token(resource: str) -> str:
    """The signed-in user's access token for an API resource, refreshed when it has expired.

    Logto gives it only for resources that were named at sign-in: LOGTO_API_RESOURCE, and those
    that you add in `AppLogtoClient`.

    Raises:
        SessionEnded: if nobody is signed in, or Logto does not stand by the session.
        SignInInvalid: if Logto does not grant this resource.
        LogtoUnavailable: if Logto cannot be reached.
    """
    return await logto.access_token(resource)
{% endif %}
