"""`make test-newest` fails after a failed check. Without a network, it says so and passes."""

import ensurepip
import functools
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from answers import TEMPLATE
from tool_runs import run_tool

NO_INDEX = "http://127.0.0.1:9/"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX process groups")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Do nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Serve a package index that has only pip, and give its URL."""
    [wheel] = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    folder = tmp_path / "simple/pip"
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


# Run the tool with another folder, so that it makes no files in build/ of this repository.
RUN = """
import pathlib, sys
import newest_python
newest_python.BUILD = pathlib.Path(sys.argv.pop(1))
newest_python.DEBIAN = newest_python.BUILD / "newest"
newest_python.TEMPLATE = newest_python.BUILD / newest_python.TEMPLATE.name
{change}
sys.exit(newest_python.main())
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the tool. `change` is code that changes the tool first."""
    build = tmp_path / "build"
    shutil.copytree(TEMPLATE, build / TEMPLATE.name)

    def run(*words: str, change: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        variables |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_EXTRA_INDEX_URL": ""}
        return run_tool(RUN.format(change=change), str(build), *words, **variables)

    return run


def test_an_index_that_does_not_respond_is_no_failure(run: Run) -> None:
    done = run("--python", sys.executable, PIP_INDEX_URL=NO_INDEX, PIP_RETRIES="0")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Left out: the generated projects with the newest Python.")
    assert "The package index does not respond" in last


def test_an_index_that_responds_without_a_needed_package_is_a_failure(run: Run, index: str) -> None:
    done = run("--python", sys.executable, PIP_INDEX_URL=index)
    assert done.returncode == 1, done.stdout
    assert "No matching distribution found for cookiecutter" in done.stdout


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "There is no debootstrap"),
        ("echo 'E: Failed getting release file'; exit 1", "E: Failed getting release file"),
    ],
    ids=["no debootstrap", "no mirror"],
)
def test_a_debian_that_cannot_be_made_is_no_failure(
    run: Run, tmp_path: Path, script: str | None, reason: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "chroot"):
        found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if found:
            (programs / name).symlink_to(found)
    if script:
        (programs / "debootstrap").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "debootstrap").chmod(0o755)
    # The tests must also work without root, and as a root that cannot isolate a process.
    change = "newest_python.os.geteuid = lambda: 0; newest_python.ISOLATED = []"
    done = run(change=f"{change}; newest_python.sys.platform = 'linux'", PATH=str(programs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Left out:")
    assert reason in done.stdout.splitlines()[-1]


# The projects run in the environment that all bakes share, and only ruff checks them.
SHARED = """
newest_python.CHECKS = (("ruff", "check"),)
newest_python.Machine.environment = lambda machine, name: sys.executable
newest_python.Machine.install = lambda machine, *words, **where: None
path = newest_python.Machine.path
newest_python.Machine.path = lambda machine, relative: (
    shutil.which("cookiecutter") if relative == "tools/bin/cookiecutter" else path(machine, relative)
)
import shutil
"""


@pytest.mark.parametrize("broken", [False, True])
def test_a_check_that_fails_in_a_project_is_a_failure(
    run: Run, tmp_path: Path, broken: bool
) -> None:
    if broken:
        pages = tmp_path / "build" / TEMPLATE.name / "app/pages.py"
        pages.write_text("import antigravity\n\n" + pages.read_text("utf-8"), "utf-8")
    done = run("--python", sys.executable, change=SHARED)
    assert done.returncode == int(broken), done.stdout + done.stderr
    assert ("`antigravity` imported but unused" in done.stdout) is broken
    if not broken:
        for framework in ("flask", "quart"):
            assert f"{framework}-smallest: passed" in done.stdout
            assert f"{framework}-fullest: passed" in done.stdout
