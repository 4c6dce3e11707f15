"""The files of a bake for editors, coding assistants and git."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from answers import UPDATED_FOLDERS, Answers
from conftest import BARE, FULL, Bake, BakedProject, mypy_cache
from repositories import git

FRAMEWORKS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"{name} processes"))
    for name in ("flask", "quart")
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_hooks_for_git_pass_on_a_fresh_bake(bake: Bake, framework: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("instance")
    path = shutil.copytree(bake(framework=framework).path, tmp_path / "project", ignore=ignored)
    project = BakedProject(path, {})
    config = yaml.safe_load(project.read(".pre-commit-config.yaml"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    # `uv run` finds the environment of the project, even if it is not activated.
    assert all(hook["entry"].startswith("uv run ") for hook in hooks)
    git(path, "init", "--quiet")
    git(path, "add", "--all")
    variables = {
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "UV_NO_SYNC": "1",
        "UV_OFFLINE": "1",
        "MYPY_CACHE_DIR": mypy_cache(framework),
    }
    run = ["python", "-m", "pre_commit", "run", "--all-files"]
    done = project.run(*run, **variables)
    assert done.stdout.count("Passed") == len(hooks) == 3
    # Each hook finds a mistake.
    pages = path / "app/pages.py"
    pages.write_text(pages.read_text("utf-8") + "\nx:int = ''\nimport os\n", "utf-8")
    done = project.attempt(*run, **variables)
    assert done.returncode == 1
    assert done.stdout.count("Failed") == 3


@pytest.mark.parametrize("answers", FULL)
def test_every_debug_configuration_starts_a_command_that_exists(
    bake: Bake, answers: Answers
) -> None:
    project = bake(**answers)
    launch = json.loads(project.read(".vscode/launch.json"))
    modules = [each["module"] for each in launch["configurations"]]
    assert modules == ["dev", answers["framework"], "pytest"]
    for each in launch["configurations"]:
        assert (each["type"], each["request"]) == ("debugpy", "launch")
        project.run("python", "-m", each["module"], *each.get("args", []), "--help")
    assert json.loads(project.read(".vscode/extensions.json"))["recommendations"]


@pytest.mark.parametrize("answers", BARE + FULL)
def test_the_page_for_coding_assistants_is_short_and_correct(bake: Bake, answers: Answers) -> None:
    project = bake(**answers)
    page = project.read("AGENTS.md")
    assert page.count("\n") <= 30
    assert set(re.findall(r"`uv run ([^`]+)`", page)) == {
        "python -m dev",
        "pytest",
        "ruff check --fix",
        "ruff format",
        "mypy",
        f"{answers['framework']} logto check",
    }
    named = {name.rstrip("/") for name in re.findall(r"`([\w./]+(?:/|\.\w+))`", page)}
    missing = {name for name in named if not (project.path / name).exists()}
    assert missing <= {"app.auth", "app.server", "app.config", "base.html", "current_user.sub"}
    assert set(UPDATED_FOLDERS) <= named
    # A team edits all other modules of the app.
    for module in (project.path / "app").glob("*.py"):
        assert f"app/{module.name}" in named


@pytest.mark.parametrize("answers", FULL)
def test_pyright_finds_no_error(bake: Bake, answers: Answers, node: str) -> None:
    project = bake(**answers)
    program = Path(__file__).parents[1] / "node/node_modules/pyright/index.js"
    if not program.exists():
        pytest.skip(
            "not installed: pyright. To install: npm install --no-save --prefix tests/node pyright"
        )
    folders = ["app", "dev", "logto_setup", "tests"]
    done = project.attempt(node, str(program), "--pythonpath", sys.executable, *folders)
    assert done.returncode == 0, done.stdout
    assert "0 errors" in done.stdout
