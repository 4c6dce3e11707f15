"""The template in Backstage has the same questions and rules, and makes the same files."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from accepted_and_rejected import ACCEPTED, REJECTED
from answers import ROOT, SETTINGS, TEMPLATE, Answers, everything, identifier
from backstage import (
    BUILT_IN,
    CASES,
    CATALOG,
    TYPED,
    WITH_COOKIECUTTER,
    executables,
    fields,
    parameters,
    require_npm_packages,
)
from conftest import Bake, BakedProject, environment, program
from cookiecutter.main import cookiecutter
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, Undefined
from rendered_hooks import all_variables, import_hook

# One worker runs these tests, so that each case is baked only once.
pytestmark = pytest.mark.xdist_group("backstage")

PAGES: list[dict[str, Any]] = BUILT_IN["spec"]["parameters"]
FIELDS = fields(BUILT_IN)
REQUIRED = {name for page in PAGES for name in page["required"]}
STEP = BUILT_IN["spec"]["steps"][0]
COOKIECUTTER_STEP = WITH_COOKIECUTTER["spec"]["steps"][0]

QUESTIONS = [name for name in SETTINGS if not name.startswith("_")]
CHECK = import_hook("pre_gen_project", all_variables())


def test_the_typed_answers_are_accepted() -> None:
    assert [CHECK.rejected(all_variables(**answers)) for answers in TYPED] == [[], [], []]


# --- the form --------------------------------------------------------------------------------


def is_derived(default: Any) -> bool:
    """Return whether a default is computed from other answers."""
    return isinstance(default, str) and "{{" in default


def test_the_form_asks_every_question_once_and_for_the_repository() -> None:
    assert len(PAGES) == 3
    assert sorted(FIELDS) == sorted([*QUESTIONS, "repo_url"])
    assert len(FIELDS) == sum(len(page["properties"]) for page in PAGES)
    assert {name for name, field in FIELDS.items() if field["title"] in ("", None)} == set()


def test_the_form_asks_for_no_secret() -> None:
    for name, field in FIELDS.items():
        assert field.get("ui:field") in (None, "OwnerPicker", "RepoUrlPicker")
        assert not re.search("secret|password|token$", name)
    assert "secrets." not in json.dumps([BUILT_IN["spec"], WITH_COOKIECUTTER["spec"]])


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_field_is_labelled_like_its_question(question: str) -> None:
    prompt, field = SETTINGS["__prompts__"][question], FIELDS[question]
    labels = dict(prompt) if isinstance(prompt, dict) else {"__prompt__": prompt}
    title, *hints = labels.pop("__prompt__").strip().splitlines()
    assert field["title"] == title
    assert field.get("description", "").startswith("".join(hints).strip())
    assert field.get("enumNames", []) == list(labels.values())


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_field_has_the_default_of_its_question(question: str) -> None:
    default, field = SETTINGS[question], FIELDS[question]
    if isinstance(default, list):
        assert (field["enum"], field["default"]) == (default, default[0])
    elif is_derived(default):
        # A form cannot compute a default from another field.
        assert "default" not in field
    else:
        assert field.get("default", "") == default
    # The backend uses no defaults. So a field with a default is required, and the values of the
    # step compute each derived default.
    required = default != "" and not is_derived(default)
    assert (question in REQUIRED) is (required or question == "project_slug")


def test_the_two_forms_differ_in_the_slug_alone() -> None:
    # Cookiecutter can make the slug bucher from Bücher, but an expression of Backstage cannot.
    forms = [
        copy.deepcopy(entity["spec"]["parameters"]) for entity in (BUILT_IN, WITH_COOKIECUTTER)
    ]
    built_in, with_cookiecutter = (form[0]["properties"]["project_slug"] for form in forms)
    assert "If empty" not in built_in["description"]
    assert built_in | {"description": "If empty, it is made from the name"} == with_cookiecutter
    assert [form[0].pop("required") for form in forms] == [
        ["project_name", "project_slug", "framework"],
        ["project_name", "framework"],
    ]
    del forms[0][0]["properties"]["project_slug"], forms[1][0]["properties"]["project_slug"]
    assert forms[0] == forms[1]


def test_the_two_templates_do_the_same_after_the_first_step() -> None:
    assert BUILT_IN["spec"]["steps"][1:] == WITH_COOKIECUTTER["spec"]["steps"][1:]
    assert BUILT_IN["spec"]["output"] == WITH_COOKIECUTTER["spec"]["output"]
    # One catalog can contain both templates.
    assert BUILT_IN["metadata"]["name"] != WITH_COOKIECUTTER["metadata"]["name"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_field_has_the_rule_and_the_message_of_its_question(question: str) -> None:
    rule, field = CHECK.RULES[question], FIELDS[question]
    if rule.pattern is None:
        assert field["type"] == "boolean"
    elif isinstance(SETTINGS[question], list):
        assert field["type"] == "string"
    else:
        assert field["pattern"] == f"^(?:{rule.pattern})$"
        message = f"Accepted: {rule.accepted}. Example: {rule.example}"
        assert field["errorMessage"]["pattern"] == message


class Validators:
    """The validators of Backstage, which run in one Node.js process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> Any:
        """Send a question to validators.mjs and return the response."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        response = self._process.stdout.readline()
        assert response, "validators.mjs has ended"
        return json.loads(response)


@pytest.fixture(scope="module")
def validators() -> Iterator[Validators]:
    """Start the validators of Backstage."""
    require_npm_packages()
    with subprocess.Popen(
        [program("node", environment()), "validators.mjs"],
        cwd=CATALOG,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        yield Validators(process)
        process.kill()


def compare(validators: Validators, question: str, values: list[Any]) -> list[bool]:
    """Check that the terminal, the form and the backend agree on some answers.

    Return for each answer whether it is accepted.
    """
    # A page of the form is an object, so check each value as a field of an object.
    schema = {"type": "object", "properties": {question: FIELDS[question]}}
    wrapped = [{question: value} for value in values]
    judgements = validators.ask(schema=schema, values=wrapped)
    accepted_values = [CHECK.accepts(CHECK.RULES[question], value) for value in values]
    for value, accepted, judgement in zip(values, accepted_values, judgements, strict=True):
        assert (judgement["form"] == []) is accepted, (value, judgement)
        assert (judgement["backend"] == []) is accepted, (value, judgement)
    return accepted_values


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_form_and_the_terminal_accept_the_same_answers(
    validators: Validators, question: str
) -> None:
    assert all(compare(validators, question, ACCEPTED[question]))
    rejected = compare(validators, question, REJECTED[question])
    # JSON Schema cannot require that two fields differ from each other: see docs/backstage.md.
    missed = [answer for answer, good in zip(REJECTED[question], rejected, strict=True) if good]
    assert missed == (["http://localhost:3001/callback"] if question == "callback_url" else [])


CHARACTERS = st.one_of(
    st.sampled_from("/:.?#[]@{}%\"'\\ -_aZ09\n\r"), st.characters(exclude_categories=["Cs"])
)
TYPOS = st.tuples(st.integers(0, 80), st.integers(0, 2), st.text(CHARACTERS, max_size=2))


def with_typos(answer: str, typos: list[tuple[int, int, str]]) -> str:
    """Return an answer with typing mistakes: position, replaced characters, new text."""
    for position, width, text in typos:
        position %= len(answer) + 1
        answer = answer[:position] + text + answer[position + width :]
    return answer


def texts(question: str) -> list[str]:
    """Return the good and bad answers to a question that are valid Unicode texts."""
    known = [*ACCEPTED[question], *REJECTED[question], *CHECK.RULES[question].pattern.split("|")]
    return [answer for answer in known if isinstance(answer, str) and "\ud800" not in answer]


@pytest.mark.parametrize("question", [name for name in QUESTIONS if "pattern" in FIELDS[name]])
def test_the_form_and_the_terminal_agree_on_random_answers(
    validators: Validators, question: str
) -> None:
    results: set[bool] = set()
    answers = st.builds(
        with_typos, st.sampled_from(texts(question)), st.lists(TYPOS, min_size=1, max_size=3)
    )

    @settings(max_examples=20, deadline=None)
    @given(st.lists(answers, min_size=10, max_size=30))
    def agree(values: list[str]) -> None:
        results.update(compare(validators, question, values))

    agree()
    assert results == {True, False}


def test_every_page_requires_its_fields_and_accepts_what_the_form_sends(
    validators: Validators,
) -> None:
    for page in PAGES:
        sent = [parameters(TYPED[0]), parameters({})]
        for judgement in validators.ask(schema=page, values=sent):
            assert judgement == {"form": [], "backend": []}
        [empty] = validators.ask(schema=page, values=[{}])
        assert len(empty["form"]) == len(empty["backend"]) == len(page["required"])


@pytest.mark.parametrize("question", ["callback_url", "project_name"])
def test_the_form_explains_the_rule_without_the_pattern(
    validators: Validators, question: str
) -> None:
    schema = {"type": "object", "properties": {question: FIELDS[question]}}
    [judgement] = validators.ask(schema=schema, values=[{question: "{{ 7*7 }}"}])
    accepted = CHECK.RULES[question].accepted
    assert [message for message in judgement["form"] if accepted in message]
    assert not [message for message in judgement["form"] if "must match pattern" in message]


# --- the steps -------------------------------------------------------------------------------


def test_the_values_for_cookiecutter_are_those_of_cookiecutter_json() -> None:
    values = COOKIECUTTER_STEP["input"]["values"]
    # The labels are for the terminal. The files to copy unrendered have a separate input.
    assert list(values) == [
        name for name in SETTINGS if name not in ("_copy_without_render", "__prompts__")
    ]
    assert COOKIECUTTER_STEP["action"] == "fetch:cookiecutter"
    assert COOKIECUTTER_STEP["input"]["copyWithoutRender"] == SETTINGS["_copy_without_render"]
    for name, value in values.items():
        default = SETTINGS[name]
        if name.startswith("_"):
            assert value == default
        elif is_derived(default):
            expression = default.removeprefix("{{").removesuffix("}}").strip()
            assert value == f'{{{{ "${{{{ parameters.{name} or "" }}}}" or ({expression}) }}}}'
        elif default == "":
            assert value == f'${{{{ parameters.{name} or "" }}}}'
        else:
            assert value == f"${{{{ parameters.{name} }}}}"


def test_the_built_in_action_gets_every_variable_of_the_template() -> None:
    # These variables only compute defaults, and the form computes no defaults.
    only_for_defaults = {"__reserved_slugs", "__name_slug"}
    assert STEP["action"] == "fetch:template"
    assert list(STEP["input"]["values"]) == [
        name
        for name in SETTINGS
        if name not in only_for_defaults | {"__prompts__"} and not re.match("_[^_]", name)
    ]
    # Backstage ignores an unknown input. The input `replace` must not be there: with it, Backstage
    # would write a file to the path of a folder.
    assert {name: value for name, value in STEP["input"].items() if name != "values"} == {
        "url": f"./{TEMPLATE.name}",
        "cookiecutterCompat": True,
        "trimBlocks": SETTINGS["_jinja2_env_vars"]["trim_blocks"],
        "lstripBlocks": SETTINGS["_jinja2_env_vars"]["lstrip_blocks"],
        "copyWithoutTemplating": SETTINGS["_copy_without_render"],
    }


EXPRESSION = re.compile(r"\$\{\{(.+?)\}\}")
EXPRESSIONS = Environment()  # noqa: S701, it renders no HTML


def rendered(template: Any, parameters: dict[str, Any]) -> Any:
    """Render the ${{ }} in the input of a step as Backstage does.

    If a text is only an expression, the result keeps its type. If an expression is undefined, its
    key is removed. The expressions are Nunjucks, but these few mean the same in Jinja.
    """

    def value(source: str) -> Any:
        assert re.fullmatch(r'parameters\.[a-z_]+( or "")?', source.strip()), source
        expression = EXPRESSIONS.compile_expression(source.strip(), undefined_to_none=False)
        return expression(parameters=parameters)

    if isinstance(template, dict):
        items = {key: rendered(item, parameters) for key, item in template.items()}
        return {key: item for key, item in items.items() if not isinstance(item, Undefined)}
    if isinstance(template, list):
        return [rendered(item, parameters) for item in template]
    if not isinstance(template, str):
        return template
    if alone := EXPRESSION.fullmatch(template):
        return value(alone[1])
    return EXPRESSION.sub(lambda found: str(value(found[1])), template)


def from_backstage(answers: Answers, folder: Path) -> BakedProject:
    """Bake as the action fetch:cookiecutter does, and return the project that it would publish."""
    inputs = rendered(COOKIECUTTER_STEP["input"], parameters(answers, WITH_COOKIECUTTER))
    template = folder / "template"
    contents = template / "{{cookiecutter and 'contents'}}"
    shutil.copytree(ROOT / inputs["url"], contents)
    settings: dict[str, Any] = {}
    if (contents / "cookiecutter.json").exists():
        settings = json.loads((contents / "cookiecutter.json").read_text("utf-8"))
    settings |= inputs["values"]
    settings |= {"_copy_without_render": inputs["copyWithoutRender"]}
    (template / "cookiecutter.json").write_text(json.dumps(settings), "utf-8")
    intermediate = folder / "intermediate"
    cookiecutter(str(template), no_input=True, output_dir=str(intermediate), default_config=True)
    [generated] = intermediate.iterdir()
    return BakedProject(generated.rename(folder / "result"), answers)


@pytest.fixture(
    scope="module", params=[pytest.param(answers, id=identifier(answers)) for answers in CASES]
)
def both_projects(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    bake_without_hooks: Callable[[Answers], BakedProject],
) -> tuple[BakedProject, BakedProject]:
    """Bake the same answers as Backstage does, and as the terminal does without hooks."""
    folder = tmp_path_factory.mktemp("both")
    return from_backstage(request.param, folder), bake_without_hooks(request.param)


def test_backstage_and_the_terminal_make_the_same_files(
    both_projects: tuple[BakedProject, BakedProject],
) -> None:
    backstage, terminal = both_projects
    assert backstage.contents == terminal.contents
    assert executables(backstage) == executables(terminal)


def test_an_empty_field_gives_the_slug_that_the_terminal_gives(tmp_path: Path) -> None:
    answers: Answers = {"project_name": "3D shop", "catalog_owner": "web"}
    catalog = from_backstage(answers, tmp_path)
    component = yaml.safe_load(catalog.read("catalog-info.yaml"))
    assert component["metadata"]["name"] == "app-3d-shop"
    assert "LOGTO_APP_ID=app-3d-shop\n" in catalog.read(".env.example")


def test_the_folder_can_be_baked_by_backstage() -> None:
    # Backstage would copy this file into the project, and its values would have priority.
    assert not (TEMPLATE / "cookiecutter.json").exists()
    # A symbolic link could lead out of the folder, and Backstage reads only this folder.
    assert not [path for path in TEMPLATE.rglob("*") if path.is_symlink()]


# --- the catalog -----------------------------------------------------------------------------


def entities(project: BakedProject) -> list[dict[str, Any]]:
    """Return the entities of the catalog entry, with each `$text` replaced by its file."""
    found = list(yaml.safe_load_all(project.read("catalog-info.yaml")))
    for entity in found:
        definition = entity["spec"].get("definition")
        if definition:
            [(placeholder, path)] = definition.items()
            assert placeholder == "$text"
            entity["spec"]["definition"] = project.read(path)
    return found


@pytest.mark.parametrize("entity", [BUILT_IN, WITH_COOKIECUTTER], ids=["built-in", "cookiecutter"])
def test_the_template_is_valid(validators: Validators, entity: dict[str, Any]) -> None:
    assert validators.ask(entity=entity) == []
    without_type = {**entity, "spec": {**entity["spec"], "type": None}}
    assert validators.ask(entity=without_type) != []


def test_the_catalog_entry_is_valid_and_exists_only_with_an_owner(
    validators: Validators, both_projects: tuple[BakedProject, BakedProject]
) -> None:
    project, _ = both_projects
    answers = project.answers
    assert ("catalog-info.yaml" in project.contents) is bool(answers.get("catalog_owner"))
    if not answers.get("catalog_owner"):
        return
    component, *others = entities(project)
    for entity in (component, *others):
        assert validators.ask(entity=entity) == []
        assert entity["spec"]["owner"] == answers["catalog_owner"]
    assert (component["kind"], component["spec"]["type"]) == ("Component", "service")
    assert component["metadata"]["title"] == answers.get("project_name", "Bookstore")
    assert [entity["kind"] for entity in others] == (["API"] if answers.get("api_resource") else [])


def test_a_catalog_entry_with_a_mistake_is_not_valid(validators: Validators, bake: Bake) -> None:
    component = entities(bake(catalog_owner="web"))[0]
    component["metadata"]["name"] += "-"
    assert validators.ask(entity=component) != []


@pytest.mark.parametrize("answers", everything(on=True), ids=identifier)
def test_the_service_provides_the_api_that_it_describes(bake: Bake, answers: Answers) -> None:
    component, api = entities(bake(**answers))
    assert component["spec"]["providesApis"] == [api["metadata"]["name"]]
    description = json.loads(api["spec"]["definition"])
    assert description["openapi"].startswith("3.")
    assert "/api/me" in description["paths"]


@pytest.mark.parametrize(
    ("endpoint", "resource"),
    [
        ("http://localhost:3001", None),
        ("https://bookstore.logto.app/", "logto-bookstore.logto.app"),
        ("https://logto.example:8443", "logto-logto.example-8443"),
        ("https://[::1]:8443", "logto-localhost-8443"),
        (f"https://{'a' * 56}.{'b' * 60}.example", f"logto-{'a' * 56}"),
    ],
)
def test_the_service_depends_on_its_logto_tenant(
    validators: Validators, bake: Bake, endpoint: str, resource: str | None
) -> None:
    component = entities(bake(logto_endpoint=endpoint, catalog_owner="web"))[0]
    if resource is None:
        # The local Logto runs on a developer's machine, so it is not in the catalog.
        assert "dependsOn" not in component["spec"]
        return
    assert component["spec"]["dependsOn"] == [f"resource:default/{resource}"]
    entity = {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Resource",
        "metadata": {"name": resource},
        "spec": {"type": "logto-tenant", "owner": "web"},
    }
    assert validators.ask(entity=entity) == []
