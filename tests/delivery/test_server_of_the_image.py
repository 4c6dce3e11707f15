"""The server of the image: a worker that crashes or hangs, and the host that it listens on."""

import json
import os
import shlex
import signal
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import httpx2
import pytest
from conftest import Bake
from images import instructions
from processes import Process, free_port, until

pytestmark = [pytest.mark.slow]

FRAMEWORKS = pytest.mark.parametrize("framework", ["flask", "quart"])


def start(
    bake: Bake, framework: str, folder: Path, port: int, **variables: str
) -> AbstractContextManager[Process]:
    """Start a bake with the CMD and the GRANIAN_ variables of its Dockerfile."""
    project = bake(framework=framework)
    settings: dict[str, str] = {}
    for word, rest in instructions(project.read("Dockerfile")):
        if word == "ENV":
            settings |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "CMD":
            command = json.loads(rest)
    environ = {name: text for name, text in settings.items() if name.startswith("GRANIAN_")}
    # The first digit of the image's seconds is enough here, and the test is faster.
    environ["GRANIAN_WORKERS_KILL_TIMEOUT"] = environ["GRANIAN_WORKERS_KILL_TIMEOUT"][:1]
    environ |= {"GRANIAN_PORT": str(port), "LOGTO_APP_SECRET": "hush", **variables}
    return project.start(*command, **environ, SESSION_URL=f"sqlite:///{folder}/s.sqlite3")


def works(url: str) -> bool:
    """Return whether the server responds to `/healthz`."""
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/healthz").is_success
    return False


@FRAMEWORKS
def test_a_crashed_worker_is_replaced(bake: Bake, framework: str, tmp_path: Path) -> None:
    port = free_port()
    with start(bake, framework, tmp_path, port) as server:
        server.wait_for(f"http://localhost:{port}/healthz")
        crashed = server.process_ids[-1]
        os.kill(crashed, signal.SIGKILL)
        until(lambda: server.process_ids[-1] not in (crashed, server.process_ids[0]))
        until(lambda: works(f"http://localhost:{port}"))


@FRAMEWORKS
def test_a_worker_that_hangs_does_not_keep_the_server_from_stopping(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    port = free_port()
    with start(bake, framework, tmp_path, port) as server:
        server.wait_for(f"http://localhost:{port}/healthz")
        os.kill(server.process_ids[-1], signal.SIGSTOP)
        server.send(signal.SIGTERM)
        server.exit_code()


@FRAMEWORKS
def test_the_server_listens_on_ipv6_and_ipv4_with_an_ipv6_host(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    port = free_port()
    with start(bake, framework, tmp_path, port, GRANIAN_HOST="::") as server:
        server.wait_for(f"http://[::1]:{port}/healthz")
        assert works(f"http://127.0.0.1:{port}")
