"""Is the app alive, and is it ready for visitors?"""

import json
import threading
import time
import urllib.request

from {{ cookiecutter.framework }} import Blueprint, current_app
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from .auth import logto
from .sessions import StoreUnavailable, sessions

health = Blueprint("health", __name__)


@health.get("/healthz")
{{ cookiecutter.__async }}def healthz() -> ResponseReturnValue:
    """Alive: touches nothing else."""
    return {"status": "ok"}


@health.get("/readyz")
{{ cookiecutter.__async }}def readyz() -> ResponseReturnValue:
    """Ready: the session store can be written.

    The state of Logto (`ok`, `unavailable`, or `unknown` at first) is for information: those who
    are signed in go on working without it.
    """
    logto_state = current_app.extensions.setdefault("logto_probe", LogtoProbe(logto.issuer)).state()
    try:
        {{ cookiecutter.__await }}sessions.store.ping()
    except StoreUnavailable as error:
        current_app.logger.error("Not ready, the session store does not answer: %s", error)
        return {"status": "unavailable", "sessions": "unavailable", "logto": logto_state}, 503
    return {"status": "ok", "sessions": "ok", "logto": logto_state}


class LogtoProbe:
    """Asks Logto now and then, in a thread of its own: whoever wants to know never waits."""

    INTERVAL = 10.0
    """Seconds that an answer holds."""
    TIME_LIMIT = 3.0
    """Seconds that Logto may be silent."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._state = "unknown"
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._asking = False

    def state(self) -> str:
        """What is known now; what is too old is asked again for the next caller."""
        now = time.monotonic()
        with self._lock:
            due = not self._asking and now - self._asked_at > self.INTERVAL
            if due:
                self._asking, self._asked_at = True, now
            elif self._asking and now - self._asked_at > 2 * self.TIME_LIMIT:
                # An answer that comes in drops is none.
                self._state = "unavailable"
        if due:
            threading.Thread(target=self._ask, daemon=True).start()
        return self._state

    def _ask(self) -> None:
        url = f"{self._issuer}/.well-known/openid-configuration"
        try:
            with urllib.request.urlopen(url, timeout=self.TIME_LIMIT) as answer:
                issuer = json.loads(answer.read(1_000_000))["issuer"]
            self._state = "ok" if issuer == self._issuer else "unavailable"
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            self._state = "unavailable"
        finally:
            self._asking = False
