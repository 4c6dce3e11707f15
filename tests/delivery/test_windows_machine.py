"""`make test-windows` names what a machine lacks, and fails if a file differs on Windows."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tool_runs import run_tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tool runs on Linux")

# Run the tool with another folder, so that it makes no files in build/ of this repository.
RUN = """
import pathlib, sys
import newest_python, windows
windows.BUILD = pathlib.Path(sys.argv.pop(1))
windows.Windows.root = windows.BUILD / "debian"
windows.Windows.drive = windows.BUILD / "c"
windows.platform.machine = lambda: "x86_64"
newest_python.os.geteuid = lambda: 0
newest_python.ISOLATED = windows.ISOLATED = []
{change}
sys.exit(windows.main())
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the tool. `change` is code that changes the tool first."""

    def run(change: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return run_tool(RUN.format(change=change), str(tmp_path / "build"), **variables)

    return run


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make a folder with the only programs that the tool can find."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "chroot"):
        if found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            (folder / name).symlink_to(found)
    return folder


def skip_reason(done: subprocess.CompletedProcess[str]) -> str:
    """Check that the tool skipped its work without a failure, and return the reason."""
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Left out: the generated projects on Windows.")
    return last


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("newest_python.os.geteuid = lambda: 1000", "debootstrap needs Linux and root."),
        ("windows.platform.machine = lambda: 'aarch64'", "of the kind x86_64"),
        ("", "There is no debootstrap; to get it: apt-get install debootstrap"),
    ],
    ids=["no root", "no x86", "no debootstrap"],
)
def test_a_machine_without_the_requirements_is_no_failure(
    run: Run, programs: Path, change: str, reason: str
) -> None:
    assert reason in skip_reason(run(change, PATH=str(programs)))


@pytest.mark.parametrize(
    ("debootstrap", "reason"),
    [
        ("echo 'E: Failed getting release file'; exit 1", "E: Failed getting release file"),
        # This makes a Debian without a shell, so no command can run in it.
        (
            'for word; do case $word in /*) mkdir -p "$word/etc" ;; esac; done',
            "Wine does not start",
        ),
    ],
    ids=["no mirror", "no Wine"],
)
def test_a_windows_that_cannot_be_made_is_no_failure(
    run: Run, programs: Path, debootstrap: str, reason: str
) -> None:
    (programs / "mkdir").symlink_to(str(shutil.which("mkdir")))
    (programs / "debootstrap").write_text(f"#!/bin/sh\n{debootstrap}\n")
    (programs / "debootstrap").chmod(0o755)
    assert reason in skip_reason(run(PATH=str(programs)))


# Use the Cookiecutter of this machine instead of Windows, and run no other command.
WITHOUT_WINDOWS = """
def bake(self, command, *words, **options):
    if not command.endswith("cookiecutter.exe"):
        return ""
    folder = self.here(words[words.index("--output-dir") + 1])
    windows.cookiecutter(
        str(windows.ROOT), no_input=True, output_dir=str(folder), accept_hooks=False,
        default_config=True, extra_context=dict(word.split("=", 1) for word in words[4:]),
    )
    pages = folder / "project/app/pages.py"
    pages.write_bytes(pages.read_bytes() + {added!r})
    return "is ready. Run it in PowerShell"

windows.Windows.run = bake
windows.set_up = windows.Windows
windows.download_wheels = windows.check_older_python = lambda machine: None
windows.check_project = lambda machine, framework: None
"""


@pytest.mark.parametrize("added", [b"", b"\r"], ids=["the same", "another line ending"])
def test_a_file_that_differs_on_windows_is_a_failure(run: Run, added: bytes) -> None:
    done = run(WITHOUT_WINDOWS.format(added=added))
    assert done.returncode == bool(added), done.stdout + done.stderr
    assert ("These files differ: ['project/app/pages.py']" in done.stdout) is bool(added)
    assert ("Windows: everything passed" in done.stdout) is not bool(added)
