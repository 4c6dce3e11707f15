"""The Python versions that are installed on this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

VERSIONS = ["3.11", "3.12", "3.13", "3.14"]


def interpreter(version: str) -> str:
    """Return the path of a Python of this version, or skip the test if there is none."""
    candidates = [shutil.which(f"python{version}")]
    candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in filter(None, candidates):
        # The program on the path may be a shim of pyenv without this version, so run it.
        done = subprocess.run([candidate, "--version"], capture_output=True, check=False)
        if done.stdout.startswith(f"Python {version}.".encode()):
            return candidate
    pytest.skip(f"not installed: Python {version}")
