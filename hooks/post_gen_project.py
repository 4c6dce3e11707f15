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

# Run it{shell}, with a local Logto beside it and no account needed:
    cd {folder}
    uv run python -m dev

# Or without uv{version}:
    cd {folder}
    {python} -m venv .venv
    {bin}python -m pip install --upgrade pip
    {bin}python -m pip install --editable . --group dev
    {bin}python -m dev

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
        # PowerShell refuses to activate an environment, unless its policy was changed.
        bin=".venv\\Scripts\\" if windows else ".venv/bin/",
        # In cmd, `cd` does not change the drive.
        shell=" in PowerShell" if windows else "",
        # Python 3.11 cannot find an installed project if its path is not ASCII.
        version=", with Python 3.12 or newer" if windows else "",
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
    return quoted(here, windows=os.name == "nt")


def quoted(path: str, *, windows: bool) -> str:
    """Quote a path for a POSIX shell, or for PowerShell, as the check before the bake does."""
    import re
    import shlex

    if not windows:
        return shlex.quote(path)
    if re.search("[$`%\u201c-\u201e]", path):
        return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", path) + "'"
    return path if re.fullmatch(r"[A-Za-z0-9_:\\.-]+", path) else f'"{path}"'


def is_for_comparison() -> bool:
    """Tell whether cruft bakes this in a temporary folder, to see what an update would change."""
    if "_output_dir" in ANSWERS:
        return False
    import tempfile

    # On Windows, TEMP may have a short name: C:\Users\ADA_~E10 for C:\Users\ada_lovelace.
    here = os.path.realpath(os.getcwd())  # noqa: PTH109
    return here.startswith(os.path.realpath(tempfile.gettempdir()) + os.sep)


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
