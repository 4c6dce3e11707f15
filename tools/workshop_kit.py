"""Put everything that a workshop without a network needs into one folder.

The folder holds the workshop's text, the template as `cookiecutter-logto.zip` and, under `wheels/`,
Cookiecutter and every package that a Flask or Quart project depends on, for each given system and
Python.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = {
    "windows": ["win_amd64"],
    "macos": ["macosx_11_0_arm64"],
    "linux": ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"],
}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Packages that pip needs to install a project in editable mode, and packages that only Windows or
# Python before 3.11.3 needs. pip would leave them out: it reads the markers of this machine.
BESIDES = ["cookiecutter", "pip", "hatchling", "editables", "colorama", "async-timeout"]


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def download(wheels: Path, packages: list[str], *target: str) -> None:
    """Download the packages and their dependencies. `target` has pip's options for the system."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--dest", str(wheels)]
    run(*pip, "--only-binary=:all:", *target, *packages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "workshop")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--pythons", nargs="*", default=PYTHONS)
    options = parser.parse_args()

    wheels = options.folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "docs" / "workshop.md", options.folder)
    template = options.folder / "cookiecutter-logto.zip"
    run("git", "archive", "--prefix=cookiecutter-logto/", f"--output={template}", "HEAD")

    packages = BESIDES + run(sys.executable, "tests/requirements.py").splitlines()
    print("Downloading for this machine ...", flush=True)
    download(wheels, packages)
    for system in options.systems:
        platforms = [word for name in SYSTEMS[system] for word in ("--platform", name)]
        for python in options.pythons:
            print(f"Downloading for {system}, Python {python} ...", flush=True)
            download(wheels, packages, "--python-version", python, *platforms)
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    print(f"{options.folder}: {size / 1e6:.0f} MB. Copy it to every laptop.")


if __name__ == "__main__":
    main()
