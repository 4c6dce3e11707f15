{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""The health of the app, its log without secrets, and its static files."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import Client, Start

ACCESS_LOG = "app.server.logs"


async def test_the_app_is_ready(client: Client) -> None:
    response = await client.get("/readyz")
    assert response.status_code == 200
    state = await response.get_json()
    assert state == {"status": "ok", "sessions": "ok"}


async def test_without_a_store_the_app_is_alive_but_not_ready(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app = await start(SESSION_URL=f"sqlite:///{tmp_path / 'file' / 'sessions.sqlite3'}")
    for path, status in (("/healthz", 200), ("/readyz", 503)):
        response = await app.test_client().get(path)
        assert response.status_code == status


async def test_a_request_is_logged_with_its_id_and_without_its_query(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOG)
    response = await client.get(
        "/callback?code=hush&state=hush", headers={"X-Request-ID": "from-the-proxy"}
    )
    (line,) = [record for record in caplog.records if record.name == ACCESS_LOG]
    fields: Any = line
    assert (fields.method, fields.path, fields.status) == ("GET", "/callback", 400)
    assert response.headers["X-Request-ID"] == "from-the-proxy"
    assert "hush" not in caplog.text


async def test_browsers_check_whether_a_static_file_has_changed(client: Client) -> None:
    response = await client.get("/static/style.css")
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["ETag"]
    {% if not cookiecutter.__async %}
    response.close()
    {% endif %}


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "ü", "<script>"])
async def test_an_id_that_is_not_safe_is_replaced(client: Client, sent: str) -> None:
    response = await client.get("/healthz", headers={"X-Request-ID": sent})
    assert response.headers["X-Request-ID"] not in ("", sent)


async def test_each_line_of_a_json_log_is_an_object_and_a_traceback_is_a_field(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    app = await start(LOG_FORMAT="json")
    app.testing = False
    app.add_url_rule("/test/broken", view_func=broken)
    await app.test_client().get("/test/broken", headers={"X-Request-ID": "abc"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (error,) = [line for line in lines if line["level"] == "ERROR"]
    assert "ZeroDivisionError" in error["exception"]
    assert error["request_id"] == "abc"
    assert lines[-1]["status"] == 500


async def broken() -> str:
    return str(1 / 0)
{% endfilter %}
{% endfilter %}
