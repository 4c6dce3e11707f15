"""The prompts in a terminal, through a real pseudo-terminal."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answers import ROOT
from conftest import Bake, BakedProject, environment

pexpect = pytest.importorskip("pexpect")

Terminal = Callable[..., Any]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a function that starts cookiecutter in a terminal of 80 columns and in tmp_path."""
    config = tmp_path.parent / f"{tmp_path.name}.yaml"
    config.write_text(json.dumps({"replay_dir": f"{config}.replay"}), "utf-8")

    def start(*words: str, **variables: str) -> Any:
        fixed = {"COOKIECUTTER_CONFIG": str(config), "PWD": str(tmp_path)}
        return pexpect.spawn(
            sys.executable,
            ["-m", "cookiecutter", str(ROOT), *words],
            cwd=str(tmp_path),
            # TERM=dumb turns styles off, so that the output has no control sequences.
            env=environment(**fixed | {"TERM": "dumb"} | variables),
            encoding="utf-8",
            dimensions=(60, 80),
            timeout=30,
        )

    return start


def answer(child: Any, question: str, typed: str = "") -> str:
    """Wait for a question, type the answer, and return the text of the prompt."""
    child.expect_exact(question)
    child.expect(r"\): $")
    shown: str = question + child.before + ")"
    child.sendline(typed)
    return shown.replace("\r\n", "\n")


def rest(child: Any) -> str:
    """Return the rest of the output, until the command ends."""
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace("\r\n", "\n")


def test_the_prompts_read_like_a_form(terminal: Terminal, tmp_path: Path, bake: Bake) -> None:
    child = terminal()
    assert "(Bookstore)" in answer(child, "[1/11] Name of the app", "Ada's 📚 {shop}")
    assert "(ada-s-shop)" in answer(child, "[2/11] Folder and package name")
    assert answer(child, "[3/11] Web framework", "2").splitlines()[1:] == [
        "    1 - Flask: synchronous, known to most developers",
        "    2 - Quart: Flask's API on asyncio",
        "    Choose from [1/2] (1)",
    ]
    assert answer(child, "[4/11] Logto endpoint", "https://ada.logto.app/").splitlines()[1:] == [
        "    Logto Console > Applications > your app; the default is the local Logto",
        "    (http://localhost:3001)",
    ]
    assert "(ada-s-shop)" in answer(child, "[5/11] App ID", "v3k9d2m1q8x7c6b5n4z0a")
    assert "Redirect URIs" in answer(child, "[6/11] Callback URL")
    assert "(common)" in answer(child, "[7/11] Microsoft Entra ID (Azure AD) tenant")
    assert "empty for none" in answer(child, "[8/11] API identifier", "https://api.ada.example")
    child.expect_exact("[9/11] Add a Dockerfile and compose.yaml [y/n] (y): ")
    child.sendline("maybe")
    child.expect_exact("Please enter Y or N")
    child.expect_exact("[9/11] Add a Dockerfile and compose.yaml [y/n] (y): ")
    child.sendline("no")
    answer(child, "[10/11] Pipeline that tests every change", "9")
    child.expect_exact("Please select one of the available options")
    answer(child, "[10/11] Pipeline that tests every change", "2")
    answer(child, "[11/11] Owner in the Backstage catalog", "group:default/web")
    steps = rest(child)
    assert child.exitstatus == 0
    assert "Ada's 📚 {shop} is ready." in steps
    assert "    cd ada-s-shop\n" in steps
    expected = bake(
        project_name="Ada's 📚 {shop}",
        framework="quart",
        logto_endpoint="https://ada.logto.app/",
        logto_app_id="v3k9d2m1q8x7c6b5n4z0a",
        api_resource="https://api.ada.example",
        use_docker=False,
        ci="gitlab",
        catalog_owner="group:default/web",
    )
    assert BakedProject(tmp_path / "ada-s-shop", {}).contents == expected.contents


def test_wrong_answers_are_reported_together_at_the_end(terminal: Terminal, tmp_path: Path) -> None:
    child = terminal()
    answer(child, "[1/11]", "{{ cookiecutter }}")
    answer(child, "[2/11]", "My Shop")
    answer(child, "[3/11]")
    answer(child, "[4/11]", "logto.app")
    for number in range(5, 9):
        answer(child, f"[{number}/11]")
    child.expect_exact("[y/n] (y): ")
    child.sendline()
    answer(child, "[10/11]")
    answer(child, "[11/11]")
    text = rest(child)
    assert child.exitstatus == 1
    reported = re.findall(r"^- .* \((\w+)\): ", text, re.MULTILINE)
    assert reported == ["project_name", "project_slug", "logto_endpoint"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "colours"),
    [({"TERM": "xterm"}, 3), ({"TERM": "xterm", "NO_COLOR": "1"}, 0), ({"TERM": "dumb"}, 0)],
    ids=["terminal", "no-color", "dumb"],
)
def test_headings_are_bold_only_on_terminals_with_styles(
    terminal: Terminal, variables: dict[str, str], colours: int
) -> None:
    assert rest(terminal("--no-input", **variables)).count("\033[1m") == colours
