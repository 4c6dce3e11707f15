"""The public keys of Logto, kept in memory."""

import asyncio
{% if not cookiecutter.__async %}
import threading
{% endif %}
import time
from collections.abc import Awaitable, Callable

import jwt

MAX_AGE = 300.0  # Seconds after which keys are fetched again: Logto may have withdrawn a key.
MIN_INTERVAL = 30.0  # Seconds between two fetches that tokens from outside can cause.
MAX_WAIT = 2.0  # Seconds that a request waits while another request fetches the keys.


class KeySet:
    """The keys by ID. One request at a time fetches the keys; the others use the known keys."""

    def __init__(self, fetch: Callable[[], Awaitable[dict[str, jwt.PyJWK]]]) -> None:
        self._fetch = fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = {{ "asyncio" if cookiecutter.__async else "threading" }}.Lock()

    @property
    def outdated(self) -> bool:
        """Whether it is time to fetch the known keys again."""
        now = time.monotonic()
        due = now > max(self._fetched_at + MAX_AGE, self._tried_at + MIN_INTERVAL)
        return due and not self._lock.locked()

    def known(self, token: str) -> jwt.PyJWK | None:
        """Return the key that the token names, if it is in memory. Raises jwt.PyJWTError."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not kid:
            raise jwt.InvalidTokenError("the token names no key")
        return self._keys.get(kid)

    async def find(self, token: str, *, trusted: bool = False) -> jwt.PyJWK:
        """Return the key that the token names, or raise jwt.PyJWTError. Fetch the keys if needed.

        With `trusted`, fetch an unknown key at once: the token came from Logto itself.
        """
        key = self.known(token)
        wait = time.monotonic() < self._fetched_at + MIN_INTERVAL and not trusted
        if (key is None and not wait) or (not trusted and self.outdated):
            await self.refresh(10.0 if trusted else MAX_WAIT)
            key = self.known(token)
        if key is None:
            raise jwt.InvalidTokenError("Logto publishes no key with the ID in the token")
        return key

    async def refresh(self, max_wait: float = MAX_WAIT) -> None:
        """Fetch the keys, or wait while another request fetches the keys. Raises TimeoutError."""
        seen = self._fetched_at
        {% if cookiecutter.__async %}
        async with asyncio.timeout(max_wait):
            await self._lock.acquire()
        {% else %}
        # Do not block: two tasks of one view share an event loop.
        started = time.monotonic()
        while not self._lock.acquire(blocking=False):
            if time.monotonic() - started > max_wait:
                raise TimeoutError
            await asyncio.sleep(0.02)
        {% endif %}
        try:
            if self._fetched_at == seen:
                self._keys = await self._fetch()
                self._fetched_at = time.monotonic()
        except Exception:
            self._tried_at = time.monotonic()
            raise
        finally:
            self._lock.release()
