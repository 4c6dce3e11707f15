"""Processes for tests. Each has a separate session and is killed at the end of the test."""

import os
import random
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prepared import Fork

# Another process could take a free port before the test uses it. So these ports are below the
# range for outgoing connections, and each worker has a separate part of them.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
PORTS = random.sample(range(16_000 + WORKER * 2000, 18_000 + WORKER * 2000), 2000)


def free_port() -> int:
    """Return a free port of localhost, a different one at each call."""
    while True:
        port = PORTS.pop()
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def is_taken(port: int) -> bool:
    """Return whether a process listens on this port of localhost."""
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until the condition is true. Raises AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {seconds} s"
        time.sleep(0.01)


class Process:
    """A command that runs until a test stops it."""

    def __init__(self, process: subprocess.Popen[bytes] | Fork, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        """The output of the process so far, including standard error."""
        return self._log.read_text("utf-8", errors="replace")

    def wait_for(
        self, url: str, seconds: float = 60, context: ssl.SSLContext | None = None
    ) -> None:
        """Wait until the URL responds, with any status. `context` is for https.

        Raises AssertionError, with the output, when the process ends or the time is over.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the process ended early:\n{self.output}"
            try:
                urllib.request.urlopen(url, timeout=seconds, context=context).close()  # noqa: S310
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"{url} did not respond within {seconds} s:\n{self.output}")

    def wait_for_text(self, text: str, seconds: float = 60) -> None:
        """Wait until the output contains the text.

        Raises AssertionError, with the output, when the process ends or the time is over.
        """
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self._process.poll() is None, f"the process ended early:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    @property
    def process_ids(self) -> list[int]:
        """The IDs of the process and of all its descendants."""
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    @property
    def cpu_seconds(self) -> float:
        """The CPU time in seconds that the process and its descendants have used so far."""
        ticks = 0
        for pid in self.process_ids:
            # The second field is the name in brackets. It may contain spaces and brackets.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def press_ctrl_c(self) -> None:
        """Send SIGINT to the process and its children, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def send(self, number: int) -> None:
        """Send a signal to the process, but not to its children."""
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 30) -> int:
        """Wait for the end of the process and return its exit code.

        Raises subprocess.TimeoutExpired when the process runs longer than `seconds`.
        """
        return self._process.wait(seconds)

    def kill(self) -> None:
        """Kill the process and its children."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def new_process(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path
) -> subprocess.Popen[bytes]:
    """Start a command in a new session. It writes all its output into this file."""
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def running(
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    start: Callable[..., subprocess.Popen[bytes] | Fork] = new_process,
) -> Iterator[Process]:
    """Start a command. At the end of the `with` block, kill the process and its children.

    `start` is `new_process` or, in less time and for fewer commands, `Fork`.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        process = Process(start(command, cwd, env, log), log)
        try:
            yield process
        finally:
            process.kill()
