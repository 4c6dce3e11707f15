"""Random answers give either a message and no files, or a project that works."""

import ast
import html
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import ROOT, SETTINGS, everything
from conftest import Bake, BakedProject, environment
from cookiecutter.exceptions import FailedHookException, OutputDirExistsException
from cookiecutter.main import cookiecutter
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered_hooks import all_variables, as_typed, import_hook

CHECK = import_hook("pre_gen_project", all_variables())
RULES = CHECK.RULES

HOST = r"([a-z0-9]{1,8}\.){0,3}[a-z]{2,8}|xn--(bcher-kva|p1ai|6frz82g)\.example|10\.0\.[0-9]\.[1-9]|\[::1\]"
ORIGIN = rf"(https://({HOST})|http://(localhost|127\.0\.0\.1|\[::1\]))(:[1-9][0-9]{{0,3}})?"
ANY_CHARACTER = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
# The look-aheads of the rules are not in these patterns: few random answers would match them.
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "project_name": st.text(ANY_CHARACTER, min_size=1, max_size=60),
    "project_slug": st.from_regex("[a-z](-?[a-z0-9]){0,31}", fullmatch=True),
    "framework": st.sampled_from(SETTINGS["framework"]),
    "logto_endpoint": st.from_regex(f"({ORIGIN})/?", fullmatch=True),
    "logto_app_id": st.from_regex(RULES["logto_app_id"].pattern, fullmatch=True),
    "callback_url": st.from_regex(f"({ORIGIN})(/[A-Za-z0-9._~-]{{3,9}}){{1,3}}/?", fullmatch=True),
    "azure_tenant_id": st.from_regex(RULES["azure_tenant_id"].pattern, fullmatch=True),
    "api_resource": st.from_regex(
        f"(({ORIGIN})(/[A-Za-z0-9+,%20?=]+)?/?)?|(urn|api):[A-Za-z0-9./?=+,:~-]+", fullmatch=True
    ),
    "use_docker": st.booleans(),
    "ci": st.sampled_from(SETTINGS["ci"]),
    "catalog_owner": st.from_regex(RULES["catalog_owner"].pattern, fullmatch=True),
}
ODD = st.text(st.characters(), max_size=80) | st.sampled_from(
    [
        "", " ", "..", "/etc/passwd", "C:\\Windows", "a/b", "con", "flask", "two\nlines", "a\0b",
        "{{ 7 * 7 }}", "{% raw %}", "{#", "$(id)", "`id`", '"', "'", "\\", "%PATH%", "é", "📚",
        "x" * 10_000, "javascript:alert(1)", "https://u:p@a.example", "http://[::1]:99999/x",
    ]
)  # fmt: skip
TEXTS = [name for name, default in SETTINGS.items() if name in RULES and isinstance(default, str)]
ALL_GOOD = st.fixed_dictionaries(GOOD).filter(lambda answers: not CHECK.rejected(answers))
SOME_ODD = st.builds(
    lambda good, odd: good | odd,
    st.fixed_dictionaries(GOOD),
    st.dictionaries(st.sampled_from(TEXTS), ODD, min_size=1, max_size=3),
)

# The longest and the most unusual answers that are accepted.
EDGES: list[dict[str, Any]] = [
    {
        "project_name": "本" * 60,
        "project_slug": "s" * 63,
        "framework": "flask",
        "logto_endpoint": f"https://{'e' * 63}.{'e' * 63}.example/",
        "logto_app_id": "i" * 64,
        "callback_url": f"https://{'c' * 63}.{'c' * 63}.example/{'p' * 60}/callback",
        "azure_tenant_id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
        "api_resource": f"https://{'a' * 63}.{'a' * 63}.example/v1",
        "catalog_owner": "group:default/" + "o" * 63,
    },
    {
        "project_name": "<b>Ada's</b> & 'Söhne' #1: *100* %s {x} }} $HOME `id` 👩\u200d💻",
        "project_slug": "class",
        "framework": "quart",
        "logto_endpoint": "http://[::1]:65535",
        "logto_app_id": "123",
        "callback_url": "http://127.0.0.1:8080/a/..._~/cb",
        "azure_tenant_id": "123.example",
        "api_resource": "urn:books:api",
        "catalog_owner": "123",
        "ci": "gitlab",
    },
    {
        "project_name": "مكتبة الكتب",
        "project_slug": "json",
        "framework": "flask",
        "logto_app_id": "null",
        "catalog_owner": "true",
        "use_docker": False,
        "ci": "none",
    },
    {"project_name": "Все Книги", "project_slug": "app", "framework": "quart"},
]


def attempt(answers: dict[str, Any], folder: Path) -> BakedProject | None:
    """Bake into an empty folder, with the answers as a user types them. Rejected answers: None."""
    typed = {name: as_typed(answer) for name, answer in answers.items() if name in TEXTS}
    try:
        path = cookiecutter(
            str(ROOT),
            no_input=True,
            extra_context=answers | typed,
            output_dir=str(folder),
            default_config=True,
        )
    except FailedHookException:
        return None
    except (OSError, ValueError, OutputDirExistsException):
        # Cookiecutter could not make the folder and stopped before it ran the hook.
        assert not CHECK.accepts(RULES["project_slug"], answers["project_slug"])
        return None
    return BakedProject(Path(path), answers)


def assert_parses(project: BakedProject) -> None:
    """Parse all files of the project whose type is known."""
    for name, content in project.contents.items():
        if name.endswith(".py"):
            ast.parse(content, name)
        elif name.endswith(".toml"):
            tomllib.loads(content.decode())
        elif name.endswith(".json"):
            json.loads(content)
        elif name.endswith((".yaml", ".yml")):
            assert list(yaml.safe_load_all(content))


# Read the folder of a project from each line, and print the home page of its app as JSON.
# All apps run in one process, because their imports take most of the time.
BROWSER = """
import asyncio, inspect, json, os, sys

def done(value):
    return asyncio.run(value) if inspect.iscoroutine(value) else value

variables = dict(os.environ, LOGTO_APP_SECRET="any")
for line in sys.stdin:
    os.chdir(line.rstrip("\\n"))
    sys.path[0] = os.getcwd()
    os.environ.clear()
    os.environ.update(variables)
    for name in [name for name in sys.modules if name.split(".")[0] == "app"]:
        del sys.modules[name]
    from app import create_app
    response = done(create_app().test_client().get("/"))
    text = done(response.get_data(as_text=True))
    assert response.status_code == 200, text
    print(json.dumps(text), flush=True)
"""


@pytest.fixture(scope="module")
def title() -> Iterator[Callable[[BakedProject], str]]:
    """Return a function that gives the title of a project's home page, as its app serves it."""
    with subprocess.Popen(
        [sys.executable, "-c", BROWSER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=environment(PYTHONUTF8="1"),
    ) as browser:
        assert browser.stdin
        assert browser.stdout

        def get(project: BakedProject) -> str:
            print(project.path, file=browser.stdin, flush=True)
            assert browser.stdout
            page = browser.stdout.readline()
            assert page, "the app failed; see its traceback on standard error"
            found = re.search("<title>(.*)</title>", json.loads(page))
            assert found, page
            return html.unescape(found[1])

        yield get
        browser.kill()


Title = Callable[[BakedProject], str]


@settings(max_examples=20, deadline=None)
@given(answers=ALL_GOOD | SOME_ODD)
def test_the_answers_are_rejected_or_the_app_serves_its_home_page(
    answers: dict[str, Any], title: Title, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    result = attempt(answers, folder)
    if CHECK.rejected(all_variables(**answers)):
        assert result is None
        assert not [path for path in folder.rglob("*") if path.is_file()]
    else:
        assert result
        assert_parses(result)
        assert answers["project_name"] in title(result)
    # Windows cannot remove the folder, because it is the current folder of the app.
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=EDGES, ids=["long", "signs", "arabic", "cyrillic"])
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """Bake a project from the longest or most unusual answers that are accepted."""
    result = attempt(request.param, tmp_path_factory.mktemp("edge"))
    assert result
    return result


def test_the_files_show_the_answers_unchanged(edge: BakedProject, title: Title) -> None:
    answers = all_variables(**edge.answers)
    name, slug = answers["project_name"], answers["project_slug"]
    assert name in title(edge)
    assert edge.read("README.md").startswith(f"# {name}\n")
    about = tomllib.loads(edge.read("pyproject.toml"))["project"]
    assert about["name"] == edge.path.name == slug
    assert name in about["description"]
    connector = json.loads(edge.read("connectors/azure-ad.json"))
    assert connector["tenantId"] == answers["azure_tenant_id"]


def test_the_env_file_contains_the_answers(edge: BakedProject) -> None:
    answers = all_variables(**edge.answers)
    env = dotenv_values(edge.path / ".env")
    assert env["LOGTO_ENDPOINT"] == answers["logto_endpoint"].rstrip("/")
    assert env["LOGTO_APP_ID"] == answers["logto_app_id"]
    assert env["LOGTO_CALLBACK_URL"] == answers["callback_url"]
    assert env.get("LOGTO_API_RESOURCE", "") == answers["api_resource"]


def test_the_catalog_entry_contains_the_answers(edge: BakedProject) -> None:
    answers = all_variables(**edge.answers)
    if not answers["catalog_owner"]:
        assert not (edge.path / "catalog-info.yaml").exists()
        return
    for entity in yaml.safe_load_all(edge.read("catalog-info.yaml")):
        assert entity["metadata"]["name"] == answers["project_slug"]
        assert entity["metadata"]["title"] == answers["project_name"]
        assert entity["spec"]["owner"] == answers["catalog_owner"]


def test_the_callback_url_cannot_be_the_url_of_another_page(bake: Bake) -> None:
    list_routes = "from app import create_app; print(create_app().url_map)"
    (answers,) = [answers for answers in everything(on=True) if answers["framework"] == "flask"]
    routes = re.findall(r"'(/\S*)'", bake(**answers).run("python", "-c", list_routes).stdout)
    assert {"/", "/callback", "/sign-in", "/healthz", "/api/me"} <= set(routes)
    for route in set(routes) - {"/callback"}:
        url = f"https://a.example{route}"
        assert "callback_url" in CHECK.rejected(all_variables(callback_url=url)), route
        # A variable part of the route matches any text.
        url = re.sub("<.*>", "x", url)
        assert "callback_url" in CHECK.rejected(all_variables(callback_url=url)), route


def test_ruff_finds_nothing_in_bakes_from_unusual_answers(edge: BakedProject) -> None:
    assert_parses(edge)
    edge.run("ruff", "check", "--no-cache")
    edge.run("ruff", "format", "--check", "--no-cache")
