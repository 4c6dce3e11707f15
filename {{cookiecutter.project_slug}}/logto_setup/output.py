"""What the commands print, on any terminal."""

import os
import sys
from collections.abc import Iterable

import click

from app.server.logs import printable

from .check import Check

COLOURS = {True: "green", False: "red", None: "yellow"}


def say(text: str = "", colour: str | None = None) -> None:
    """Print a text, in colour on a terminal, with \\ escapes for what it cannot or must not show."""
    # Responses of Logto are in the text: no control sequences from there.
    text = "\n".join(printable(line, None) for line in text.split("\n"))
    encoding = sys.stdout.encoding or "ascii"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if colour and not os.environ.get("NO_COLOR"):
        text = click.style(text, fg=colour)
    click.echo(text)


def table(checks: Iterable[Check]) -> None:
    """Print one line for each check, and under a red one what to do."""
    signs = {True: "✓", False: "✗", None: "–"}
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        signs = {True: "OK", False: "!!", None: "--"}
    for check in checks:
        found, *more = check.found.splitlines()
        say(f"{signs[check.ok]:2} {check.label:24} {found}", COLOURS[check.ok])
        for line in [*more, *check.fix.splitlines()]:
            say(f"{'':27} {line.strip()}")
        if check.value:
            say(f"{'':31} {check.value}")
