"""The questions: each has a label, a rule and an accepted default, and handles every answer."""

import re
import tomllib
from typing import Any

import pytest
from answers import SETTINGS, everything
from conftest import Bake
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rendered_hooks import all_variables, import_hook

QUESTIONS = [name for name in SETTINGS if not name.startswith("_")]
PROMPTS = SETTINGS["__prompts__"]
CHECK = import_hook("pre_gen_project", all_variables())

# Other tests may slow the machine down.
UNHURRIED = settings(deadline=None, max_examples=50)

ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.text(st.characters()),
    st.text('/:.?#[]@{}%"\\ abc'),
    st.booleans(),
    st.none(),
    st.integers(),
)
# A user config can contain a table instead of a text. Cookiecutter itself checks only choices.
ANSWERS = {
    name: ANYTHING if isinstance(default, list) else ANYTHING | st.just({"a": "table"})
    for name, default in SETTINGS.items()
    if name in QUESTIONS
}


def test_the_rules_and_the_prompts_have_the_order_of_the_questions() -> None:
    assert list(CHECK.RULES) == QUESTIONS
    assert list(PROMPTS) == QUESTIONS


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_reads_like_a_field_of_a_form(question: str) -> None:
    prompt, default = PROMPTS[question], SETTINGS[question]
    labels = prompt if isinstance(default, list) else {"__prompt__": prompt}
    assert labels["__prompt__"].startswith(CHECK.RULES[question].label)
    assert list(labels)[1:] == (default if isinstance(default, list) else [])
    # Cookiecutter prints the number of the question first. A terminal has 80 columns.
    assert max(map(len, f"  [11/11] {labels['__prompt__']}".splitlines())) < 80
    # Cookiecutter would read words in brackets as styles and would not print them.
    assert not re.search(r"[\[\]]", "".join(labels.values()))


def test_the_defaults_are_accepted() -> None:
    assert CHECK.rejected(all_variables()) == []


def test_the_examples_are_accepted() -> None:
    for rule in CHECK.RULES.values():
        example = {"true": True}.get(rule.example, rule.example)
        assert CHECK.accepts(rule, example)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Bookstore", "bookstore"),
        ("Books & Maps", "books-maps"),
        ("Книги", "knigi"),
        ("3D shop", "app-3d-shop"),
        ("📚", "app"),
        ("Flask", "app-flask"),
        ("Con", "app-con"),
        ("北" * 60, "bei-" * 15 + "bei"),
        ("9" + "x" * 59, "app-9" + "x" * 58),
    ],
)
def test_the_slug_follows_the_name(name: str, slug: str) -> None:
    variables = all_variables(project_name=name)
    assert variables["project_slug"] == slug
    assert CHECK.rejected(variables) == []


@UNHURRIED
@given(st.from_regex(CHECK.RULES["project_name"].pattern, fullmatch=True))
def test_any_good_name_gives_a_good_slug_and_app_id(name: str) -> None:
    assert CHECK.rejected(all_variables(project_name=name)) == []


@UNHURRIED
@given(st.fixed_dictionaries({}, optional=ANSWERS))
@example({"callback_url": ""})
@example({"callback_url": "http://[::1"})
@example({"project_name": {}, "project_slug": {}, "logto_endpoint": {}, "callback_url": {}})
def test_the_check_reports_every_bad_answer_without_an_error(answers: dict[str, Any]) -> None:
    variables = all_variables(**answers)
    bad = import_hook("pre_gen_project", variables).rejected(variables)
    assert CHECK.report(variables, bad).count("\n- ") == len(bad)


PORTS = {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
DEVICES = {"con", "prn", "aux", "nul"} | PORTS


@pytest.mark.parametrize(
    ("callback", "origin", "path"),
    [
        ("http://localhost:3000/callback", "http://localhost:3000", "/callback"),
        ("https://a.example/auth/callback", "https://a.example", "/auth/callback"),
        ("http://[::1]:3000/cb", "http://[::1]:3000", "/cb"),
    ],
)
def test_the_origin_of_the_app_comes_from_the_callback(
    callback: str, origin: str, path: str
) -> None:
    variables = all_variables(callback_url=callback)
    assert (variables["__origin"], variables["__callback_path"]) == (origin, path)


def test_the_endpoint_loses_its_trailing_slash() -> None:
    variables = all_variables(logto_endpoint="https://bookstore.logto.app/")
    assert variables["__logto_endpoint"] == "https://bookstore.logto.app"


def test_expressions_can_be_copied_into_a_catalog_unchanged() -> None:
    # Backstage would evaluate ${{ }}, and it does not support blocks and comments.
    for expression in map(str, SETTINGS.values()):
        assert not re.search(r"\$\{\{|\{%|\{#", expression)


def test_a_project_cannot_have_the_name_of_a_direct_dependency(bake: Bake) -> None:
    direct: set[str] = set()
    for answers in everything(on=True):
        settings = tomllib.loads(bake(**answers).read("pyproject.toml"))
        for line in [
            *settings["project"]["dependencies"],
            *settings["dependency-groups"]["dev"],
            *settings["build-system"]["requires"],
        ]:
            direct.add(canonicalize_name(Requirement(line).name))
    assert set(SETTINGS["__reserved_slugs"].split()) == direct | DEVICES


def test_a_project_cannot_have_the_name_of_a_windows_device() -> None:
    for name in DEVICES:
        assert CHECK.rejected(all_variables(project_slug=name)) == ["project_slug"]
