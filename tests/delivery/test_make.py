"""The Makefile and .ci/run: what goes wrong during the set-up is shown, and a red test ends the run."""

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
    """A fresh clone with nothing set up."""
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "node_modules", "docs", "__pycache__"
    )
    shutil.copytree(ROOT, clone, ignore=ignored)
    return clone


@pytest.fixture
def installed(clone: Path) -> Path:
    """A clone with the Python packages of this one, and nothing from npm."""
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for name in ("baking", "testing"):
        (clone / f".venv/.{name}").touch()
    return clone


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(**variables)
    # A make above this one passes its options in these.
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
def test_an_npm_that_reaches_no_registry_says_why_and_ends_the_run_in_ci_only(
    installed: Path, tmp_path: Path, ci: str
) -> None:
    nowhere = {"npm_config_registry": NOWHERE, "npm_config_fetch_retries": "0"}
    done = make(installed, NPM_PACKAGES, CI=ci, npm_config_cache=str(tmp_path / "cache"), **nowhere)
    assert REFUSED.search(done.stderr)
    assert (done.returncode != 0) is bool(ci)
    assert ("tests that need them are left out" in done.stdout) is not bool(ci)
    assert not (installed / NPM_PACKAGES).exists()


def test_a_pip_that_reaches_no_index_says_why(clone: Path) -> None:
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "1"}
    done = make(clone, ".venv/.baking", f"PYTHON={sys.executable}", **nowhere)
    assert done.returncode != 0
    assert REFUSED.search(done.stderr)


def test_a_uv_that_reaches_no_index_says_why_in_the_demo(installed: Path, tmp_path: Path) -> None:
    nowhere = {"UV_DEFAULT_INDEX": NOWHERE, "UV_HTTP_RETRIES": "0"}
    done = make(installed, "demo", UV_CACHE_DIR=str(tmp_path / "cache"), **nowhere)
    assert done.returncode != 0
    assert REFUSED.search(done.stderr)


@pytest.mark.parametrize("name", ["PORT", "LOGTO_PORT"])
def test_a_taken_port_is_named_before_the_demo_installs_anything(
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


@pytest.mark.parametrize("red", ["check", "test-newest", "test", "nothing"])
def test_the_pipeline_runs_everything_and_its_tests_last(tmp_path: Path, red: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
    stand_in = tmp_path / "bin/make"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$1"\ntest "$1" != "$RED"\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", ".ci/run"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "RED": red},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    order = ["check", "test-newest", "test"]
    expected = order[: order.index(red) + 1] if red in order else order
    # Failed tests run once more.
    assert done.stdout.split() == expected + ["test"] * (red == "test")
    assert (done.returncode == 0) is (red == "nothing")
