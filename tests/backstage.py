"""The two templates for Backstage, and the Backstage engines that run them in tests."""

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from accepted_and_rejected import ACCEPTED
from answers import ROOT, Answers, every_combination
from conftest import BakedProject, environment, missing, program
from rendered_hooks import all_variables

CATALOG = ROOT / "tests/catalog"
BUILT_IN: dict[str, Any] = yaml.safe_load((ROOT / "template.yaml").read_text("utf-8"))
WITH_COOKIECUTTER: dict[str, Any] = yaml.safe_load(
    (ROOT / "template-cookiecutter.yaml").read_text("utf-8")
)

# Answers that differ from the defaults in every text field.
TYPED: list[Answers] = [
    {
        "project_name": "Ada's # 📚: «книги» & <maps>",
        "logto_endpoint": "https://bookstore.logto.app/",
        "callback_url": "https://bookstore.example/auth/callback",
        "azure_tenant_id": "contoso.onmicrosoft.com",
        "api_resource": "https://api.bookstore.example",
        "catalog_owner": "user:default/ada.b",
    },
    {
        "project_name": "3D shop",
        "project_slug": "null",
        "logto_app_id": "123",
        "logto_endpoint": "https://[::1]:8443",
        "callback_url": "https://bookstore.example:8443/callback",
        "api_resource": "urn:books:api",
        "catalog_owner": "true",
    },
    {
        "project_name": "Flask",
        "project_slug": "a" * 63,
        "logto_endpoint": f"https://{'a' * 56}.{'b' * 60}.example",
        "catalog_owner": "web",
    },
]
CASES = [*every_combination(), *TYPED]


def odd_cases() -> list[Answers]:
    """Return every accepted answer to every question, in as few projects as possible."""
    projects = max(map(len, ACCEPTED.values()))
    return [
        {name: answers[number % len(answers)] for name, answers in ACCEPTED.items()}
        for number in range(projects)
    ]


def fields(entity: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of all pages of a form."""
    return {
        name: f for page in entity["spec"]["parameters"] for name, f in page["properties"].items()
    }


def parameters(answers: Answers, entity: dict[str, Any] = BUILT_IN) -> dict[str, Any]:
    """Return what a form sends: the answers and the defaults. It leaves empty fields out."""
    defaults = {name: f["default"] for name, f in fields(entity).items() if "default" in f}
    sent = defaults | {name: answer for name, answer in answers.items() if answer != ""}
    if entity is BUILT_IN:
        # The form requires the slug. So the user enters the slug that Cookiecutter makes.
        sent.setdefault("project_slug", all_variables(**answers)["project_slug"])
    return sent | {"repo_url": "github.com?owner=bookstore&repo=bookstore"}


def executables(project: BakedProject) -> set[str]:
    """Return the executable files. Git keeps the executable bit, too."""
    return {name for name in project.contents if os.access(project.path / name, os.X_OK)}


@dataclass(frozen=True)
class Task:
    """A finished task of Backstage."""

    path: Path
    """The folder that Backstage would push to the repository."""
    result: dict[str, Any]
    """The output of the task and the locations that it registered, or its error."""


def tasks(
    packages: Path, backend: str, template: Path, sent: list[dict[str, Any]], folder: Path
) -> list[Task]:
    """Run a template once for each set of parameters in `sent`, in the engine of a backend.

    `packages` is the folder of the package.json that names the backend. One Node.js process runs
    all tasks.
    """
    env = environment(HOME=str(folder), COOKIECUTTER_CONFIG=os.devnull)
    node = program("node", env)
    done = subprocess.run(
        # Backends with Nunjucks refuse to start without this option.
        [node, "--no-node-snapshot", CATALOG / "engine.cjs", packages, backend, template, folder],
        input="".join(json.dumps(parameters) + "\n" for parameters in sent),
        capture_output=True,
        encoding="utf-8",
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return [Task(folder / str(number), result) for number, result in enumerate(results)]


@cache
def require_npm_packages() -> None:
    """Skip the test if the npm packages of tests/catalog are not installed."""
    if not (CATALOG / "node_modules/.ready").exists():
        missing("npm packages")
