"""All combinations of answers, read from cookiecutter.json so that no question is forgotten."""

import itertools
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
UPDATED_FOLDERS = ("app/auth", "app/server", "logto_setup", "dev")
"""The folders that a team leaves alone, because an update replaces them."""
SETTINGS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))

Answer = str | bool
Answers = dict[str, Answer]

# Example answers to the questions whose default is empty.
FILLED = {
    "api_resource": "https://api.bookstore.example/",
    "catalog_owner": "group:default/bookstore-team",
}


def is_off(answer: Answer) -> bool:
    """Return whether an answer switches its option off."""
    return answer in (False, "", "none")


def options() -> dict[str, list[Answer]]:
    """Return every question that changes the files of a bake, with its possible answers."""
    found: dict[str, list[Answer]] = {}
    for name, default in SETTINGS.items():
        if name.startswith("_"):
            continue
        if isinstance(default, list):
            found[name] = default
        elif isinstance(default, bool):
            found[name] = [False, True]
        elif default == "":
            found[name] = ["", FILLED[name]]
    return found


def every_combination() -> list[Answers]:
    """Return every combination of answers to the options."""
    names = options()
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*names.values())]


def everything(on: bool) -> list[Answers]:
    """Return, for each framework, the answers that switch every option on, or off."""

    def chosen(name: str, answers: list[Answer]) -> Answer:
        return next((answer for answer in answers if is_off(answer) is not on), answers[0])

    switches = {name: chosen(name, answers) for name, answers in options().items()}
    return [switches | {"framework": framework} for framework in options()["framework"]]


def identifier(answers: Answers) -> str:
    """Return a short name for a combination, such as `quart-api_resource-use_docker`."""
    words = (
        name if isinstance(answer, bool) or name in FILLED else str(answer)
        for name, answer in answers.items()
        if not is_off(answer)
    )
    return "-".join(words)
