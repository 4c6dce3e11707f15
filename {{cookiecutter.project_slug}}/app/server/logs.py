"""The log: one line for every request, and the messages of the app."""

import logging
import re
import secrets
import sys
import time
from typing import Any
from urllib.parse import quote

{% if not cookiecutter.__async %}
from flask import Flask, Response, g, has_request_context, request
from flask.signals import request_finished, request_started
{% endif %}
from pythonjsonlogger.json import JsonFormatter
{% if cookiecutter.__async %}
from quart import Quart, Response, g, has_request_context, request
from quart.signals import request_finished, request_started
{% endif %}

log = logging.getLogger(__name__)

SAFE_ID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}")  # Safe in the log and in a header.


def init_app(app: {{ cookiecutter.__framework }}) -> None:
    """Log every request, and write the whole log of this process to standard error."""
    plain = app.config["LOG_FORMAT"] == "text"
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("app")
    handler.addFilter(add_request_id)
    text = "%(asctime)s.%(msecs)03d %(levelname)s %(request_id)-8.8s %(name)s: %(message)s"
    as_text = TextFormatter(text, "%Y-%m-%d %H:%M:%S", defaults={"request_id": "-"})
    fields = ["levelname", "name", "message"]
    renamed = {"levelname": "level", "name": "logger", "exc_info": "exception"}
    as_json = JsonFormatter(fields, rename_fields=renamed, timestamp="time")
    handler.setFormatter(as_text if plain else as_json)
    root = logging.getLogger()
    # Replace the handler of another app in this process, as tests create several apps.
    root.handlers = [h for h in root.handlers if h.get_name() != "app"] + [handler]
    root.setLevel(logging.INFO)
    request_started.connect(begin_request, app)
    request_finished.connect(log_request, app)

    # Write the messages of granian's workers with the app's handler.
    server = logging.getLogger("_granian")
    server.handlers.clear()
    server.propagate = True
    {% if cookiecutter.__async %}
    # The development server repeats its URL, and writes a second line for every request.
    app.logger.addFilter(lambda record: not str(record.msg).startswith(("%(h)s ", "Running on ")))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    {% else %}
    # The development server writes a second line for every request, with the secrets in its query.
    development = logging.getLogger("werkzeug")
    development.addFilter(lambda record: " - - [" not in record.getMessage())
    # Its start messages are for a terminal only: they have colours and several lines.
    development.handlers = [logging.StreamHandler(sys.stderr)] if plain else []
    development.propagate = not plain
    {% endif %}


{{ cookiecutter.__async }}def begin_request(app: {{ cookiecutter.__framework }}, **_: Any) -> None:
    """Set the ID of the request: its `X-Request-ID` header if the value is safe, or a new ID."""
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if SAFE_ID.fullmatch(sent) else secrets.token_hex(16)
    g.started = time.perf_counter()


{{ cookiecutter.__async }}def log_request(app: {{ cookiecutter.__framework }}, response: Response, **_: Any) -> None:
    """Log a request, and send its ID to the client. Leave out the query: it can hold secrets."""
    response.headers["X-Request-ID"] = g.request_id
    fields = {
        "method": request.method,
        "path": quote(request.path)[:500],
        "status": response.status_code,
        "milliseconds": round((time.perf_counter() - g.started) * 1000, 1),
    }
    log.info("%s %s %d %s ms", *fields.values(), extra=fields)


def printable(text: object, longest: int | None = 300) -> str:
    """Return an untrusted text for a log or terminal: shortened, with escapes such as \\n."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[:longest])


def add_request_id(record: Any) -> bool:
    """Add the ID of the current request to a line of the log."""
    if has_request_context() and "request_id" in g:
        record.request_id = g.request_id
    return True


class TextFormatter(logging.Formatter):
    """Lines of plain text, each with the first characters of the request's ID."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if line.isprintable() else printable(line, None)

    def formatException(self, ei: Any) -> str:
        return "\n".join(printable(line, None) for line in super().formatException(ei).split("\n"))
