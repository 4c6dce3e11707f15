"""What every bake must be, for every combination of answers."""

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
    SETTINGS,
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

# One worker bakes them all, once.
pytestmark = pytest.mark.xdist_group("bakes")

# The app's own Jinja, which comes out of the bake as it went in.
OWN_JINJA = [*SETTINGS["_copy_without_render"], "app/templates/*"]

# A pipeline writes ${{ ... }}, and that is its own. Cookiecutter and the template may be named.
LEFTOVER = re.compile(r"(?<!\$)\{\{|\{%|\{#|cookiecutter(?!-logto)")

HTML_BLOCK = re.compile(r"^```html$.*?^```$", re.DOTALL | re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)

# The words that only a bake with this answer may hold, in its text or its file names.
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
    """A text file as one or more bakes have it."""

    name: str
    text: str
    bake: str
    """Which bake has it; the first of them, when there are more."""

    def __str__(self) -> str:
        return f"{self.name} in {self.bake}"


@pytest.fixture(scope="module")
def files(bake: Bake) -> list[BakedFile]:
    """All text files of all bakes; one that is the same in several of them counts once."""
    found = {}
    for answers in every_combination():
        for name, content in bake(**answers).contents.items():
            if (name, content) not in found and b"\0" not in content:
                found[name, content] = BakedFile(name, content.decode(), identifier(answers))
    return list(found.values())


def named(files: list[BakedFile], *patterns: str) -> list[BakedFile]:
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


def test_nothing_of_the_template_is_left(files: list[BakedFile]) -> None:
    faults = []
    for file in files:
        own = any(fnmatch(file.name, pattern) for pattern in OWN_JINJA)
        # The documentation shows pages, which are in the app's own Jinja.
        text = HTML_BLOCK.sub("", file.text) if file.name.endswith(".md") else file.text
        text = file.name if own else f"{file.name}\n{text}"
        faults += [f"{file}: {line}" for line in text.splitlines() if LEFTOVER.search(line)]
    assert not faults, "\n".join(faults)


def test_no_file_is_empty(files: list[BakedFile]) -> None:
    assert [str(file) for file in files if not file.text.strip()] == []


def test_no_folder_is_empty(bake: Bake) -> None:
    for answers in every_combination():
        project = bake(**answers)
        used = {parent for name in project.contents for parent in Path(name).parents}
        assert project.folders <= used


def test_the_white_space_is_that_of_a_careful_hand(files: list[BakedFile]) -> None:
    rules = {
        "a trailing blank": re.compile(r"[ \t]+$", re.MULTILINE),
        "a carriage return": re.compile(r"\r"),
        "a tab": re.compile(r"\t"),
        "a blank line at the start": re.compile(r"\A\n"),
        "no newline at the end": re.compile(r"[^\n]\Z"),
        "a blank line at the end": re.compile(r"\n\n\Z"),
    }
    faults = []
    for file in files:
        # Code in a README has blank lines as code has.
        text = CODE_BLOCK.sub(lambda block: block[0].replace("\n\n", "\n|\n"), file.text)
        blank_lines = 2 if file.name.endswith(".py") else 1
        too_many = re.compile("\n" * (blank_lines + 2))
        for fault, pattern in {**rules, "too many blank lines": too_many}.items():
            if found := pattern.search(text):
                line = text.count("\n", 0, found.start()) + 1
                faults.append(f"{file}, line {line}: {fault}")
    assert not faults, "\n".join(faults)


def is_copied(name: str, content: bytes) -> bool:
    """Whether a file of a bake is as it is in the template, name and all."""
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
            # The local Logto is the same beside every app: a Flask app that knows resources.
            if name.startswith("dev/") and is_copied(name, content):
                continue
            text = f"{name}\n{content.decode(errors='replace')}".lower()
            for word, question in forbidden.items():
                if word in text:
                    faults.add(f"{name} says {word!r} without {question}")
    assert not faults, "\n".join(sorted(faults))


@pytest.mark.parametrize(("question", "answer"), TRACES)
def test_an_answer_that_was_given_shows(bake: Bake, question: str, answer: Answer) -> None:
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
def test_an_answer_that_adds_something_has_its_words_in_the_list_of_traces(
    bake: Bake, question: str, answer: Answer
) -> None:
    bare = everything(on=False)[0]
    if bake(**{**bare, question: answer}).contents != bake(**bare).contents:
        assert (question, answer) in TRACES


@pytest.mark.parametrize("answers", every_combination(), ids=identifier)
def test_the_hooks_change_no_byte(bake: Bake, answers: Answers, tmp_path: Path) -> None:
    assert baked_without_hooks(answers, tmp_path).contents == bake(**answers).contents


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_has_nothing_to_say_about_any_bake(bake: Bake, command: list[str]) -> None:
    projects = [str(bake(**answers).path) for answers in every_combination()]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *projects],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_git_tracks_every_file_of_the_template() -> None:
    # The project's own .gitignore acts here as well, and hides its .env.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", TEMPLATE.name],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    tracked = {name for name in listed.stdout.split("\0") if name}
    files = {path.relative_to(ROOT).as_posix() for path in TEMPLATE.rglob("*") if path.is_file()}
    assert sorted(files ^ tracked) == []
