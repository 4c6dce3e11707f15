"""Print the next steps. Whatever the terminal is like, the project is there by now."""

import json
import os
import sys
from collections.abc import Mapping

# tojson escapes quotes and all that is not ASCII: no answer can end this literal.
ANSWERS = json.loads(
    r"""
{{ cookiecutter | tojson }}
""".strip()
)

NEXT_STEPS = """
{name} is ready.

# Run it, with a local Logto beside it and no account needed:
    cd {folder}
    uv run python -m dev

# Or without uv:
    cd {folder}
    {python} -m venv .venv
    {activate}
    python -m pip install --upgrade pip
    python -m pip install --editable . --group dev
    python -m dev

# To use your own Logto:
    1. Logto Console > Applications > your app > Settings:
         Redirect URI                 {callback}
         Post sign-out redirect URI   {origin}/
         Back-channel logout URI      {origin}/backchannel-logout{backchannel_note}
    2. Azure portal > App registrations > your app > Authentication > Web:
         Redirect URI                 {endpoint}/callback/azuread{azure_note}
    3. Enter {in_env} in .env, from the same page as in 1.
    4. uv run {framework} logto check        says what is still missing
    5. uv run {framework} run
"""


def next_steps(answers: Mapping[str, str], folder: str, *, windows: bool, colour: bool) -> str:
    """Say how to run the project in `folder`, and what to enter in Logto and in Azure.

    `folder` is written as the shell takes it; `colour` makes the headings bold.
    """
    origin, endpoint = answers["__origin"], answers["__logto_endpoint"]
    own_endpoint = not endpoint.startswith("http://")
    bold, plain = ("\033[1m", "\033[0m") if colour else ("", "")
    text = "\n".join(
        f"{bold}{line[2:]}{plain}" if line.startswith("# ") else line
        for line in NEXT_STEPS.split("\n")
    )
    return text.format(
        name=answers["project_name"],
        folder=folder,
        python="py" if windows else "python3",
        activate=r".venv\Scripts\activate" if windows else ". .venv/bin/activate",
        callback=answers["callback_url"],
        origin=origin,
        # Logto drops these calls without a word, so one would look for the fault in vain.
        backchannel_note=" (once the app has a public address)" * origin.startswith("http://"),
        endpoint=endpoint,
        azure_note="" if own_endpoint else f" (with your LOGTO_ENDPOINT for {endpoint})",
        in_env="LOGTO_APP_SECRET"
        if own_endpoint
        else "LOGTO_ENDPOINT, LOGTO_APP_ID, LOGTO_APP_SECRET",
        framework=answers["framework"],
    )


def shown_folder() -> str:
    """Give the way to the project from where the person is, as far as that can be known."""
    here = os.getcwd()  # noqa: PTH109, importing pathlib would cost more than the rest of the hook
    if here == os.environ.get("PWD", "") + os.sep + ANSWERS["project_slug"]:
        return str(ANSWERS["project_slug"])
    if os.name == "nt":
        return f'"{here}"'
    import shlex

    return shlex.quote(here)


def is_for_comparison() -> bool:
    """Tell whether cruft bakes this in a temporary folder, to see what an update would change."""
    if "_output_dir" in ANSWERS:
        return False
    import tempfile

    return os.getcwd().startswith(os.path.realpath(tempfile.gettempdir()))  # noqa: PTH109


def main() -> None:
    """Print the steps, and never fail: Cookiecutter would delete the project again."""
    try:
        colour = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        # A console with few characters must not stumble over an emoji in the name.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        print(
            next_steps(ANSWERS, shown_folder(), windows=os.name == "nt", colour=colour), flush=True
        )
    except (AttributeError, OSError, ValueError):
        # No console, or a closed one. Python would flush once more and fail on its way out.
        os._exit(0)


if __name__ == "__main__" and not is_for_comparison():
    main()
