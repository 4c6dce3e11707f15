"""The blocks of code in the README and in docs/recipes.md, and what a reader does with them."""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
# "# app/pages.py" or "{# app/api.py, below the text of a line #}".
PLACE = re.compile(
    r"(?:#|\{#) (?P<file>[\w./]+)(?:, (?P<side>above|below) (?P<line>.+?))?(?: #\})?"
)
IMPORTS = re.compile(r"(?:(?:from .+ )?import .+\n|\n)*")
CODE = ("python", "html", "ini")
"""The languages whose blocks are pasted into a file that their first line names."""


@dataclass(frozen=True)
class Block:
    """A block of code, and the `##` section that it is in."""

    section: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.section}: {self.text[:60]!r}"

    def paste(self, project: Path) -> None:
        """Put the block at the place in its first line. Raises AssertionError if that fails."""
        first, _, rest = self.text.partition("\n")
        place = PLACE.fullmatch(first)
        assert place, f"{self} names no file"
        path = project / place["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8") if path.exists() else ""
        if self.language == "ini":
            text = with_variables(text, rest)
        elif self.language == "python":
            imports = IMPORTS.match(rest)
            assert imports
            text = with_imports(text, imports[0].strip())
            text = with_code(text, rest[imports.end() :], place["side"], place["line"], str(self))
        else:
            assert place["side"] or not text, f"{path} exists already, and {self} names no line"
            text = with_code(text, rest, place["side"], place["line"], str(self))
        path.write_text(text, "utf-8")


PAGES = ("README.md", "docs/recipes.md")


def blocks(folder: Path) -> Iterator[Block]:
    """Read all blocks of the pages of a project, in their order."""
    text = "\n".join((folder / page).read_text("utf-8") for page in PAGES)
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        for found in BLOCK.finditer(section):
            title = section.partition("\n")[0]
            yield Block(title, found["language"], textwrap.dedent(found["text"]))


def with_variables(text: str, lines: str) -> str:
    """Set the variables of `.env`, each in place of the line that it has already."""
    for line in lines.splitlines():
        name = line.partition("=")[0]
        text = re.sub(rf"^{name}=.*\n", "", text, flags=re.M) + f"{line}\n"
    return text


def with_imports(text: str, imports: str) -> str:
    """Add imports below those that a file has."""
    lines = text.splitlines(keepends=True)
    found = [
        node.end_lineno or 0
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    end = max(found, default=0)
    return "".join([*lines[:end], f"{imports}\n" if imports else "", *lines[end:]])


def with_code(text: str, code: str, side: str | None, line: str | None, what: str) -> str:
    """Add code above or below the one line that has this text, or at the end."""
    if not line:
        return f"{text}\n\n{code}" if text else code
    lines = text.splitlines(keepends=True)
    numbers = [number for number, each in enumerate(lines) if line in each]
    assert len(numbers) == 1, f"{len(numbers)} lines for {what}"
    number = numbers[0]
    indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
    number += side == "below"
    return "".join(
        [*lines[:number], textwrap.indent(textwrap.dedent(code), indent), *lines[number:]]
    )
