"""Measure the home page in one process, without a network.

    python one_page.py TARGET COOKIES

TARGET is an app such as `app:create_app`. Run this script in a bake. Each line on standard input
is a number. The script requests the page that many times, as a server calls a WSGI or an ASGI app,
and prints the microseconds of processor time per page, of all threads.
"""

import asyncio
import importlib
import inspect
import os
import sys
import time
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

# What Firefox sends with a page.
HEADERS = {
    "Host": "localhost:3000",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Connection": "keep-alive",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
    "Priority": "u=0, i",
}


def wsgi_page(app: Any, headers: dict[str, str], path: str = "/") -> bytes:
    """Request a page as a server calls a WSGI app."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "3000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": None,
        "wsgi.errors": sys.stderr,
    }
    for name, value in headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    statuses: list[str] = []
    body = app(environ, lambda status, *_: statuses.append(status))
    page = b"".join(body)
    body.close()
    assert statuses == ["200 OK"], statuses
    return page


async def asgi_page(app: Any, headers: dict[str, str], path: str = "/") -> bytes:
    """Request a page as a server calls an ASGI app."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 3000),
        "extensions": {},
    }
    request = [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return request.pop() if request else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return b"".join(message.get("body", b"") for message in sent)


def main() -> None:
    module, _, factory = sys.argv[1].partition(":")
    app = getattr(importlib.import_module(module), factory)()
    headers = HEADERS | ({"Cookie": sys.argv[2]} if sys.argv[2] else {})
    # One event loop, as a server has.
    loop = asyncio.new_event_loop()

    async def pages(count: int) -> None:
        for _ in range(count):
            await asgi_page(app, headers)

    def request_pages(count: int) -> None:
        if inspect.iscoroutinefunction(type(app).__call__):
            loop.run_until_complete(pages(count))
        else:
            for _ in range(count):
                wsgi_page(app, headers)

    page = b""
    if inspect.iscoroutinefunction(type(app).__call__):
        page = loop.run_until_complete(asgi_page(app, headers))
    else:
        page = wsgi_page(app, headers)
    assert b"Hello, <bdi>Alice Archer</bdi>" in page, page
    request_pages(200)
    for line in sys.stdin:
        count = int(line)
        start = time.process_time()
        request_pages(count)
        print((time.process_time() - start) / count * 1e6, flush=True)


if __name__ == "__main__":
    main()
