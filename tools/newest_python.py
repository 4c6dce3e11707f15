"""Test the generated projects with the newest Python of Debian and the newest packages.

debootstrap puts Debian testing (or stable) into `build/newest`. There, Cookiecutter bakes the
smallest and the fullest project of each framework, and each project is installed and checked as its
own pipeline does it. With `--python`, the tests use a Python of this machine instead of Debian's.

A mirror or an index that does not respond is no failure: the last line says what was left out.
"""

import argparse
import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from answers import ROOT, TEMPLATE, Answers, everything
from repositories import NOT_COPIED

BUILD = ROOT / "build"
DEBIAN = BUILD / "newest"
SUITES = ("testing", "stable")
PACKAGES = "python3,python3-venv,ca-certificates"
OLDEST = (3, 13)
VERSION = "import sys; print(*sys.version_info[:2])"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
DAYS = 7
"""Days until the Debian in build/ is created again."""
TIME_LIMIT = 600
"""Seconds for one command."""
ISOLATED = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
"""Ends all processes of a command with it, and keeps its mounts from this machine."""
CHECKS = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("pytest", "-q"))


class UnavailableError(Exception):
    """The tests cannot run here. The message says why. This is no failure."""


class BrokenError(Exception):
    """A project is broken. The message has the output of the command."""


@dataclass
class Result:
    """How a command ended."""

    good: bool
    output: str

    @property
    def last_line(self) -> str:
        return (self.output.strip().splitlines() or ["no output"])[-1]


def attempt(*command: str) -> Result:
    """Run a command. If it takes longer than TIME_LIMIT, end it and all that it started."""
    if not shutil.which(command[0]):
        return Result(False, f"There is no {command[0]}.")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Result(False, f"{output}\nIt took longer than {TIME_LIMIT} seconds.")
    return Result(process.returncode == 0, output)


def index_settings() -> dict[str, str]:
    """Return pip's settings for its index, without local folders: the Debian does not have them."""
    taken = ("index-url", "extra-index-url", "trusted-host", "proxy")
    settings = {}
    for line in attempt(sys.executable, "-m", "pip", "config", "list").output.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in taken:
            urls = [word for word in ast.literal_eval(value).split() if word[:5] != "file:"]
            settings[f"PIP_{option.upper().replace('-', '_')}"] = " ".join(urls)
    return {name: value for name, value in settings.items() if value}


@dataclass
class Machine:
    """A Python, and a folder to work in: on this machine, or in a Debian below a folder of it."""

    python: str
    folder: Path
    """The folder to work in, as this machine names it."""
    root: Path | None = None
    """The root of the Debian."""
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variables = {
            "PATH": os.environ.get("PATH", os.defpath) if not self.root else "/usr/bin:/bin",
            "HOME": self.path("."),
            "LANG": "C.UTF-8",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_RETRIES": os.environ.get("PIP_RETRIES", "2"),
            "PIP_DEFAULT_TIMEOUT": "30",
            "NO_PROXY": "localhost,127.0.0.1,::1",
            **{k: v for k, v in os.environ.items() if k.upper().endswith("_PROXY")},
            **index_settings(),
        }
        bundle = Path("/") / CERTIFICATES
        if bundle.exists():
            self.variables |= {"PIP_CERT": str(bundle), "SSL_CERT_FILE": str(bundle)}

    def path(self, relative: str) -> str:
        """Return a path in the folder, as the commands name it."""
        path = self.folder / relative
        return str(Path("/", path.relative_to(self.root)) if self.root else path)

    def attempt(self, *command: str, within: str = ".") -> Result:
        """Run a command in a folder below the folder to work in."""
        pairs = [f"{name}={value}" for name, value in self.variables.items()]
        words = ["env", "-i", f"--chdir={self.path(within)}", *pairs, *command]
        if self.root:
            mounted = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
            words = [*ISOLATED, "sh", "-ec", mounted, str(self.root), *words]
        return attempt(*words)

    def run(self, *command: str, within: str = ".") -> str:
        """Run a command as `attempt` does, and return its output. Raises BrokenError."""
        done = self.attempt(*command, within=within)
        if not done.good:
            raise BrokenError(f"{within}: {' '.join(command)}\n{done.output}")
        return done.output

    def environment(self, name: str) -> str:
        """Make a virtual environment with the newest pip. Return the path of its Python."""
        self.run(self.python, "-m", "venv", "--clear", self.path(name))
        python = self.path(f"{name}/bin/python")
        self.install(python, "--upgrade", "pip")
        return python

    def install(self, python: str, *words: str, within: str = ".") -> None:
        """Install with pip.

        Raises UnavailableError if the index does not respond, and BrokenError if the index
        responds and pip fails twice.
        """
        command = [python, "-m", "pip", "install", "-q", *words]
        if not self.attempt(*command, within=within).good:
            probe = ["download", "-q", "--no-deps", "--no-cache-dir", "--dest", self.path("probe")]
            probed = self.attempt(python, "-m", "pip", *probe, "pip")
            if not probed.good:
                raise UnavailableError(f"The package index does not respond: {probed.last_line}")
            self.run(*command, within=within)


def mirror() -> list[str]:
    """Return the mirror of Debian that this machine uses, or nothing for debootstrap's own."""
    if not shutil.which("apt-get"):
        return []
    targets = ("Created-By: Packages", "Origin: Debian", "Component: main")
    sites = attempt("apt-get", "indextargets", "--format", "$(SITE)", *targets)
    return sites.output.split()[:1] if sites.good else []


def check_debootstrap() -> None:
    """Raise UnavailableError if this machine cannot make a Debian."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise UnavailableError("debootstrap needs Linux and root.")
    if not shutil.which("debootstrap"):
        raise UnavailableError("There is no debootstrap; to get it: apt-get install debootstrap")


def debootstrap(suite: str, folder: Path, packages: str) -> Result:
    """Make a Debian with these packages in an empty folder."""
    print(f"Making Debian {suite} in {folder} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["--variant=minbase", f"--include={packages}"]
    return attempt(*ISOLATED, "debootstrap", *options, suite, str(folder), *mirror())


def debian() -> Machine:
    """Put Debian into build/, if there is none that is new enough. Raises UnavailableError."""
    check_debootstrap()
    made = DEBIAN / ".made"
    reason = ""
    for suite in SUITES:
        if made.exists() and time.time() - made.stat().st_mtime < DAYS * 86400:
            break
        done = debootstrap(suite, DEBIAN, PACKAGES)
        python = attempt("chroot", str(DEBIAN), "python3", "-c", VERSION)
        if done.good and python.good and tuple(map(int, python.output.split())) >= OLDEST:
            made.touch()
            break
        reason = f"it has Python {python.last_line}" if done.good else done.last_line
    else:
        raise UnavailableError(f"debootstrap could not make a Debian: {reason}")
    # Copy the host names and the certificates of this machine.
    for name in (Path("etc/resolv.conf"), Path("etc/hosts"), CERTIFICATES):
        if (Path("/") / name).exists():
            shutil.copyfile(Path("/") / name, DEBIAN / name)
    machine = Machine("/usr/bin/python3", DEBIAN / "srv", DEBIAN)
    machine.folder.mkdir(exist_ok=True)
    probe = machine.attempt("true")
    if not probe.good:
        raise UnavailableError(f"No command can run in the Debian: {probe.last_line}")
    return machine


def projects(framework: str) -> Iterator[tuple[str, Answers]]:
    """Yield the smallest and the fullest project of a framework, with a name for its folder."""
    for on, size in ((False, "smallest"), (True, "fullest")):
        for answers in everything(on):
            if answers["framework"] == framework:
                yield f"{framework}-{size}", answers


def check(machine: Machine, framework: str) -> None:
    """Bake, install and check a framework's projects. Raises BrokenError and UnavailableError."""
    python = machine.environment(framework)
    for name, answers in projects(framework):
        begun = time.monotonic()
        bake = [f"{question}={answer}" for question, answer in answers.items()]
        bake += ["project_slug=project", "--no-input", "--output-dir", name]
        machine.run(machine.path("tools/bin/cookiecutter"), "template", *bake)
        within = f"{name}/project"
        machine.install(python, "-e", ".", "--group", "dev", within=within)
        for words in CHECKS:
            # As in .ci/run: the machine may be busy, so failed tests run once more.
            if words[0] == "pytest" and machine.attempt(python, "-m", *words, within=within).good:
                continue
            again = ["--last-failed"] if words[0] == "pytest" else []
            machine.run(python, "-m", *words, *again, within=within)
        listed = machine.run(python, "-m", "pip", "list", "--format", "freeze").splitlines()
        versions = [line for line in listed if line.lower().split("==")[0] in (framework, "logto")]
        print(f"{name}: passed in {time.monotonic() - begun:.0f} s,", *versions, flush=True)


def check_all(machine: Machine) -> None:
    """Check both frameworks, side by side. Raises BrokenError and UnavailableError."""
    shutil.rmtree(machine.folder, ignore_errors=True)
    template = machine.folder / "template"
    template.mkdir(parents=True)
    shutil.copy(ROOT / "cookiecutter.json", template)
    for folder in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(folder, template / folder.name, ignore=NOT_COPIED)
    print(machine.run(machine.python, "--version").strip(), flush=True)
    machine.install(machine.environment("tools"), "--upgrade", "cookiecutter")
    frameworks = sorted({str(answers["framework"]) for answers in everything(on=True)})
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(check, machine, framework) for framework in frameworks]
    reasons = [one.exception() for one in checks]
    for kind in (BrokenError, UnavailableError):
        for reason in reasons:
            if isinstance(reason, kind):
                raise reason
    for one in checks:
        one.result()


def main() -> int:
    """Return the exit status: 1 if a project is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="a Python of this machine, instead of Debian's")
    options = parser.parse_args()
    try:
        python = options.python and shutil.which(options.python)
        if options.python and not python:
            parser.error(f"there is no {options.python}")
        check_all(Machine(python, BUILD / "newest-here") if python else debian())
    except BrokenError as failure:
        print(f"Failed with the newest Python. {failure}")
        return 1
    except UnavailableError as reason:
        print(f"Left out: the generated projects with the newest Python. {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
