"""Runs of the tools in this repository, changed by a test before they start."""

import subprocess
import sys

from answers import ROOT
from conftest import environment


def run_tool(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this code, which can import the tools, with these words as arguments."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(PYTHONPATH=f"{ROOT / 'tools'}:{ROOT / 'tests'}", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
