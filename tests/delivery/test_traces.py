"""Tracing with OpenTelemetry works as docs/production.md of a project says."""

import json
import re
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Bake, BakedProject, mypy_cache
from processes import free_port


def instrumented(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project and add the code for tracing from docs/production.md, if there is any."""
    copy = replace(project, path=Path(shutil.copytree(project.path, folder / "project")))
    traces = copy.read("docs/production.md").partition("\n## Traces\n")[2].partition("\n## ")[0]
    factory = copy.path / "app/__init__.py"
    text = factory.read_text("utf-8")
    for code in re.findall(r"```python\n(.*?)```", traces, re.S):
        lines = textwrap.dedent(code).splitlines(keepends=True)
        imports = [line for line in lines if line.startswith("from ")]
        rest = "".join(line for line in lines if line not in imports).strip()
        start, end = text.index("\nfrom ") + 1, text.index("    return app\n")
        call = textwrap.indent(f"{rest}\n", "    ")
        text = text[:start] + "".join(imports) + text[start:end] + call + text[end:]
    factory.write_text(text, "utf-8")
    return copy


def spans(output: str) -> Iterator[dict[str, Any]]:
    """Read the spans that the console exporter has printed."""
    for found in re.finditer(r"^\{$.*?^\}$", output, re.S | re.M):
        yield json.loads(found[0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_a_trace_has_the_calls_to_logto_but_not_the_authorization_code(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    project = instrumented(bake(framework=framework), tmp_path)
    port, logto_port = free_port(), free_port()
    [excluded] = re.findall(
        r"`OTEL_PYTHON_EXCLUDED_URLS=(\S+)`", project.read("docs/production.md")
    )
    variables = {
        "LOGTO_ENDPOINT": f"http://localhost:{logto_port}",
        "LOGTO_CALLBACK_URL": f"http://localhost:{port}/callback",
        "OTEL_PYTHON_EXCLUDED_URLS": excluded,
        "OTEL_TRACES_EXPORTER": "console",
        # Milliseconds until a span is sent. A span that is not sent is lost when the app stops.
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    [command] = re.findall(r"^granian --.*", project.read("README.md"), re.M)
    command = ["opentelemetry-instrument", *command.replace("3000", str(port)).split()]
    logto = project.fork("python", "-m", "dev.local_logto", "--port", str(logto_port), **variables)
    with logto as provider, project.start(*command, **variables) as app:
        provider.wait_for(f"http://localhost:{logto_port}/oidc/jwks")
        app.wait_for(f"http://localhost:{port}/healthz")
        assert httpx2.get(f"http://localhost:{port}/callback?code=hush").status_code == 400
        assert httpx2.get(f"http://localhost:{port}/sign-in").status_code == 302
        app.wait_for_text('"name": "GET /sign-in"')
        time.sleep(0.3)
        app.send(signal.SIGTERM)
        assert app.exit_code() == 0
        traced = list(spans(app.output))
    servers = [span for span in traced if span["kind"] == "SpanKind.SERVER"]
    assert [span["name"] for span in servers] == ["GET /sign-in"]
    calls = [span for span in traced if span["kind"] == "SpanKind.CLIENT"]
    assert {span["parent_id"] for span in calls} == {servers[0]["context"]["span_id"]}
    assert any(str(logto_port) in span["attributes"]["http.url"] for span in calls)
    assert "hush" not in json.dumps(traced)


@pytest.mark.xdist_group("quart processes")
def test_the_types_are_correct_with_the_lines_for_quart(bake: Bake, tmp_path: Path) -> None:
    project = instrumented(bake(framework="quart"), tmp_path)
    assert "OpenTelemetryMiddleware" in project.read("app/__init__.py")
    project.run("python", "-m", "mypy", "--cache-dir", mypy_cache("quart"))
