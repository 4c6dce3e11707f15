"""The bakes to measure, their servers, and a user who signs in."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from processes import Process, free_port, running
from repositories import git

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
INTERFACES = {"flask": "wsgi", "quart": "asgi"}
FOREIGN = ("FLASK_", "GRANIAN_", "LOGTO_", "LOG_FORMAT", "QUART_", "SESSION_")
PAGE_OF_ALICE = "Hello, <bdi>Alice Archer</bdi>"


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a measured process, without variables that would configure it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join([str(BIN), kept.get("PATH", "")])
    return kept | {"PATH": path, "PYTHONPATH": str(HERE)} | variables


def cookiecutter(template: Path, folder: Path, *answers: str) -> None:
    """Bake from the command line, with the hooks."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    command += ["--default-config", "--output-dir", str(folder), *answers]
    subprocess.run(command, check=True, capture_output=True)


def old_template(commit: str, folder: Path) -> Path:
    """Write the files of this repository at a commit into a folder, and return the folder."""
    git(ROOT, "archive", f"--output={folder}.tar", commit)
    shutil.unpack_archive(f"{folder}.tar", folder)
    return folder


def bake(folder: Path, *answers: str) -> Path:
    """Bake the template into an empty folder, and return the folder of the project."""
    shutil.rmtree(folder, ignore_errors=True)
    cookiecutter(ROOT, folder, *answers)
    (project,) = folder.iterdir()
    return project


@functools.cache
def stand_in() -> Any:
    """Bake a project, and return its local Logto. The bake is deleted at exit."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.path.insert(0, str(bake(Path(folder, "stand-in"))))
    from dev import local_logto  # type: ignore[import-not-found]

    return local_logto


class LocalLogto:
    """The stand-in, in this process, so that its requests can be counted."""

    def __init__(self, callbacks: list[str]) -> None:
        local_logto = stand_in()
        self._logto: Any = local_logto.LocalLogto(app_id="bench", redirect_uris=callbacks)
        self.endpoint: str = self._logto.endpoint

    def __enter__(self) -> "LocalLogto":
        self._logto.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._logto.stop()

    def calls(self) -> list[str]:
        """Return the paths of all requests so far."""
        return [path for _, path in self._logto.requests]


@contextmanager
def granian(
    target: str, interface: str, port: int, folder: Path, *options: str, **variables: str
) -> Iterator[Process]:
    """Serve an app as in production, except that the log goes to a file."""
    command = ["granian", "--interface", interface, "--factory", "--port", str(port), *options]
    with running(
        [str(BIN / command[0]), *command[1:], target], folder, environment(**variables)
    ) as process:
        process.wait_for(f"http://localhost:{port}/")
        yield process


def logto_variables(endpoint: str, port: int) -> dict[str, str]:
    """Return the LOGTO_ variables of an app on this port."""
    return {
        "LOGTO_ENDPOINT": endpoint,
        "LOGTO_APP_ID": "bench",
        "LOGTO_APP_SECRET": "bench-secret",
        "LOGTO_CALLBACK_URL": f"http://localhost:{port}/callback",
    }


def signed_in(port: int) -> tuple[str, str]:
    """Sign in as Alice. Return the cookies as the value of a header, and the home page."""
    with httpx2.Client(base_url=f"http://localhost:{port}", timeout=30) as app:
        to_logto = app.get("/sign-in")
        callback = callback_for(to_logto.headers["Location"])
        app.get(callback)
        page = app.get("/").text
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in app.cookies.jar), page


def callback_for(url: str) -> str:
    """Choose Alice on the sign-in page at this URL, and return the callback URL."""
    with httpx2.Client(timeout=30) as browser:
        page = browser.get(url, follow_redirects=True)
        form = {"interaction": page.url.params["interaction"], "user": "alice"}
        return browser.post(page.url.join("/sign-in"), data=form).headers["Location"]


def session_of_alice(database: Path) -> dict[str, Any]:
    """Return the data of the one signed-in session in a SQLite store."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        ((data, sub),) = connection.execute(
            "SELECT data, sub FROM sessions WHERE sub IS NOT NULL LIMIT 1"
        ).fetchall()
    return {"data": json.loads(data), "sub": sub}


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a separate Redis server, and yield its URL without the number of a database."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    with running(command, folder, environment()) as process:
        process.wait_for_text("Ready to accept connections")
        yield f"redis://localhost:{port}"


def seed(project: Path, variables: dict[str, str], count: int, sample: dict[str, Any]) -> float:
    """Put this many copies of a session into the store of the app with these variables.

    Return the bytes per copy.
    """
    done = subprocess.run(
        [sys.executable, str(HERE / "seed.py"), str(count)],
        cwd=project,
        env=environment(**variables),
        input=json.dumps(sample),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return float(done.stdout)


def first_page(port: int, limit: float = 60) -> None:
    """Wait until the home page responds. Raises TimeoutError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"http://localhost:{port}/", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.01)
    raise TimeoutError


CALLS_OF_THE_APP = {
    "/oidc/.well-known/openid-configuration",
    "/oidc/jwks",
    "/oidc/token",
    "/oidc/me",
}
"""The paths that an app itself requests from Logto, without the browser."""


def sign_ins(port: int, count: int) -> tuple[float, float]:
    """Sign in again and again, each time in a new browser.

    Return the seconds in total, and the seconds of waiting for the app.
    """
    waited = 0.0
    started = time.perf_counter()
    for _ in range(count):
        with httpx2.Client(base_url=f"http://localhost:{port}", timeout=30) as app:
            begun = time.perf_counter()
            url = app.get("/sign-in").headers["Location"]
            waited += time.perf_counter() - begun
            callback = callback_for(url)
            begun = time.perf_counter()
            app.get(callback)
            page = app.get("/").text
            waited += time.perf_counter() - begun
            assert "uthenticated" in page or PAGE_OF_ALICE in page
            assert "Not authenticated" not in page
    return time.perf_counter() - started, waited
