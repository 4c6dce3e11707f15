"""The same comparison as in test_backstage.py, with Backstage's own engine and actions.

`make test-backstage` runs this; pytest leaves it out by its name, as what it needs is large.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from answers import ROOT, Answers, identifier
from conftest import BakedProject, baked_without_hooks, environment
from test_backstage import CASES, executables, parameters

pytestmark = pytest.mark.xdist_group("engine")

ENGINE = ROOT / "tests/catalog/engine"

# The first is spoilt; an engine that took it would not be one.
SENT: list[dict[str, Any]] = [
    parameters({"project_name": "{{ 7*7 }}"}),
    *[parameters(answers) for answers in CASES],
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any]]]:
    """For each of `SENT`, the folder that would be pushed and what the task said."""
    folder = tmp_path_factory.mktemp("engine")
    node = ENGINE / "node_modules/node/bin" / ("node.exe" if os.name == "nt" else "node")
    # Cookiecutter must not meet a person's own configuration.
    env = environment(HOME=str(folder), COOKIECUTTER_CONFIG=os.devnull)
    done = subprocess.run(
        [node, ENGINE / "engine.cjs", ROOT / "template.yaml", folder / "out"],
        input="".join(json.dumps(sent) + "\n" for sent in SENT),
        capture_output=True,
        encoding="utf-8",
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return [(folder / "out" / str(task), answer) for task, answer in enumerate(said)]


def test_the_backend_refuses_an_answer_that_breaks_a_rule(
    tasks: list[tuple[Path, dict[str, Any]]],
) -> None:
    assert "project_name does not match pattern" in tasks[0][1]["error"]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[identifier(answers) for answers in CASES])
def test_the_engine_makes_the_bytes_of_the_terminal(
    tasks: list[tuple[Path, dict[str, Any]]], case: int, tmp_path: Path
) -> None:
    answers: Answers = CASES[case]
    path, said = tasks[case + 1]
    assert "error" not in said, said["error"]
    pushed, terminal = BakedProject(path, answers), baked_without_hooks(answers, tmp_path)
    assert pushed.contents == terminal.contents
    assert executables(pushed) == executables(terminal)

    repository, *entry = said["output"]["links"]
    assert repository["url"] == "https://github.com/bookstore/bookstore.git"
    if answers.get("catalog_owner"):
        [location] = said["registered"]
        assert location.endswith("/main/catalog-info.yaml")
        assert [link["entityRef"] for link in entry] == [f"component:default/{terminal.path.name}"]
    else:
        assert (said["registered"], entry) == ([], [])
