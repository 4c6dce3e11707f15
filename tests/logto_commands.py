"""The `logto` commands of a baked app, and the Logto that they work on."""

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
"""What no output may hold."""


@dataclass(frozen=True)
class CommandResult:
    """What a command has printed, and its exit code."""

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
    """Runs commands in a copy of a bake, whose files may be changed."""

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
        """Run `logto` with these words and variables. No secret is ever printed."""
        assert self._process.stdin
        assert self._process.stdout
        asked = {
            "words": words,
            "variables": self.variables | variables,
            # Only a Logto that has_fault may be given up for no more than a slow one.
            "seconds": 0.5 if self.logto.has_fault else 10,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the command ended with a traceback"
        done = CommandResult(*json.loads(answer))
        assert not [secret for secret in SECRETS if secret in done.text]
        return done

    def check(self, **variables: str) -> CommandResult:
        done = self("check", "--json", **variables)
        rows = done.checks.values()
        assert done.code == (0 if all(row["ok"] for row in rows) else 1)
        # Whatever is red says what to do.
        assert all(row["fix"] for row in rows if row["ok"] is False)
        return done

    def run_in_new_process(self, *words: str, **variables: str) -> CommandResult:
        """Run the framework's own command in a process of its own."""
        framework = str(self.project.answers["framework"])
        # The bakes share an environment in which none of them is installed. This is what an
        # installation adds to it.
        points = tomllib.loads(self.project.read("pyproject.toml"))["project"]["entry-points"]
        installed = self.path.parent / "installed/bookstore-0.1.0.dist-info"
        installed.mkdir(parents=True, exist_ok=True)
        lines = [
            f"[{group}]\n{n} = {point}\n" for group, e in points.items() for n, point in e.items()
        ]
        (installed / "entry_points.txt").write_text("".join(lines), "utf-8")
        (installed / "METADATA").write_text("Name: bookstore\nVersion: 0.1.0\n", "utf-8")
        path = os.pathsep.join([str(self.path), str(installed.parent)])
        variables = self.variables | {"PYTHONPATH": path} | variables
        done = self.project.attempt(framework, "logto", *words, **variables)
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
        return CommandResult(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def connector_file(self, content: str) -> Iterator[None]:
        """Another connectors/azure-ad.json for a while."""
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
    """Give the commands of a bake, with a Logto that runs until the end of the `with` block."""
    started = Commands(project, folder)
    started.logto.start()
    try:
        yield started
    finally:
        started.close()
