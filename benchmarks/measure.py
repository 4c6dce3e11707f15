"""Rounds, load and medians. Values that are compared are measured in turns, in one run."""

import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 8

# Each request has another cookie. The step is a prime, so the cookies are spread over the store.
MANY_COOKIES = """
local number, count = 0, tonumber(os.getenv("COOKIES"))
request = function()
  number = (number + 611953) % count
  local cookie = string.format("%s=%043d", os.getenv("COOKIE_NAME"), number)
  return wrk.format("GET", "/", {["Cookie"] = cookie})
end
"""


@dataclass
class Section:
    """One section of the results: a title, a table and notes."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        table = [self.columns, ["---"] * len(self.columns), *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"## {self.title}\n\n" + "\n".join(lines) + "\n" + notes


@dataclass(frozen=True)
class Load:
    """The result of one round of load."""

    per_second: float
    generator_cores: float
    """The part of one core that wrk used."""


def in_turns(
    measures: Mapping[str, Callable[[], float]], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Call every function once in each round, and return its values, one per round."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def against(value: float, target: str, holds: bool) -> str:
    """Return a ratio as text, with its target and whether it reaches the target."""
    return f"**{value:.2f}** ({target}: {'yes' if holds else 'no'})"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median as text, with the lowest and the highest value."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def seconds(action: Callable[[], object]) -> float:
    """Return how many seconds an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def load(
    url: str,
    cookie: str = "",
    *,
    cookie_name: str = "",
    cookies: int = 0,
    headers: Sequence[str] = (),
) -> Load:
    """Request a page again and again for SECONDS, from a separate process.

    With a cookie name, each request sends one of `cookies` cookies: the numbers from 0, in 43 digits.
    Raises RuntimeError if a response is not a success.
    """
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{SECONDS}s"]
    sent = [f"Cookie: {cookie}"] if cookie else []
    for header in [*sent, *headers]:
        command += ["--header", header]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if cookie_name:
            script.write(MANY_COOKIES)
            script.flush()
            command += ["--script", script.name]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, url],
            env=os.environ | {"COOKIE_NAME": cookie_name, "COOKIES": str(cookies)},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(float(found[1]), processor / SECONDS)


def machine() -> str:
    """Return a line about this machine."""
    model = "unknown processor"
    if (cpus := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*: (.*)$", cpus.read_text("utf-8"), re.MULTILINE)
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    wrk = subprocess.run(["wrk", "--version"], capture_output=True, encoding="utf-8").stdout
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; {platform.system()} "
        f"{platform.release()}; Python {sys.version.split()[0]}; {wrk.split(' [')[0].strip()}"
    )


def need(program: str) -> None:
    """Exit with a message if a program is not installed."""
    if not shutil.which(program):
        sys.exit(f"{program} is not installed. On Debian: apt-get install {program}")
