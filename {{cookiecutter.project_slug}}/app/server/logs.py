"""The log: one line for every request, and what happens in between."""

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
"""The ID of the current request."""

SAFE_ID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}")
"""An `X-Request-ID` that is safe to copy into the log and into a header."""
LONGEST_PATH = 500
"""Characters of a path that are logged; the rest is cut off."""


def init_app(app: {{ cookiecutter.framework | capitalize }}) -> None:
    """Log every request of the app, and write the whole log of this process to standard error.

    LOG_FORMAT is `text` or `json`. The traceback of an exception follows its line in text, and is
    a field in JSON.
    """
    log_format = app.config["LOG_FORMAT"]
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("app")
    handler.addFilter(_add_request_id)
    handler.setFormatter(json_formatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if h.get_name() == "app"]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    # Messages of granian's workers go through the app's handler.
    server = logging.getLogger("_granian")
    server.handlers.clear()
    server.propagate = True
    {% if cookiecutter.framework == "quart" %}
    # The development server repeats its URL, and writes a second line for every request.
    app.logger.addFilter(_is_no_repetition)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    app.asgi_app = RequestLog(app.asgi_app)  # type: ignore[method-assign]
    {% else %}
    # The development server writes a second line for every request, with codes in its query.
    development = logging.getLogger("werkzeug")
    development.addFilter(_is_no_repetition)
    # Its messages at the start are for a terminal, in colours and in several lines.
    plain = log_format == "text"
    development.handlers = [logging.StreamHandler(sys.stderr)] if plain else []
    development.propagate = not plain
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]
    {% endif %}


class RequestLog:
    """Gives every request an ID and a line in the log: method, path, status, milliseconds.

    The ID comes from the `X-Request-ID` header if it is safe. Otherwise it is new. The response
    has it in the same header. The query is never logged, because it can hold secrets.
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
            # WSGI passes bytes as text (PEP 3333).
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
    """Return the ID that the client sent, or a new ID if that is missing or not safe."""
    return sent if SAFE_ID.fullmatch(sent) else secrets.token_hex(16)


def log_request(method: str, path: str | bytes, status: int, started: float) -> None:
    """Write the line of a request that started at this `time.perf_counter()`."""
    milliseconds = round((time.perf_counter() - started) * 1000, 1)
    path = quote(path)[:LONGEST_PATH]
    fields = {"method": method, "path": path, "status": status, "milliseconds": milliseconds}
    log.info("%s %s %d %s ms", method, path, status, milliseconds, extra=fields)


class TextFormatter(logging.Formatter):
    """Lines for people, each with the first characters of the request's ID."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {request:8.8} {name}: {message}", style="{")
        self.default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.request = getattr(record, "request_id", "-")
        # A line break in a text from outside must not look like a new line of the log.
        return super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")


def json_formatter() -> JsonFormatter:
    """Return a formatter for machines: UTC time, level, logger, message, request_id and fields."""
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


def _is_no_repetition(record: logging.LogRecord) -> bool:
    {% if cookiecutter.framework == "quart" %}
    return not str(record.msg).startswith(("%(h)s ", "Running on "))
    {% else %}
    return " - - [" not in record.getMessage()
    {% endif %}
