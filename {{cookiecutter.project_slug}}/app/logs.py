"""What the app writes to the log: one line for every request, and what happened in between."""

import logging
import re
import secrets
import sys
import time
{% if cookiecutter.framework == "quart" %}
from collections.abc import Awaitable, Callable
{% else %}
from collections.abc import Callable, Iterable
{% endif %}
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

{% if cookiecutter.framework == "flask" %}
from flask import Flask
{% endif %}
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
{% if cookiecutter.framework == "quart" %}
from quart import Quart
{% endif %}

log = logging.getLogger(__name__)

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""

SAFE_ID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}")
"""An `X-Request-ID` that can stand in a log and in a header as it came."""
LONGEST_PATH = 500
"""Characters of a path that are logged."""


def init_app(app: {{ cookiecutter.framework | capitalize }}, log_format: str) -> None:
    """Log all requests of the app, and write all that this process logs to standard error.

    Takes `text`, lines for people, or `json`, lines for machines. Traces of exceptions are
    lines of their own in text, and a field in JSON.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("app")
    handler.addFilter(_add_request_id)
    handler.setFormatter(json_formatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if h.get_name() == "app"]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    # Granian's workers report through the app's handler.
    server = logging.getLogger("_granian")
    server.handlers.clear()
    server.propagate = True
    {% if cookiecutter.framework == "quart" %}
    # The development server repeats its address, and has a line of its own for every request.
    app.logger.addFilter(_is_news)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    app.asgi_app = RequestLog(app.asgi_app)  # type: ignore[method-assign]
    {% else %}
    # The development server has a line of its own, which quotes the query with Logto's code in it.
    development = logging.getLogger("werkzeug")
    development.addFilter(_is_news)
    # What it says at its start is made for a terminal, in colours and in several lines.
    plain = log_format == "text"
    development.handlers = [logging.StreamHandler(sys.stderr)] if plain else []
    development.propagate = not plain
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]
    {% endif %}


class RequestLog:
    """Gives every request an id and every answer a line: method, path, status, milliseconds.

    The id is that of the `X-Request-ID` header if it is a safe one, else a new one, and goes back
    in the same header. The query is never logged: it holds Logto's codes.
    """

    {% if cookiecutter.framework == "quart" %}
    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        own_id = safe_or_new(headers.get(b"x-request-id", b"").decode("latin-1"))

        async def send_and_log(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", own_id.encode())]
                log_request(scope["method"], scope["path"], message["status"], started)
            await send(message)

        token = request_id.set(own_id)
        try:
            await self.app(scope, receive, send_and_log)
        finally:
            request_id.reset(token)
    {% else %}
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        started = time.perf_counter()
        own_id = safe_or_new(environ.get("HTTP_X_REQUEST_ID", ""))

        def start_and_log(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            # In WSGI, text is bytes in disguise (PEP 3333).
            path = environ["PATH_INFO"].encode("latin-1", "replace")
            log_request(environ["REQUEST_METHOD"], path, int(status[:3]), started)
            return start_response(status, [*headers, ("X-Request-ID", own_id)], *exc_info)

        token = request_id.set(own_id)
        try:
            return self.app(environ, start_and_log)
        finally:
            request_id.reset(token)
    {% endif %}


def safe_or_new(sent: str) -> str:
    """The id that a request came with, or a new one if it has none or not a safe one."""
    return sent if SAFE_ID.fullmatch(sent) else secrets.token_hex(16)


def log_request(method: str, path: str | bytes, status: int, started: float) -> None:
    """Write the line of a request; `started` is of `time.perf_counter()`."""
    milliseconds = round((time.perf_counter() - started) * 1000, 1)
    path = quote(path)[:LONGEST_PATH]
    fields = {"method": method, "path": path, "status": status, "milliseconds": milliseconds}
    log.info("%s %s %d %s ms", method, path, status, milliseconds, extra=fields)


class TextFormatter(logging.Formatter):
    """Lines for people, each with the beginning of the request's id."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {request:8.8} {name}: {message}", style="{")
        self.default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.request = getattr(record, "request_id", "-")
        # A line break in what came from outside must not look like a line of the log.
        return super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")


def json_formatter() -> JsonFormatter:
    """Lines for machines: time (UTC), level, logger, message, request_id, and the fields above."""
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        reserved_attrs=[*RESERVED_ATTRS, "taskName"],
        timestamp="time",
    )


def _add_request_id(record: logging.LogRecord) -> bool:
    if own_id := request_id.get():
        record.request_id = own_id
    return True


def _is_news(record: logging.LogRecord) -> bool:
    {% if cookiecutter.framework == "quart" %}
    return not str(record.msg).startswith(("%(h)s ", "Running on "))
    {% else %}
    return " - - [" not in record.getMessage()
    {% endif %}
