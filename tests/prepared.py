"""Starts granian in a process that has imported the packages of the apps already.

Importing them takes most of the time of a start. The files of the app are read anew each time.
"""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

PACKAGES = [
    *("environs", "flask", "granian.cli", "httpx2", "joserfc.jwk", "jwt", "logto"),
    *("pythonjsonlogger.json", "quart", "redis.asyncio", "secure"),
]


@functools.cache
def prepared() -> ForkServerContext:
    """Start the process that imports the packages. Each granian is a fork of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    return context


class Granian:
    """A process that runs granian. Its methods are those of subprocess.Popen that tests use."""

    def __init__(
        self, options: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self._process = prepared().Process(target=run_granian, args=(options, cwd, env, log))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid
        while os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("granian", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def run_granian(options: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path) -> None:
    """Run granian in this process, as a new process would with this folder and environment."""
    from granian.cli import entrypoint

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in env
    # Without the folders of the tests.
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    multiprocessing.set_start_method("fork", force=True)
    sys.argv = ["granian", *options]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(entrypoint())  # type: ignore[no-untyped-call]
