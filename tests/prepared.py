"""Runs commands in forks of a process that has imported the packages of the apps already.

Importing them takes most of the time of a start. The files of a project are read anew each time.
"""

import functools
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGES = [
    *("environs", "flask.cli", "granian.cli", "httpx2", "joserfc.jwk", "jwt", "logto"),
    *("pythonjsonlogger.json", "quart.cli", "redis.asyncio", "secure"),
]
SCRIPTS = {
    "flask": "flask.cli:main",
    "granian": "granian.cli:entrypoint",
    "quart": "quart.cli:main",
}


@functools.cache
def prepared() -> Any:
    """Return the context of a process that imports the packages and starts each command as a fork.

    The process itself starts with the first command.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    return context


class Fork:
    """A command in a fork. The methods are those of subprocess.Popen that tests use.

    The command is `python -m` with a module of the project, or one of SCRIPTS.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
    ) -> None:
        arguments = (command, cwd, env, output, errors or output)
        self._process = prepared().Process(target=run, args=arguments)
        self._process.start()
        self.pid: int = self._process.pid
        # Wait until the process has its own group, to which tests send signals. By then, its files
        # exist, too. A short command may have ended already.
        with suppress(ProcessLookupError):
            while os.getpgid(self.pid) != self.pid:
                time.sleep(0.001)

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path, errors: Path
) -> None:
    """Run a command in this process, as a new process would with this folder and environment."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in ((1, output), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), stream)
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in env
    # granian forks its worker only with this method.
    multiprocessing.set_start_method("fork", force=True)
    # Without the folders of the tests.
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    if command[0] in SCRIPTS:
        sys.argv = list(command)
        sys.exit(pkgutil.resolve_name(SCRIPTS[command[0]])())
    python, option, module, *_ = command
    assert (python, option) == ("python", "-m"), command
    sys.path.insert(0, str(cwd))
    sys.argv = list(command[2:])
    runpy.run_module(module, run_name="__main__", alter_sys=True)
