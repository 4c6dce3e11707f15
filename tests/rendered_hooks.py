"""Renders the hooks as Cookiecutter does, and imports them as modules."""

from types import ModuleType
from typing import Any

from answers import ROOT
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context


def as_typed(answer: Any) -> Any:
    """Escape a text as a Jinja string, so that Cookiecutter does not render it again.

    Cookiecutter renders overrides, but not what a user types at a prompt.
    """
    if not isinstance(answer, str):
        return answer
    literal = answer.encode("unicode_escape").decode().replace('"', r"\x22")
    return '{{ "' + literal + '" }}'


def all_variables(**answers: Any) -> dict[str, Any]:
    """Return all variables for a user who types these answers and accepts the other defaults.

    An answer that Cookiecutter would refuse at a prompt, such as an unknown choice, stays in the
    result. From a replay file, Cookiecutter accepts such an answer, too.
    """
    context = generate_context(str(ROOT / "cookiecutter.json"))
    for name, answer in answers.items():
        context["cookiecutter"][name] = as_typed(answer)
    return dict(prompt_for_config(context, no_input=True))


def render_hook(hook: str, variables: dict[str, Any]) -> str:
    """Return the source of a hook, rendered with these variables."""
    context = {"cookiecutter": variables}
    source = (ROOT / "hooks" / f"{hook}.py").read_text("utf-8")
    text: str = create_env_with_context(context).from_string(source).render(**context)
    return text


def import_hook(hook: str, variables: dict[str, Any]) -> ModuleType:
    """Return a hook as a module whose functions a test can call. Its main part does not run."""
    module = ModuleType(hook)
    exec(compile(render_hook(hook, variables), f"{hook}.py", "exec"), vars(module))  # noqa: S102
    return module
