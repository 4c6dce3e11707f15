"""Checks of every bake, for every combination of answers."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from answers import (
    FILLED,
    ROOT,
    TEMPLATE,
    Answer,
    Answers,
    every_combination,
    everything,
    identifier,
    is_off,
    options,
)
from conftest import Bake, baked_without_hooks

# One worker runs these tests, so that each combination is baked only once.
pytestmark = pytest.mark.xdist_group("bakes")

# Files with the Jinja of the app. A bake does not change them.
APP_JINJA = ["dev/templates/*", "app/templates/*"]

# GitHub workflows contain ${{ ... }}. The name cookiecutter-logto may be in any file.
LEFTOVER = re.compile(r"(?<!\$)\{\{|\{%|\{#|cookiecutter(?!-logto)")

HTML_BLOCK = re.compile(r"^```html$.*?^```$", re.DOTALL | re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)

# Words that only a bake with this answer may contain, in its text or its file names.
TRACES: dict[tuple[str, Answer], list[str]] = {
    ("framework", "flask"): ["from flask", "flask run", "flask[async]"],
    ("framework", "quart"): ["quart"],
    ("api_resource", FILLED["api_resource"]): [
        "logto_api_resource",
        FILLED["api_resource"],
        "/api/me",
        "app/api.py",
        "access_token_required",
    ],
    ("use_docker", True): ["docker", "compose.yaml"],
    ("ci", "github"): [".github/", "dependabot"],
    ("ci", "gitlab"): ["gitlab"],
    ("catalog_owner", FILLED["catalog_owner"]): [
        "backstage",
        "mkdocs.yml",
        "techdocs",
        FILLED["catalog_owner"],
    ],
}


class BakedFile(NamedTuple):
    """A text file in one or more bakes."""

    name: str
    text: str
    bake: str
    """The first bake that has this file."""

    def __str__(self) -> str:
        return f"{self.name} in {self.bake}"


@pytest.fixture(scope="module")
def files(bake: Bake) -> list[BakedFile]:
    """Return all text files of all bakes. A file that is the same in several bakes counts once."""
    found = {}
    for answers in every_combination():
        for name, content in bake(**answers).contents.items():
            if (name, content) not in found and b"\0" not in content:
                found[name, content] = BakedFile(name, content.decode(), identifier(answers))
    return list(found.values())


def named(files: list[BakedFile], *patterns: str) -> list[BakedFile]:
    """Return the files whose names match one of the patterns."""
    return [file for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]


def test_the_python_files_parse(files: list[BakedFile]) -> None:
    for file in named(files, "*.py"):
        ast.parse(file.text, str(file))


@pytest.mark.parametrize(
    ("pattern", "parse"),
    [
        ("*.toml", tomllib.loads),
        ("*.json", json.loads),
        ("*.y*ml", lambda text: list(yaml.compose_all(text))),
    ],
    ids=["TOML", "JSON", "YAML"],
)
def test_the_data_files_parse(
    files: list[BakedFile], pattern: str, parse: Callable[[str], object]
) -> None:
    for file in named(files, pattern):
        try:
            parse(file.text)
        except (ValueError, yaml.YAMLError) as error:
            pytest.fail(f"{file}: {error}")


def test_no_template_syntax_is_left(files: list[BakedFile]) -> None:
    faults = []
    for file in files:
        has_app_jinja = any(fnmatch(file.name, pattern) for pattern in APP_JINJA)
        # The documentation shows examples of pages, which contain the Jinja of the app.
        text = HTML_BLOCK.sub("", file.text) if file.name.endswith(".md") else file.text
        text = file.name if has_app_jinja else f"{file.name}\n{text}"
        faults += [f"{file}: {line}" for line in text.splitlines() if LEFTOVER.search(line)]
    assert not faults, "\n".join(faults)


def test_no_file_is_empty(files: list[BakedFile]) -> None:
    assert [str(file) for file in files if not file.text.strip()] == []


def test_no_folder_is_empty(bake: Bake) -> None:
    for answers in every_combination():
        project = bake(**answers)
        used = {parent for name in project.contents for parent in Path(name).parents}
        assert project.folders <= used


def test_text_files_have_no_stray_whitespace(files: list[BakedFile]) -> None:
    rules = {
        "a trailing space or tab": re.compile(r"[ \t]+$", re.MULTILINE),
        "a carriage return": re.compile(r"\r"),
        "a tab": re.compile(r"\t"),
        "a blank line at the start": re.compile(r"\A\n"),
        "no newline at the end": re.compile(r"[^\n]\Z"),
        "a blank line at the end": re.compile(r"\n\n\Z"),
    }
    faults = []
    for file in files:
        # A code block in a README may have two blank lines, as Python files have.
        text = CODE_BLOCK.sub(lambda block: block[0].replace("\n\n", "\n|\n"), file.text)
        blank_lines = 2 if file.name.endswith(".py") else 1
        too_many = re.compile("\n" * (blank_lines + 2))
        for fault, pattern in {**rules, "too many blank lines": too_many}.items():
            if found := pattern.search(text):
                line = text.count("\n", 0, found.start()) + 1
                faults.append(f"{file}, line {line}: {fault}")
    assert not faults, "\n".join(faults)


def is_copied(name: str, content: bytes) -> bool:
    """Return whether a file of a bake has the same name and content in the template."""
    return (TEMPLATE / name).is_file() and (TEMPLATE / name).read_bytes() == content


def test_an_answer_that_was_not_given_leaves_no_trace(bake: Bake) -> None:
    faults = set()
    for answers in every_combination():
        forbidden = {
            word: question
            for (question, answer), words in TRACES.items()
            if answers[question] != answer
            for word in words
        }
        for name, content in bake(**answers).contents.items():
            # The local Logto is the same in every bake: a Flask app that supports API resources.
            if name.startswith("dev/") and is_copied(name, content):
                continue
            text = f"{name}\n{content.decode(errors='replace')}".lower()
            for word, question in forbidden.items():
                if word in text:
                    faults.add(f"{name} contains {word!r} without {question}")
    assert not faults, "\n".join(sorted(faults))


@pytest.mark.parametrize(("question", "answer"), TRACES)
def test_an_answer_that_was_given_puts_its_words_into_the_bake(
    bake: Bake, question: str, answer: Answer
) -> None:
    contents = bake(**{**everything(on=True)[0], question: answer}).contents
    whole = "\n".join(
        f"{name}\n{content.decode(errors='replace')}" for name, content in contents.items()
    ).lower()
    for word in TRACES[question, answer]:
        assert word in whole


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (question, answer)
        for question, answers in options().items()
        for answer in answers
        if not is_off(answer)
    ],
)
def test_every_answer_that_changes_the_bake_is_in_the_list_of_traces(
    bake: Bake, question: str, answer: Answer
) -> None:
    bare = everything(on=False)[0]
    if bake(**{**bare, question: answer}).contents != bake(**bare).contents:
        assert (question, answer) in TRACES


@pytest.mark.parametrize("answers", every_combination(), ids=identifier)
def test_the_hooks_change_no_byte(bake: Bake, answers: Answers, tmp_path: Path) -> None:
    assert baked_without_hooks(answers, tmp_path).contents == bake(**answers).contents


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_finds_nothing_in_any_bake(bake: Bake, command: list[str]) -> None:
    projects = [str(bake(**answers).path) for answers in every_combination()]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *projects],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_git_tracks_every_file_of_the_template() -> None:
    # The .gitignore of the project also applies in this repository, and ignores .env.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", TEMPLATE.name],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this folder is not a git checkout")
    tracked = {name for name in listed.stdout.split("\0") if name}
    files = {path.relative_to(ROOT).as_posix() for path in TEMPLATE.rglob("*") if path.is_file()}
    assert sorted(files ^ tracked) == []
