"""The log of a running app: every line has the same format, and no line contains a secret."""

import json
import re
import signal
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from conftest import Bake
from processes import free_port
from sites import Fault, both_frameworks, query
from token_faults import Sites, id_token

SECRETS = ("code-of-logto", "state-of-logto", "hush-hush", "cookie-of-alice")
TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ +\S+ +[\w.]+: ")


def request(port: int, path: str) -> Message:
    """Request a path with the headers of a proxy and a browser. Return the response headers."""
    headers = {"X-Request-ID": "from-the-proxy", "Cookie": "bookstore-session=cookie-of-alice"}
    prepared = urllib.request.Request(f"http://localhost:{port}{path}", headers=headers)
    try:
        response: HTTPResponse
        with urllib.request.urlopen(prepared) as response:  # noqa: S310
            return response.headers
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
    with bake(framework=framework).fork(
        *command,
        GRANIAN_PORT=str(port),
        GRANIAN_LOG_LEVEL="error",
        LOG_FORMAT=log_format,
        LOGTO_APP_SECRET="hush-hush",
        LOGTO_ENDPOINT=f"http://localhost:{free_port()}",
        SESSION_URL=f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    ) as process:
        process.wait_for(f"http://localhost:{port}/healthz")
        headers = request(port, "/callback?code=code-of-logto&state=state-of-logto")
        request(port, "/sign-in")
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


CONTROL = "\n2026-01-01 INFO forged\r\x1b[31m\x1b]0;title\x07\x9b\u202e\u2028\x00"
"""Text that the log must escape: new lines, terminal codes for colours and titles, directions."""


@both_frameworks
def test_no_control_character_from_outside_reaches_the_log(sites: Sites, framework: str) -> None:
    site = sites(framework)
    sent = {"name": CONTROL, "username": CONTROL, "sub": f"sub{CONTROL}", "sid": f"sid{CONTROL}"}

    def fault(**changes: Any) -> Fault:
        return id_token(lambda claims: site.logto.signed({}, claims | changes))

    named, typed, cancelled = site.browser(), site.browser(), site.browser()
    with site.log_lines() as lines:
        with site.logto.fault("/oidc/token", fault(**sent)):
            assert named.sign_in().headers["Location"] == "/"
        assert named.is_signed_in
        # A back-channel logout of another session, and then of all sessions of this user.
        for sid in (CONTROL, None):
            token = site.logto.logout_token(sub=sent["sub"], sid=sid)
            done = httpx2.post(f"{site.url}/backchannel-logout", data={"logout_token": token})
            assert done.status_code == 200
        with site.logto.fault("/oidc/token", fault(**sent)):
            named.sign_in()
        named.post("/sign-out")
        # Invalid ID tokens, and errors from Logto.
        for changes in ({"iss": CONTROL}, {"aud": CONTROL}, {"azp": CONTROL}, {"exp": CONTROL}):
            with site.logto.fault("/oidc/token", fault(**changes)):
                assert typed.sign_in().status_code == 400
        for error in ("access_denied", CONTROL):
            state = query(cancelled.start())["state"]
            parameters = {"state": state, "iss": site.logto.issuer, "error_description": CONTROL}
            cancelled.get("/callback", params=parameters | {"error": error})
        cancelled.get("/callback", params={"error": CONTROL})
        state = query(cancelled.start())["state"]
        cancelled.get("/callback", params={"state": state, "iss": CONTROL, "code": "c"})
        typed.get(f"/{quote(CONTROL)}", headers={"X-Request-ID": b"a\x9bb"})
        site.logto.local.users.pop(CONTROL.strip(), None)
    log = "\n".join(lines)
    # Each of these texts was logged.
    assert log.count("INFO forged") >= 10
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith("2026-01-01 INFO forged")]
    assert "\\n2026-01-01 INFO forged\\r\\x1b[31m" in log
