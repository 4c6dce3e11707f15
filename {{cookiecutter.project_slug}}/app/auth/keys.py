"""The public keys of the issuer, fetched without blocking and kept in memory."""

import asyncio
import base64
import json
import threading
import time
from typing import Any

import aiohttp
import jwt

MIN_INTERVAL = 30.0
"""Seconds between two fetches that tokens from outside can cause."""
MAX_AGE = 300.0
"""Seconds after which keys that are known are fetched again: the issuer may have withdrawn one."""
TIME_LIMIT = 10.0
"""Seconds that a fetch takes at most."""


class UnknownKey(jwt.InvalidTokenError):
    """The token names a key that is not among those that the issuer has published."""


def read_part(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token, verified or not.

    Raises:
        jwt.DecodeError: if it is no JSON object, or holds a name twice (RFC 7519, 4).
    """
    try:
        text = base64.urlsafe_b64decode(f"{token.split('.')[number]}==")
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except (IndexError, RecursionError, ValueError) as error:
        raise jwt.DecodeError(f"a part of the token cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise jwt.DecodeError("a part of the token is no JSON object")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name is given twice")
    return names


class KeySet(jwt.PyJWKClient):
    """The issuer's JSON Web Key Set (RFC 7517). Safe on threads and on several event loops.

    It takes the place of the SDK's PyJWKClient, which fetches with blocking urllib.
    """

    def __init__(self, jwks_uri: str) -> None:
        super().__init__(jwks_uri)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._lock = threading.Lock()
        self._fetching = False
        self._fetched_at = self._succeeded_at = float("-inf")
        self._failed = False

    def get_signing_key_from_jwt(self, token: str | bytes) -> jwt.PyJWK:
        """The key that the token's `kid` names, from memory.

        Raises:
            UnknownKey: if it is not there; `ensure` may fetch it.
            jwt.InvalidTokenError: if the token names no key, or cannot be read.
        """
        # PyJWT would read the rest of the token as well, and again when it verifies it.
        header = read_part(token if isinstance(token, str) else token.decode(), 0)
        kid = header.get("kid")
        if not kid or not isinstance(kid, str):
            raise jwt.InvalidTokenError("the token names no key")
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKey("the token is signed with a key that the issuer does not publish")
        if header.get("alg") != key.algorithm_name:
            # PyJWT tries the key of one algorithm with another, and fails with a TypeError.
            raise jwt.InvalidAlgorithmError("the token's alg is not that of its key")
        return key

    def lacks_key_of(self, token: str) -> bool:
        """Whether the token names a key that is not in memory."""
        try:
            self.get_signing_key_from_jwt(token)
        except UnknownKey:
            return True
        except jwt.InvalidTokenError:
            return False
        return False

    @property
    def outdated(self) -> bool:
        """Whether it is time to see what the issuer publishes now."""
        return bool(self._keys) and time.monotonic() - self._succeeded_at > MAX_AGE

    async def ensure(self, token: str, min_interval: float = MIN_INTERVAL) -> None:
        """Fetch the key set if the token's key is not known, once in `min_interval` s at most.

        A set that is outdated is fetched as well, by one caller. The others, and all of them if
        the issuer does not answer, go on with what is known.

        Raises:
            aiohttp.ClientError, OSError, ValueError: if the key is not known, and the issuer does
                not answer with a key set, or did not when last asked.
        """
        while (lacking := self.lacks_key_of(token)) or self.outdated:
            with self._lock:
                mine = not self._fetching
                if mine and time.monotonic() - self._fetched_at < min_interval:
                    if lacking and self._failed:
                        raise ConnectionError("the issuer's keys could not be fetched just now")
                    return
                if not mine and not lacking:
                    return
                self._fetching = True
            if mine:
                try:
                    # Shielded: a caller that leaves half-way is not an issuer that failed.
                    await asyncio.shield(self._fetch(TIME_LIMIT if lacking else TIME_LIMIT / 2))
                except (aiohttp.ClientError, OSError, ValueError):
                    if lacking:
                        raise
                return
            # Another request is fetching, perhaps on another thread's event loop.
            await asyncio.sleep(0.02)

    async def _fetch(self, seconds: float) -> None:
        self._failed = True
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with aiohttp.ClientSession(timeout=limit) as http, http.get(self.uri) as answer:
                answer.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(await answer.json()).keys
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._failed = False
            self._succeeded_at = time.monotonic()
        except (jwt.PyJWTError, AttributeError) as error:
            raise ValueError(f"no key set at {self.uri}: {error}") from error
        finally:
            self._fetched_at = time.monotonic()
            self._fetching = False
