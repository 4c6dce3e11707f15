"""The built-in action of Backstage makes the same files from template.yaml as the terminal.

The real action runs in the real workflow engine of two backends: the last version that renders with
Nunjucks, and a version that renders with nunjitsu.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from answers import ROOT, SETTINGS, TEMPLATE, Answers, everything, identifier
from backstage import (
    BUILT_IN,
    CASES,
    CATALOG,
    TYPED,
    Task,
    executables,
    odd_cases,
    parameters,
    require_npm_packages,
    tasks,
)
from conftest import BakedProject
from jinja2 import Environment, nodes
from rendered_hooks import all_variables, import_hook

# One worker runs these tests, so that each case is rendered and baked only once.
pytestmark = pytest.mark.xdist_group("fetch:template")

BACKENDS = {
    "Nunjucks": "@backstage/plugin-scaffolder-backend",
    "nunjitsu": "plugin-scaffolder-backend-4",
}
ODD = odd_cases()
CASES_BY_NAME = dict(zip(map(identifier, CASES), CASES, strict=True)) | {
    f"odd-{number}": answers for number, answers in enumerate(ODD)
}
# A task takes a third of a second. So Nunjucks gets fewer combinations: no option, all options, and
# everything that a user may enter.
CASES_OF = {
    "Nunjucks": [
        *map(identifier, [*everything(on=False), *everything(on=True), *TYPED]),
        *(f"odd-{number}" for number in range(len(ODD))),
    ],
    "nunjitsu": list(CASES_BY_NAME),
}
Run = dict[str, Task]

# For a pipeline and a host: the URL at which the repository is created.
HOSTS = [
    ("github", "github.com", "https://github.com/"),
    ("gitlab", "gitlab.com", "https://gitlab.com/"),
    ("none", "github.com", "https://github.com/"),
    ("none", "gitlab.acme.example", "https://gitlab.com/"),
]


def test_the_odd_answers_are_accepted() -> None:
    check = import_hook("pre_gen_project", all_variables())
    for answers in ODD:
        assert check.rejected(answers) == []
    assert len(ODD) > 15


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Return a function that runs the tasks of a backend, once for each backend.

    The tasks are its cases, each of `HOSTS`, and an answer that breaks a rule.
    """
    require_npm_packages()

    @functools.cache
    def run_of(backend: str) -> Run:
        sent = {name: parameters(CASES_BY_NAME[name]) for name in CASES_OF[backend]}
        for ci, host, _ in HOSTS:
            repository = f"{host}?owner=gitlab&repo=gitlab"
            sent[f"{ci}-{host}"] = parameters({"ci": ci, "catalog_owner": "web"}) | {
                "repo_url": repository
            }
        sent["refused"] = parameters({"project_name": "{{ 7*7 }}", "project_slug": "x"})
        folder = tmp_path_factory.mktemp("tasks")
        done = tasks(CATALOG, BACKENDS[backend], ROOT / "template.yaml", [*sent.values()], folder)
        return dict(zip(sent, done, strict=True))

    return run_of


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest, run_of: Callable[[str], Run]) -> Run:
    return run_of(request.param)


@pytest.mark.parametrize(
    ("backend", "name"), [(backend, name) for backend in BACKENDS for name in CASES_OF[backend]]
)
def test_the_built_in_action_and_the_terminal_make_the_same_files(
    run_of: Callable[[str], Run],
    bake_without_hooks: Callable[[Answers], BakedProject],
    backend: str,
    name: str,
) -> None:
    answers, task = CASES_BY_NAME[name], run_of(backend)[name]
    assert "error" not in task.result, task.result["error"]
    pushed, terminal = BakedProject(task.path, answers), bake_without_hooks(answers)
    assert pushed.contents == terminal.contents
    assert executables(pushed) == executables(terminal)
    assert pushed.folders == terminal.folders


def test_a_service_is_in_the_catalog_only_with_an_owner(run: Run) -> None:
    names = [name for name in map(identifier, CASES) if name in run]
    assert len(names) > 6
    for name in names:
        slug = all_variables(**CASES_BY_NAME[name])["project_slug"]
        _, *entry = run[name].result["output"]["links"]
        if CASES_BY_NAME[name].get("catalog_owner"):
            [location] = run[name].result["registered"]
            assert location.endswith("/main/catalog-info.yaml")
            assert [link["entityRef"] for link in entry] == [f"component:default/{slug}"]
        else:
            assert (run[name].result["registered"], entry) == ([], [])


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: "-".join(host[:2]))
def test_the_repository_is_created_at_the_host_of_its_pipeline(
    run: Run, host: tuple[str, str, str]
) -> None:
    result = run["-".join(host[:2])].result
    assert "error" not in result, result["error"]
    repository, _ = result["output"]["links"]
    assert repository["url"].startswith(host[2])
    assert result["registered"][0].startswith(host[2])


def test_the_backend_refuses_an_answer_that_breaks_a_rule(run: Run) -> None:
    assert "project_name does not match pattern" in run["refused"].result["error"]


# --- the constructs that Jinja2, Nunjucks and nunjitsu support --------------------------------

SHARED_FILTERS = {"capitalize", "upper"}
SHARED_NODES = (
    nodes.And, nodes.Compare, nodes.CondExpr, nodes.Const, nodes.Filter, nodes.FilterBlock,
    nodes.Getattr, nodes.If, nodes.Name, nodes.Not, nodes.Operand, nodes.Or, nodes.Output,
    nodes.TemplateData,
)  # fmt: skip
JINJA = Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701, it renders no HTML


def not_shared(source: str) -> list[str]:
    """Return the constructs in a template text that not all engines support."""
    faults = [f"line {line}: a comment" for line, kind, _ in JINJA.lex(source) if kind == "comment"]

    def visit(node: nodes.Node, parent: nodes.Node) -> None:
        fault = type(node).__name__ if not isinstance(node, SHARED_NODES) else None
        of_block = isinstance(parent, nodes.FilterBlock)  # Then the block itself is checked.
        if isinstance(node, nodes.Filter) and not of_block and node.name not in SHARED_FILTERS:
            fault = f"the filter {node.name}"
        if isinstance(node, nodes.FilterBlock):
            if node.filter.name != "replace" or node.filter.node is not None:
                fault = "a filter block that is not one replace"
            if any(text.attr == "project_name" for text in node.find_all(nodes.Getattr)):
                fault = "the name of the app in a filter block, which could change it"
        if isinstance(node, nodes.CondExpr) and isinstance(parent, nodes.CondExpr):
            fault = "an inline if in another"
        if isinstance(node, nodes.Operand) and node.op not in ("eq", "ne", "in"):
            fault = f"the comparison {node.op}"
        if isinstance(node, nodes.Name) and node.name != "cookiecutter":
            fault = f"the name {node.name}"
        if isinstance(node, nodes.Getattr) and not isinstance(node.node, nodes.Name):
            fault = f"the attribute {node.attr}"
        if isinstance(parent, nodes.Output) and is_boolean_or_list(node):
            fault = "a boolean or a list as text"
        if fault:
            faults.append(f"line {node.lineno}: {fault}")
        for child in node.iter_child_nodes():
            visit(child, node)

    template = JINJA.parse(source)
    for node in template.body:
        visit(node, template)
    return faults


def is_boolean_or_list(node: nodes.Node) -> bool:
    """Return whether the result is a boolean or a list, which the engines print differently."""
    if isinstance(node, nodes.Getattr):
        return isinstance(SETTINGS.get(node.attr), bool)
    return isinstance(node, nodes.And | nodes.Or | nodes.Not | nodes.Compare | nodes.List)


def rendered_files() -> list[Path]:
    """Return the files of the template that are rendered."""
    copied = {
        path for pattern in SETTINGS["_copy_without_render"] for path in TEMPLATE.glob(pattern)
    }
    return sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and path not in copied)


def test_the_template_uses_only_constructs_that_all_engines_support() -> None:
    faults = []
    for path in rendered_files():
        name = path.relative_to(TEMPLATE).as_posix()
        faults += [f"{name}: its name: {fault}" for fault in not_shared(name)]
        faults += [f"{name}: {fault}" for fault in not_shared(path.read_text("utf-8"))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    [
        '{% if cookiecutter.logto_endpoint.startswith("https") %}{% endif %}',
        "{{ cookiecutter.project_name.strip() }}",
        '{{ cookiecutter.project_name.replace("a", "b") }}',
        '{{ cookiecutter.project_name | replace("a", "b") }}',
        '{% filter replace("a", "b") | replace("c", "d") %}{% endfilter %}',
        '{% filter upper | replace("a", "b") %}{% endfilter %}',
        "{% filter trim %}{% endfilter %}",
        '{% filter replace("a", "b") %}{{ cookiecutter.project_name }}{% endfilter %}',
        "{{ cookiecutter.project_name[:8] }}",
        "{{ cookiecutter.project_name[-1] }}",
        "{{ '%c' % 47 }}",
        "{{ cookiecutter.project_name | tojson }}",
        '{{ "%s" | format(1) }}',
        "{{ cookiecutter.project_name | urlencode }}",
        "{{ 1 if cookiecutter.ci else 2 if cookiecutter.framework else 3 }}",
        "{% set it = namespace(a=1) %}",
        "{# a note #}\n",
        "{{ cookiecutter.use_docker }}",
        '{{ cookiecutter.ci == "none" }}',
        "{{ [1, 2] }}",
        "{% for word in cookiecutter.ci %}{% endfor %}",
        "{{ project_name }}",
    ],
)
def test_a_construct_that_an_engine_does_not_support_is_found(source: str) -> None:
    assert not_shared(f"text\n{source}") != []


def test_the_template_uses_only_variables_that_the_action_gets() -> None:
    passed = BUILT_IN["spec"]["steps"][0]["input"]["values"]
    for path in rendered_files():
        for source in (path.relative_to(TEMPLATE).as_posix(), path.read_text("utf-8")):
            for node in JINJA.parse(source).find_all(nodes.Getattr):
                assert node.attr in passed, f"{path.name}: {node.attr}"
