"""What whoever runs the app relies on: health, and a log that says much and gives nothing away."""

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.config import Config

ACCESS_LOG = "app.logs"


{{ cookiecutter.__async }}def status_of(app: Any, path: str) -> tuple[int, dict[str, str]]:
    answer = {{ cookiecutter.__await }}app.test_client().get(path)
    return answer.status_code, {{ cookiecutter.__await }}answer.get_json()


{{ cookiecutter.__async }}def test_the_app_is_ready_and_says_so_of_logto_too(app: Any) -> None:
    for _ in range(50):
        status, state = {{ cookiecutter.__await }}status_of(app, "/readyz")
        if state["logto"] != "unknown":
            break
        time.sleep(0.1)
    assert (status, state) == (200, {"status": "ok", "sessions": "ok", "logto": "ok"})


{{ cookiecutter.__async }}def test_without_sessions_the_app_is_not_ready(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path / 'file' / 'sessions.sqlite3'}"
    app = create_app(dataclasses.replace(config, SESSION_URL=url))
    assert ({{ cookiecutter.__await }}status_of(app, "/healthz"))[0] == 200
    assert ({{ cookiecutter.__await }}status_of(app, "/readyz"))[0] == 503


{{ cookiecutter.__async }}def test_a_request_is_logged_with_its_id_and_without_its_query(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOG)
    answer = {{ cookiecutter.__await }}app.test_client().get(
        "/callback?code=hush&state=hush", headers={"X-Request-ID": "from-the-proxy"}
    )
    (line,) = [record for record in caplog.records if record.name == ACCESS_LOG]
    fields: Any = line
    assert (fields.method, fields.path, fields.status) == ("GET", "/callback", 400)
    assert answer.headers["X-Request-ID"] == "from-the-proxy"
    assert "hush" not in caplog.text


{{ cookiecutter.__async }}def test_browsers_ask_whether_a_static_file_has_changed(client: Any) -> None:
    answer = {{ cookiecutter.__await }}client.get("/static/style.css")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["ETag"]


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "ü", "<script>"])
{{ cookiecutter.__async }}def test_an_id_that_is_not_safe_is_replaced(client: Any, sent: str) -> None:
    answer = {{ cookiecutter.__await }}client.get("/healthz", headers={"X-Request-ID": sent})
    assert answer.headers["X-Request-ID"] not in ("", sent)


{{ cookiecutter.__async }}def test_in_json_every_line_is_an_object_and_a_trace_is_a_field(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(dataclasses.replace(config, LOG_FORMAT="json"))
    app.add_url_rule("/broken", view_func=broken)
    {{ cookiecutter.__await }}app.test_client().get("/broken", headers={"X-Request-ID": "abc"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (error,) = [line for line in lines if line["level"] == "ERROR"]
    assert "ZeroDivisionError" in error["exception"]
    assert error["request_id"] == "abc"
    assert lines[-1]["status"] == 500


{{ cookiecutter.__async }}def broken() -> str:
    return str(1 / 0)
