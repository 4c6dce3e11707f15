"""An app that starts fast and responds 200 to every request, for tests of granian itself."""

import os
from typing import Any


def create_app() -> Any:
    return asgi if "asgi" in os.environ["TEST_INTERFACE"] else wsgi


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "0")])
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
