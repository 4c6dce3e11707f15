"""The hooks as modules, rendered in the way that Cookiecutter renders them."""

from types import ModuleType
from typing import Any

from answers import ROOT
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context


def as_typed(answer: Any) -> Any:
    """Write a text so that it comes out as it is, as typed texts do and overrides do not."""
    if not isinstance(answer, str):
        return answer
    literal = answer.encode("unicode_escape").decode().replace('"', r"\x22")
    return '{{ "' + literal + '" }}'


def all_variables(**answers: Any) -> dict[str, Any]:
    """All variables, as they are when these answers were typed and Enter was pressed at the rest.

    What Cookiecutter itself would not take, such as an unknown choice, passes here, as it does
    when it comes from a replay file.
    """
    context = generate_context(str(ROOT / "cookiecutter.json"))
    for name, answer in answers.items():
        context["cookiecutter"][name] = as_typed(answer)
    return dict(prompt_for_config(context, no_input=True))


def render_hook(hook: str, variables: dict[str, Any]) -> str:
    """The source of a hook, with these variables in it."""
    context = {"cookiecutter": variables}
    source = (ROOT / "hooks" / f"{hook}.py").read_text("utf-8")
    text: str = create_env_with_context(context).from_string(source).render(**context)
    return text


def import_hook(hook: str, variables: dict[str, Any]) -> ModuleType:
    """A hook as a module whose functions can be called; its main part does not run."""
    module = ModuleType(hook)
    exec(compile(render_hook(hook, variables), f"{hook}.py", "exec"), vars(module))  # noqa: S102
    return module
