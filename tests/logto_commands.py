"""Runs the `logto` commands of a baked app against a Logto that can have faults."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import BakedProject, environment
from sites import FaultyLogto

DRIVER = Path(__file__).parent / "served/run_commands.py"
ORIGIN = "http://localhost:3000"
CALLBACK = f"{ORIGIN}/callback"
SECRETS = ["app-secret-7f", "m2m-secret-7f", "azure-secret-7f"]
"""Secrets that must not be in any output."""


@dataclass(frozen=True)
class CommandResult:
    """The output of a command, and its exit code."""

    code: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        return self.output + self.errors

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """The rows of `check --json`, by name."""
        return {row["name"]: row for row in json.loads(self.output)["checks"]}

    @property
    def failed(self) -> list[str]:
        return [name for name, row in self.checks.items() if row["ok"] is False]


class Commands:
    """Runs commands in a copy of a bake. Tests may change the files of the copy."""

    def __init__(self, project: BakedProject, folder: Path) -> None:
        self.path = folder / "project"
        shutil.copytree(project.path, self.path)
        self.project = BakedProject(self.path, project.answers)
        self.logto = FaultyLogto(self.project, CALLBACK)
        self.variables = {
            "LOGTO_ENDPOINT": self.logto.endpoint,
            "LOGTO_APP_ID": "test-app",
            "LOGTO_APP_SECRET": SECRETS[0],
            "LOGTO_CALLBACK_URL": CALLBACK,
            "LOGTO_API_RESOURCE": "https://api.bookstore.example/",
            "LOGTO_M2M_APP_ID": "local-m2m",
            "LOGTO_M2M_APP_SECRET": SECRETS[1],
            "AZURE_CLIENT_ID": "11111111-2222-4333-8444-555555555555",
            "AZURE_CLIENT_SECRET": SECRETS[2],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(DRIVER)],
            cwd=self.path,
            env=environment(PYTHONPATH=str(self.path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __call__(self, *words: str, **variables: str) -> CommandResult:
        """Run `logto` with these words and variables, and check that it prints no secret."""
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "words": words,
            "variables": self.variables | variables,
            # With a fault, wait only briefly. Without a fault, even a slow Logto must not time out.
            "seconds": 0.5 if self.logto.has_fault else 10,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the command ended with a traceback"
        done = CommandResult(*json.loads(line))
        assert not [secret for secret in SECRETS if secret in done.text]
        return done

    def check(self, **variables: str) -> CommandResult:
        """Run `logto check --json`, and check its exit code and that each problem has a fix."""
        done = self("check", "--json", **variables)
        rows = done.checks.values()
        assert done.code == (0 if all(row["ok"] for row in rows) else 1)
        assert all(row["fix"] for row in rows if row["ok"] is False)
        return done

    def run_in_new_process(self, *words: str, **variables: str) -> CommandResult:
        """Run the command of the framework, such as `flask logto`, in a new process."""
        framework = str(self.project.answers["framework"])
        # All bakes share one environment, and no bake is installed in it. So add the files of an
        # installation, with which the framework finds the command.
        points = tomllib.loads(self.project.read("pyproject.toml"))["project"]["entry-points"]
        installed = self.path.parent / "installed/bookstore-0.1.0.dist-info"
        installed.mkdir(parents=True, exist_ok=True)
        lines = [
            f"[{group}]\n{n} = {point}\n" for group, e in points.items() for n, point in e.items()
        ]
        (installed / "entry_points.txt").write_text("".join(lines), "utf-8")
        (installed / "METADATA").write_text("Name: bookstore\nVersion: 0.1.0\n", "utf-8")
        path = os.pathsep.join([str(self.path), str(installed.parent)])
        # Python reads its own variables at its start, so a fork would ignore them.
        own = [name for name in variables if name.startswith("PYTHON")]
        run = self.project.attempt if own else self.project.attempt_in_fork
        variables = self.variables | {"PYTHONPATH": path} | variables
        done = run(framework, "logto", *words, **variables)
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
        return CommandResult(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def connector_file(self, content: str) -> Iterator[None]:
        """Replace connectors/azure-ad.json until the end of the `with` block."""
        file = self.path / "connectors/azure-ad.json"
        before = file.read_text("utf-8")
        file.write_text(content, "utf-8")
        try:
            yield
        finally:
            file.write_text(before, "utf-8")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self.logto.stop()


@contextmanager
def commands(project: BakedProject, folder: Path) -> Iterator[Commands]:
    """Yield the commands of a bake, with a Logto that runs until the end of the `with` block."""
    started = Commands(project, folder)
    started.logto.start()
    try:
        yield started
    finally:
        started.close()
