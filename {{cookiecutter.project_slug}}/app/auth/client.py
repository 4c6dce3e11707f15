"""The Logto SDK's client: begin and finish a sign-in, get tokens and claims, sign out.

A comment marks each workaround for SDK 0.2.1. Delete the workaround when the SDK is fixed.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, {{ "Iterable, " if cookiecutter.api_resource }}Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
{% if not cookiecutter.__async %}
from flask import current_app
{% endif %}
from logto import LogtoClient, LogtoConfig, UserInfoScope
{% if cookiecutter.__async %}
from quart import current_app
{% endif %}
from werkzeug.local import LocalProxy

from ..server.logs import printable
from ..server.sessions import session, store
from ..server.stores import StoreUnavailable
from .oidc import PAUSE, TIME_LIMIT, LogtoUnavailable, Oidc, SignInInvalid
from .storage import SessionStorage

log = logging.getLogger(__name__)

VERIFIED: Any = {"verify_signature": False}  # The SDK has just verified the token.
LOCK_LIFETIME = 20  # Seconds until the lock of a refresh expires, if its process was killed.


class SessionEnded(Exception):
    """Logto does not confirm the session any more, so the user must sign in again."""


class AppLogtoClient(LogtoClient):
    """The client for all threads and event loops. The data of each user is in the session."""

    {% if cookiecutter.api_resource %}
    def __init__(self, config: Mapping[str, Any], api_scopes: Iterable[str]) -> None:
        """Take the app's configuration, and the scopes of its API that users can have."""
        resources = [config["LOGTO_API_RESOURCE"], *config["LOGTO_RESOURCES"].split()]
        scopes = [*config["LOGTO_SCOPES"].split(), *api_scopes]
    {% else %}
    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take the app's configuration."""
        resources, scopes = config["LOGTO_RESOURCES"].split(), config["LOGTO_SCOPES"].split()
    {% endif %}
        # The SDK recognizes its scopes only as members of this enumeration, not as strings.
        members: dict[str, Any] = {scope.value: scope for scope in UserInfoScope}
        sdk_config = LogtoConfig(
            # The SDK builds wrong URLs if the endpoint ends with a slash.
            endpoint=config["LOGTO_ENDPOINT"].rstrip("/"),
            appId=config["LOGTO_APP_ID"],
            appSecret=config["LOGTO_APP_SECRET"],
            scopes=[members.get(scope, scope) for scope in scopes],
            # Logto issues tokens only for resources that were requested at sign-in.
            resources=resources,
        )
        super().__init__(sdk_config, storage=SessionStorage())
        self.issuer = f"{self.config.endpoint}/oidc"
        self.oidc = self._oidcCore = Oidc(self.issuer)
        self._paused_until = 0.0

    async def begin_sign_in(
        self, redirect_uri: str, **parameters: str
    ) -> tuple[str, str, dict[str, str]]:
        """Begin a sign-in, without a change of the session. Raises LogtoUnavailable.

        Takes the registered redirect URI, and parameters of Logto's authorization endpoint. Returns
        the URL of the sign-in page, the `state`, and the attempt, which `finish_sign_in` needs.
        """
        data: dict[str, Any] = {}
        async with self._calling():
            url = await self._with_storage(data).signIn(redirect_uri)
        # `signIn` accepts no parameters and sends no nonce, so add them to its URL.
        parameters["nonce"] = secrets.token_urlsafe(16)
        page, _, query = url.partition("?")
        url = f"{page}?{urlencode(parse_qs(query) | parameters, doseq=True)}"
        attempt = {name: parameters.get(name, "") for name in ("nonce", "prompt")}
        attempt["signInSession"] = data["signInSession"]
        return url, json.loads(data["signInSession"])["state"], attempt

    async def finish_sign_in(
        self, attempt: Mapping[str, str], callback: Mapping[str, str]
    ) -> dict[str, Any]:
        """Exchange the code of a callback for tokens (OpenID Connect Core, 3.1.3).

        Takes the attempt from `begin_sign_in` and the query of the callback. Returns the new
        session: tokens, and verified claims as `user`. Raises LogtoUnavailable and SignInInvalid.
        """
        # Refuse the response of another issuer (RFC 9207, 2.4).
        if callback.get("iss", self.issuer) != self.issuer:
            raise SignInInvalid(f"iss is {printable(callback['iss'])}")
        if error := callback.get("error"):
            reason = printable(f"{error}: {callback.get('error_description')}")
            unavailable = error in ("server_error", "temporarily_unavailable")
            raise LogtoUnavailable(reason) if unavailable else SignInInvalid(reason)
        if not callback.get("code"):
            raise SignInInvalid("the callback has no code")
        # Use a separate storage: the SDK would keep the access tokens of the previous user.
        data: dict[str, Any] = {"signInSession": attempt["signInSession"]}
        query = urlencode({"code": callback["code"], "state": callback["state"]})
        async with self._calling():
            announced = "authorization_response_iss_parameter_supported"  # RFC 9207, 3.
            if self.oidc.published.get(announced) and "iss" not in callback:
                raise SignInInvalid("the callback has no iss")
            redirect_uri = json.loads(attempt["signInSession"])["redirectUri"]
            await self._with_storage(data).handleSignInCallback(f"{redirect_uri}?{query}")
        if "idToken" not in data:
            raise SignInInvalid("Logto sent no ID token")
        claims = jwt.decode(data["idToken"], options=VERIFIED)
        if claims.get("nonce") != attempt["nonce"]:
            raise SignInInvalid("the nonce of the ID token is from another sign-in")
        return data | {"user": claims}

    async def access_token(self, resource: str = "") -> str:
        """Return the user's access token for a resource, or for userinfo. Refresh it if needed.

        Only one of a session's parallel requests sends the refresh, even in several processes.
        Raises SessionEnded if Logto rejects the refresh token or there is none. Other errors do not
        end the session: NotGranted, if Logto refuses the resource, and LogtoUnavailable.
        """
        if token := self._getAccessToken(resource):
            return token
        {% if cookiecutter.__async %}
        # If the client disconnects, the new refresh token must still be saved.
        return await asyncio.shield(self._refresh(resource))
        {% else %}
        return await self._refresh(resource)
        {% endif %}

    def refresh_due(self) -> bool:
        """Return whether the access token has expired, so that Logto must confirm the session."""
        return self._getAccessToken("") is None and not self._paused

    async def keep_alive(self) -> None:
        """Ask Logto to confirm the session. Raises SessionEnded. If Logto is down, only log it."""
        try:
            await self.access_token()
        except LogtoUnavailable as error:
            log.warning("Refresh postponed, Logto is unavailable: %s", error)

    async def user_info(self) -> dict[str, Any]:
        """Fetch current claims (OpenID Connect Core, 5.3). Raises the errors of `access_token`."""
        token = await self.access_token()
        try:
            async with self._calling(signed_in=True):
                found = (await self.oidc.fetchUserInfo(token)).model_dump()
        except SignInInvalid as error:
            # The token was revoked or expired early. The refresh shows whether the session ended.
            self._storage.delete("accessTokenMap")
            await self.access_token()
            raise LogtoUnavailable(str(error)) from None
        if found["sub"] != session["user"]["sub"]:  # OpenID Connect Core, 5.3.2.
            raise SessionEnded("userinfo is about another user")
        return found

    async def sign_out(self, post_sign_out_uri: str, refresh_token: str | None) -> str:
        """Revoke the refresh token, and return Logto's sign-out URL. Raises LogtoUnavailable."""
        async with self._calling():
            url = await self._with_storage({}).signOut(post_sign_out_uri)
        if refresh_token:
            app_id, secret = self.config.appId, str(self.config.appSecret)
            try:
                await self.oidc.revoke(refresh_token, app_id, secret)
            except LogtoUnavailable as error:
                log.warning("The refresh token is not revoked, Logto is unavailable: %s", error)
        return url

    def _with_storage(self, data: dict[str, Any]) -> LogtoClient:
        client = LogtoClient(self.config, SessionStorage(data))
        client._oidcCore = self.oidc
        return client

    @asynccontextmanager
    async def _calling(self, *, signed_in: bool = False) -> AsyncIterator[None]:
        """Limit the time of calls to Logto. After a failure, `signed_in` calls fail for a while."""
        if signed_in and self._paused:
            raise LogtoUnavailable("it did not respond a moment ago")
        try:
            async with asyncio.timeout(TIME_LIMIT):
                if not hasattr(self.oidc, "metadata"):
                    await self.oidc.keys.refresh()
                yield
        except (LogtoUnavailable, TimeoutError) as error:
            pause = getattr(error, "pause", PAUSE)
            if signed_in:
                self._paused_until = max(self._paused_until, time.monotonic() + pause)
            reason = str(error) or f"no response within {TIME_LIMIT:.0f} s"
            raise LogtoUnavailable(reason, pause) from None

    @property
    def _paused(self) -> bool:
        return time.monotonic() < self._paused_until

    async def _refresh(self, resource: str) -> str:
        """Refresh the tokens once, even if several requests need new tokens, and save the result.

        The SDK refreshes in every request. If refresh tokens rotate, a second use ends the session.
        """
        if session.key is None:
            # The user signed in during this request, and the session is not saved yet.
            {{ cookiecutter.__await }}session.commit()
        started, lock = time.monotonic(), f"refresh:{session.key}"
        while not {{ cookiecutter.__await }}store.lock(lock, LOCK_LIFETIME):
            if self._paused or time.monotonic() - started > TIME_LIMIT / 2:
                raise LogtoUnavailable("another request still waits for new tokens")
            await asyncio.sleep(0.05)
            {{ cookiecutter.__await }}session.reload()
            if token := self._getAccessToken(resource):
                return token
        try:
            {{ cookiecutter.__await }}session.reload()
            if not session.get("refreshToken"):
                raise SessionEnded("the session was deleted, or has no refresh token")
            async with self._calling(signed_in=True):
                token = await self.getAccessToken(resource)
            assert token
            claims, user = jwt.decode(session["idToken"], options=VERIFIED), session["user"]
            # OpenID Connect Core, 12.2.
            other_nonce = user.get("nonce") and claims.get("nonce") not in (None, user["nonce"])
            if claims["sub"] != user["sub"] or other_nonce:
                raise SessionEnded("the new ID token belongs to another user or sign-in")
            session["user"] = claims
            {{ cookiecutter.__await }}session.commit()
        except SignInInvalid as error:
            raise SessionEnded(str(error)) from error
        finally:
            # If the store fails now, the lock expires after LOCK_LIFETIME.
            with suppress(StoreUnavailable):
                {{ cookiecutter.__await }}store.delete(lock)
        return token


logto: AppLogtoClient = LocalProxy(lambda: current_app.extensions["logto_client"])  # type: ignore[assignment]
"""The Logto client of the current app."""
