"""Both templates in the real engine of Backstage, with the modules that a backend can add.

`make test-backstage` runs this file. The modules are large, so the name of this file does not begin
with `test_`: pytest does not collect it by default.
"""

from pathlib import Path

import pytest
from answers import ROOT, Answers, identifier
from backstage import (
    BUILT_IN,
    CASES,
    CATALOG,
    WITH_COOKIECUTTER,
    Task,
    executables,
    parameters,
    tasks,
)
from conftest import BakedProject, baked_without_hooks

BACKEND = "@backstage/plugin-scaffolder-backend"
TEMPLATES = {"template.yaml": BUILT_IN, "template-cookiecutter.yaml": WITH_COOKIECUTTER}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(name), id=name.removesuffix(".yaml"))
        for name in TEMPLATES
    ],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Run a task for an answer that breaks a rule, and then a task for each of `CASES`."""
    entity = TEMPLATES[request.param]
    broken: Answers = {"project_name": "{{ 7*7 }}", "project_slug": "x"}
    sent = [parameters(answers, entity) for answers in (broken, *CASES)]
    folder = tmp_path_factory.mktemp("engine")
    return tasks(CATALOG / "engine", BACKEND, ROOT / request.param, sent, folder)


def test_the_backend_refuses_an_answer_that_breaks_a_rule(run: list[Task]) -> None:
    assert "project_name does not match pattern" in run[0].result["error"]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[identifier(answers) for answers in CASES])
def test_the_engine_and_the_terminal_make_the_same_files(
    run: list[Task], case: int, tmp_path: Path
) -> None:
    answers: Answers = CASES[case]
    task = run[case + 1]
    assert "error" not in task.result, task.result["error"]
    pushed, terminal = BakedProject(task.path, answers), baked_without_hooks(answers, tmp_path)
    assert pushed.contents == terminal.contents
    assert executables(pushed) == executables(terminal)
