"""The Makefile and .ci/run show errors of the set-up, and a failed step ends the run."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from answers import ROOT
from conftest import environment
from processes import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs make and a POSIX shell")

NPM_PACKAGES = "tests/node/node_modules/.ready"
NOWHERE = "http://127.0.0.1:9/"
REFUSED = re.compile("ECONNREFUSED|Connection refused")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Make a fresh clone without any set-up."""
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "node_modules", "docs", "__pycache__"
    )
    shutil.copytree(ROOT, clone, ignore=ignored)
    return clone


@pytest.fixture
def installed(clone: Path) -> Path:
    """Make a clone with the Python packages of this repository, but without npm packages."""
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for name in ("baking", "testing"):
        (clone / f".venv/.{name}").touch()
    return clone


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in a clone."""
    env = environment(**variables)
    # If make runs these tests, it sets these variables. They would change the options here.
    env = {name: value for name, value in env.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *words],
        cwd=clone,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("ci", ["", "true"])
def test_npm_without_its_registry_shows_the_error_and_fails_only_in_ci(
    installed: Path, tmp_path: Path, ci: str
) -> None:
    nowhere = {"npm_config_registry": NOWHERE, "npm_config_fetch_retries": "0"}
    done = make(installed, NPM_PACKAGES, CI=ci, npm_config_cache=str(tmp_path / "cache"), **nowhere)
    assert REFUSED.search(done.stderr)
    assert (done.returncode != 0) is bool(ci)
    assert ("tests that need them are left out" in done.stdout) is not bool(ci)
    assert not (installed / NPM_PACKAGES).exists()


def test_pip_without_its_index_shows_the_error(clone: Path) -> None:
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "1"}
    done = make(clone, ".venv/.baking", f"PYTHON={sys.executable}", **nowhere)
    assert done.returncode != 0
    assert REFUSED.search(done.stderr)


def test_uv_without_its_index_shows_the_error_in_the_demo(installed: Path, tmp_path: Path) -> None:
    nowhere = {"UV_DEFAULT_INDEX": NOWHERE, "UV_HTTP_RETRIES": "0"}
    done = make(installed, "demo", UV_CACHE_DIR=str(tmp_path / "cache"), **nowhere)
    assert done.returncode != 0
    assert REFUSED.search(done.stderr)


@pytest.mark.parametrize("name", ["PORT", "LOGTO_PORT"])
def test_the_demo_reports_a_taken_port_before_it_installs_anything(
    installed: Path, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ports = {"PORT": free_port(), "LOGTO_PORT": free_port(), name: port}
        done = make(installed, "demo", *(f"{each}={number}" for each, number in ports.items()))
    assert done.returncode != 0
    assert f"Port {port} is taken. Free it, or run: make demo {name}={port + 10}" in done.stderr
    assert "--port" not in done.stdout + done.stderr
    assert not (installed / "build").exists()


@pytest.mark.parametrize("failing", ["check", "test-newest", "test", "nothing"])
def test_the_pipeline_runs_the_tests_last_and_stops_at_a_failure(
    tmp_path: Path, failing: str
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
    stand_in = tmp_path / "bin/make"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$1"\ntest "$1" != "$FAILING"\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", ".ci/run"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "FAILING": failing},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    order = ["check", "test-newest", "test"]
    expected = order[: order.index(failing) + 1] if failing in order else order
    # Failed tests run once more.
    assert done.stdout.split() == expected + ["test"] * (failing == "test")
    assert (done.returncode == 0) is (failing == "nothing")
