"""The Pythons that there are on this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

VERSIONS = ["3.11", "3.12", "3.13", "3.14"]


def interpreter(version: str) -> str:
    """The path of a Python of this version; without one, the test is left out."""
    candidates = [shutil.which(f"python{version}")]
    candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in filter(None, candidates):
        # What is on the path may be a shim that only says where it looked.
        done = subprocess.run([candidate, "--version"], capture_output=True, check=False)
        if done.stdout.startswith(f"Python {version}.".encode()):
            return candidate
    pytest.skip(f"no Python {version} here")
