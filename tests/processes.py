"""Real processes: started in a session of their own, and gone when the test is over."""

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

# They lie below those that systems give to outgoing connections, and each worker has its own
# part of them, so that nobody takes one between the moment it is given and the one it is used.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
PORTS = random.sample(range(16_000 + WORKER * 2000, 18_000 + WORKER * 2000), 2000)


def free_port() -> int:
    """A port of localhost that nobody listens on, and that was not given before."""
    while True:
        port = PORTS.pop()
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def is_taken(port: int) -> bool:
    """Whether somebody listens on this port of localhost."""
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return as soon as the condition holds. Raises AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


class Process:
    """A command that goes on until it is told to end."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        """All that it wrote so far, errors too."""
        return self._log.read_text("utf-8", errors="replace")

    def wait_for(
        self, url: str, seconds: float = 60, context: ssl.SSLContext | None = None
    ) -> None:
        """Return when the address answers, whatever it answers; `context` is for https.

        Raises AssertionError, with the output, when the process ends or the time is over.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"it ended early:\n{self.output}"
            try:
                urllib.request.urlopen(url, timeout=seconds, context=context).close()  # noqa: S310
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"{url} did not answer within {seconds} s:\n{self.output}")

    def wait_for_text(self, text: str, seconds: float = 60) -> None:
        """Return when the output holds the text.

        Raises AssertionError, with the output, when the process ends or the time is over.
        """
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self._process.poll() is None, f"it ended early:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    @property
    def process_ids(self) -> list[int]:
        """The ids of the process and of all that it started."""
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    @property
    def cpu_seconds(self) -> float:
        """Seconds of a core that it and all that it started have used so far."""
        ticks = 0
        for pid in self.process_ids:
            # Its name may hold spaces, and ends with the last bracket.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def press_ctrl_c(self) -> None:
        """Interrupt it and its children, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def send(self, number: int) -> None:
        """Send a signal to it alone, not to its children."""
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended.

        Raises subprocess.TimeoutExpired when it goes on for longer than that.
        """
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it and its children, whatever they are doing."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


@contextmanager
def running(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Process]:
    """Start a command; it and its children are killed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        with log.open("wb") as output:
            started = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(started, log)
        try:
            yield process
        finally:
            process.kill()
