"""The log of a bake that runs: every line of the one form, and nothing in it to keep secret."""

import json
import re
import signal
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path

import pytest
from conftest import Bake
from processes import free_port

SECRETS = ("code-of-logto", "state-of-logto", "hush-hush", "cookie-of-alice")
TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ +\S+ +[\w.]+: ")


def ask(port: int, path: str) -> Message:
    """Ask for a path with all that a proxy and a browser send; gives the headers of the answer."""
    headers = {"X-Request-ID": "from-the-proxy", "Cookie": "bookstore-session=cookie-of-alice"}
    request = urllib.request.Request(f"http://localhost:{port}{path}", headers=headers)
    try:
        answer: HTTPResponse
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.headers
    except urllib.error.HTTPError as error:
        return error.headers


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("server", ["flask", "quart", "granian wsgi", "granian asgi"])
def test_a_request_is_one_line_without_its_query(
    bake: Bake, server: str, log_format: str, tmp_path: Path
) -> None:
    port = free_port()
    framework = {"granian wsgi": "flask", "granian asgi": "quart"}.get(server, server)
    command = [framework, "run", "--port", str(port)]
    if server.startswith("granian"):
        interface = server.split()[1]
        command = ["granian", "--interface", interface, "--factory", "app:create_app"]
    with bake(framework=framework).start(
        *command,
        GRANIAN_PORT=str(port),
        GRANIAN_LOG_LEVEL="error",
        LOG_FORMAT=log_format,
        LOGTO_APP_SECRET="hush-hush",
        LOGTO_ENDPOINT=f"http://localhost:{free_port()}",
        SESSION_URL=f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    ) as process:
        process.wait_for(f"http://localhost:{port}/healthz")
        headers = ask(port, "/callback?code=code-of-logto&state=state-of-logto")
        ask(port, "/sign-in")
        process.wait_for_text("/sign-in")
        process.send(signal.SIGTERM)
        process.exit_code()
        output = process.output

    assert headers["X-Request-ID"] == "from-the-proxy"
    assert not [secret for secret in SECRETS if secret in output]
    lines = [line for line in output.splitlines() if "/callback" in line]
    assert len(lines) == 1
    if log_format == "text":
        assert TEXT.match(lines[0])
        assert "GET /callback 400" in lines[0]
        return
    entry = json.loads(lines[0])
    assert entry["method"] == "GET"
    assert entry["path"] == "/callback"
    assert entry["status"] == 400
    assert entry["milliseconds"] > 0
    assert entry["level"] == "INFO"
    assert entry["request_id"] == "from-the-proxy"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)$", entry["time"])
    if server.startswith("granian"):
        entries = [json.loads(line) for line in output.splitlines()]
        (error,) = [entry for entry in entries if entry["level"] == "ERROR"]
        assert "Logto is unavailable" in error["message"]
        assert error["request_id"] == "from-the-proxy"
