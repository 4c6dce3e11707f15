"""The Makefile and .ci/run: what goes wrong during the set-up is shown, and a red test ends the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from answers import ROOT
from conftest import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs make and a POSIX shell")

NPM_PACKAGES = "tests/node/node_modules/.ready"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, with the Python environment of this one, where npm reaches no registry."""
    for name in ("Makefile", "tests/node/package.json", "tests/node/package-lock.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv/.testing").touch()
    return tmp_path


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(**variables)
    # A make above this one passes its options in these.
    env = {name: value for name, value in env.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "--old-file=.venv/.testing", *words],
        cwd=clone,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("ci", ["", "true"])
def test_an_npm_that_reaches_no_registry_says_why_and_ends_the_run_in_ci_only(
    clone: Path, ci: str
) -> None:
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_fetch_retries": "0"}
    cache = str(clone / "cache")
    done = make(clone, NPM_PACKAGES, CI=ci, npm_config_cache=cache, **nowhere)
    assert "ECONNREFUSED" in done.stderr
    assert (done.returncode != 0) is bool(ci)
    assert ("tests that need them are left out" in done.stdout) is not bool(ci)
    assert not (clone / NPM_PACKAGES).exists()


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
