"""Runs the tools of this repository after a change that a test makes."""

import subprocess
import sys

from answers import ROOT
from conftest import environment


def run_tool(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this code with these arguments. The code can import the tools."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(PYTHONPATH=f"{ROOT / 'tools'}:{ROOT / 'tests'}", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
