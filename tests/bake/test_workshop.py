"""The workshop: all steps work from a folder without a network."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from answers import ROOT
from conftest import Bake
from processes import Process, free_port

# The paragraph that names the place in the code, then the block of code to write there.
EXERCISE = re.compile(
    r"(?P<where>[^\n]+(?:\n[^\n]+)*):\n\n```(?:python|json)\n(?P<code>.*?)```", re.S
)
PLACE = re.compile(
    r"""
    At\ the\ end\ of\ `(?P<longer>[^`]+)`
    | [Ii]n\ `(?P<file>[^`]+)`,\ below\ the\ line\ `(?P<line>[^`]+)`
    | With\ (?P<framework>Flask|Quart),\ in\ a\ new\ file\ `(?P<new>[^`]+)`
    """,
    re.VERBOSE,
)

# The commands of docs/workshop.md, in the folder to which the kit was copied.
OFFLINE = """
set -e
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/wheels"
"{python}" -m venv tools
tools/bin/python -m pip install -q cookiecutter
tools/bin/cookiecutter cookiecutter-logto.zip --no-input api_resource=https://api.bookstore.example/
cd bookstore
"{python}" -m venv .venv
. .venv/bin/activate
python -m pip install -q --upgrade pip
python -m pip install -q -e . --group dev
python -m pytest -q
"""


def test_no_step_on_windows_needs_a_script_that_the_execution_policy_blocks(bake: Bake) -> None:
    workshop = (ROOT / "docs" / "workshop.md").read_text("utf-8")
    for text in (bake().read("README.md"), workshop):
        steps = re.findall(r"```powershell\n(.*?)```", text, re.S)
        assert any("-m venv" in step for step in steps)
        for step in steps:
            assert not re.search("activate|ExecutionPolicy", step, re.I), step
            # Without the path of the environment, pip would install into another Python.
            environment = re.search(r"\.venv\\Scripts", step)
            installed = re.search(r"-m pip install -e", step)
            assert environment or not installed, step


def without_network() -> list[str]:
    """Return the start of a command that runs a script without a network, if that is allowed.

    If it is not allowed, the script runs with the network.
    """
    cut_off = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") and shutil.which("ip"):
        tried = subprocess.run([*cut_off, "ip", "link", "set", "lo", "up"], capture_output=True)
        if tried.returncode == 0:
            return [*cut_off, "sh", "-c", 'ip link set lo up && exec sh -c "$0"']
    return ["sh", "-c", 'exec sh -c "$0"']


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
def test_the_kit_gives_a_project_with_passing_tests_without_a_network(tmp_path: Path) -> None:
    kit = tmp_path / "workshop"
    make = [sys.executable, str(ROOT / "tools" / "workshop_kit.py"), str(kit), "--systems"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        # If no network namespace is allowed, this index refuses every connection.
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
        # Here, "0" means "do not compile". Compiling takes longer than the tests.
        "PIP_NO_COMPILE": "0",
    }
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [*without_network(), OFFLINE.format(python=python)],
        cwd=kit,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def do_the_exercises(project: Path, framework: str) -> None:
    """Write the code of the exercises in docs/workshop.md into a project."""
    text = (ROOT / "docs" / "workshop.md").read_text("utf-8")
    for exercise in EXERCISE.finditer(text):
        where, code = " ".join(exercise["where"].split()), exercise["code"]
        place = PLACE.search(where)
        assert place, f"the paragraph names no place for the code: {where}"
        if place["new"]:
            if place["framework"].lower() == framework:
                (project / place["new"]).write_text(code, "utf-8")
            continue
        if framework == "quart":
            code = re.sub(r"^def ", "async def ", code, flags=re.M)
        file = project / (place["longer"] or place["file"])
        content = file.read_text("utf-8")
        if place["longer"]:
            content = f"{content}\n\n{code}"
        else:
            assert content.count(f"{place['line']}\n") == 1, where
            before, line, after = content.partition(f"{place['line']}\n")
            content = before + line + code + after
        file.write_text(content, "utf-8")


def wait_until_it_is_served(process: Process, app: str) -> None:
    """Wait until the app serves the pages of the exercises and has not restarted for 2 seconds.

    The exercises save several files, so the app may restart more than once.
    """
    served, changes = False, 0
    deadline = time.monotonic() + 60
    while not served or process.output.count("A file has changed") > changes:
        assert time.monotonic() < deadline, process.output
        changes = process.output.count("A file has changed")
        time.sleep(2)
        with suppress(httpx2.TransportError):
            pages = ("/shelf", "/api/to-review")
            served = [httpx2.get(app + page).status_code for page in pages] == [302, 401]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_the_exercises_give_the_results_in_the_text(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    project = bake(framework=framework, api_resource="https://api.bookstore.example/")
    shutil.copytree(project.path, tmp_path / "bookstore")
    project = replace(project, path=tmp_path / "bookstore")
    port, logto_port = str(free_port()), str(free_port())
    ports = ["--port", port, "--logto-port", logto_port]
    app = f"http://localhost:{port}"
    with project.start("python", "-m", "dev", *ports) as process:
        process.wait_for(app)
        do_the_exercises(project.path, framework)
        process.wait_for_text("A file has changed")
        wait_until_it_is_served(process, app)
        shelf = httpx2.get(f"{app}/shelf", follow_redirects=True)
        assert shelf.url.port == int(logto_port)
        for user, status in (("alice", 200), ("bob", 403)):
            options = ["--user", user, "--scope", "review:books", *ports]
            token = project.run("python", "-m", "dev.access_token", *options)
            assert ("bob is not granted review:books." in token.stderr) == (user == "bob")
            headers = {"Authorization": f"Bearer {token.stdout.strip()}"}
            response = httpx2.get(f"{app}/api/to-review", headers=headers)
            assert response.status_code == status
            challenge = response.headers.get("WWW-Authenticate", "")
            assert ('scope="review:books"' in challenge) == (user == "bob")

    tests = project.run("python", "-m", "pytest", "-v", "-k", "api or shelf")
    assert "tests/test_shelf.py::test_alice_has_a_shelf PASSED" in tests.stdout
