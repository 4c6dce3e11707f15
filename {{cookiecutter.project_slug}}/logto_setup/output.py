"""The output of the commands, for every kind of terminal."""

import os
import shutil
import sys
from textwrap import TextWrapper

import click

from app.server.logs import printable

from .check import Check

COLOURS = {True: "green", False: "red", None: "yellow"}
WORDS = {True: "right", False: "wrong", None: "not checked"}


def say(text: str = "", colour: str | None = None) -> None:
    """Print a text, in colour on a terminal. Escape characters that it cannot or must not show."""
    # The text can quote a response of Logto, so escape its control characters.
    text = "\n".join(printable(line, None) for line in text.split("\n"))
    encoding = sys.stdout.encoding or "ascii"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    plain = not colour or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    click.echo(text if plain else click.style(text, fg=colour))


def table(checks: list[Check]) -> None:
    """Print a line for each check, and below a red line the fix. The last line has the counts."""
    signs = {True: "✓", False: "✗", None: "–"}
    if not "✓✗".encode(sys.stdout.encoding or "ascii", "ignore"):
        signs = {True: "OK", False: "!!", None: "--"}
    width, indent = shutil.get_terminal_size((10_000, 24)).columns, " " * 28  # A pipe has no width.
    wrap = TextWrapper(width, "", indent, break_long_words=False, break_on_hyphens=False).fill
    for check in checks:
        first, *more = [*check.found.splitlines(), *check.fix.splitlines()]
        say(wrap(f"{signs[check.ok]:2} {check.label:24} {first}"), COLOURS[check.ok])
        for line in more:
            say(wrap(indent + line.strip()))
        if check.value:
            say(f"{indent}    {check.value}")
    found = [check.ok for check in checks]
    parts = [f"{found.count(ok)} {word}" for ok, word in WORDS.items() if ok in found]
    say(f"{len(checks)} checks: {', '.join(parts)}")
