"""Measure calls of a baked API with an access token, and the parts of such a call.

    python api_calls.py FRAMEWORK

Run this script in a bake that has an API. It prints the seconds of each call as JSON. It calls the
app as a server does, but in its own process, so the numbers include no network.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

import jwt
from app import create_app
from app.auth import access_token_required
from app.auth.bearer import TokenCache
from app.config import Config
from dev.local_logto import LocalLogto  # type: ignore[import-not-found]
from one_page import asgi_page, wsgi_page  # type: ignore[import-not-found]

API = "https://api.bookstore.example"
ROUNDS, CALLS = 15, 40
FRAMEWORK: Any = __import__(sys.argv[1])
BODY = {"user_id": "k3v9x0q2m7ae", "client_id": "bookstore", "scopes": ["read:books"]}

EXPECTED: dict[str, Any] = {}

Call = Callable[[str], Any]


def main() -> None:
    with LocalLogto(app_id="bookstore", resources={API: ["read:books"]}) as logto:
        config = Config(
            LOGTO_ENDPOINT=logto.endpoint,
            LOGTO_APP_ID="bookstore",
            LOGTO_APP_SECRET="any-text",  # noqa: S106
            LOGTO_CALLBACK_URL="http://localhost:3000/callback",
            LOGTO_API_RESOURCE=API,
            SESSION_URL=f"sqlite:///{tempfile.mkdtemp()}/sessions.sqlite3",
        )
        app = create_app(config)
        bare = getattr(FRAMEWORK, sys.argv[1].capitalize())("bare")
        for each in (app, bare):
            each.add_url_rule("/open", "open", plain_view)
        bare.add_url_rule("/by-hand", "by_hand", by_hand)
        # Only the decorator, with the same view as in the bare app.
        bare.config.update(app.config)
        bare.extensions.update(app.extensions)
        bare.add_url_rule("/guarded", "guarded", access_token_required("read:books")(plain_view))

        def new_token() -> str:
            claims = {"jti": str(time.perf_counter_ns()), "sub": "k3v9x0q2m7ae"}
            about = {"client_id": "bookstore", "aud": API, "scope": "read:books"}
            return str(logto.sign({**claims, **about}, 3600, "at+jwt"))

        call(bare, "/guarded", new_token())
        seen = new_token()
        key = app.extensions["logto_client"].oidc.keys.known(seen)
        about = {"algorithms": ["ES384"], "audience": API, "issuer": logto.issuer, "leeway": 30}
        EXPECTED.update(about, key=key)

        def forget() -> None:
            for each in (app, bare):
                each.extensions["token_cache"] = TokenCache()

        calls: dict[str, Call] = {
            "decode": lambda token: jwt.decode(token, key, **about),
            "bare": lambda token: call(bare, "/open", token),
            "by hand": lambda token: call(bare, "/by-hand", token),
            "guarded, new": lambda token: call(bare, "/guarded", token),
            "guarded, seen": lambda token: call(bare, "/guarded", seen),
            "app, open": lambda token: call(app, "/open", token),
            "app, new": lambda token: call(app, "/api/me", token),
            "app, seen": lambda token: call(app, "/api/me", seen),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            # Each function gets new tokens: a token of the previous function is already remembered.
            for name, function in calls.items():
                tokens = [new_token() for _ in range(CALLS)]
                forget()
                function(seen)
                # The processor time of this thread, so other work on the machine does not count.
                start = time.thread_time()
                for token in tokens:
                    function(token)
                found[name].append((time.thread_time() - start) / CALLS)
        print(json.dumps({name: min(times) for name, times in found.items()}))


def headers(token: str) -> dict[str, str]:
    # Both apps have this SERVER_NAME, and Quart finds no page under another host name.
    return {"Host": "localhost:3000", "Authorization": f"Bearer {token}"}


if sys.argv[1] == "quart":

    async def plain_view() -> Any:
        return BODY

    async def by_hand() -> Any:
        """Decode the token with PyJWT only, and return a plain response."""
        jwt.decode(FRAMEWORK.request.headers["Authorization"][7:], **EXPECTED)
        return BODY

    LOOP = asyncio.new_event_loop()

    def call(app: Any, path: str, token: str) -> None:
        LOOP.run_until_complete(asgi_page(app, headers(token), path))

else:

    def plain_view() -> Any:  # type: ignore[misc]
        return BODY

    def by_hand() -> Any:  # type: ignore[misc]
        """Decode the token with PyJWT only, and return a plain response."""
        jwt.decode(FRAMEWORK.request.headers["Authorization"][7:], **EXPECTED)
        return BODY

    def call(app: Any, path: str, token: str) -> None:
        wsgi_page(app, headers(token), path)


if __name__ == "__main__":
    main()
