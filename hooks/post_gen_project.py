"""Print the next steps. The project is complete by now, so this hook never fails."""

import os
import sys

# The check before the bake rejects quotes and backslashes, so no answer can end its literal.
ANSWERS = {
    "project_name": "{{ cookiecutter.project_name }}",
    "project_slug": "{{ cookiecutter.project_slug }}",
    "framework": "{{ cookiecutter.framework }}",
}

# Cookiecutter sets the output folder; cruft does not.
HAS_OUTPUT_FOLDER = bool("{{ 'yes' if '_output_dir' in cookiecutter else '' }}")

# `quoted` does not change these characters. They are listed here because the import of regular
# expressions takes longer than the rest of the hook.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-" + os.sep)

NEXT_STEPS = """
{name} is ready.

# Run it{shell}, with a local Logto and without an account:
    cd {folder}
    uv run python -m dev

# Or without uv{version}:
    cd {folder}
    {python} -m venv .venv
    {bin}python -m pip install --upgrade pip
    {bin}python -m pip install --editable . --group dev
    {bin}python -m dev

# Then read README.md: how to add a page, and how to connect your own Logto.
    uv run {framework} logto check   says what is still missing
"""


def next_steps(answers: dict[str, str], folder: str, *, windows: bool, colour: bool) -> str:
    """Return how to run the project in `folder`, in 24 lines of 80 columns.

    `folder` is quoted for the shell. `colour` makes the headings bold.
    """
    bold, plain = ("\033[1m", "\033[0m") if colour else ("", "")
    text = "\n".join(
        f"{bold}{line[2:]}{plain}" if line.startswith("# ") else line
        for line in NEXT_STEPS.split("\n")
    )
    return text.format(
        name=answers["project_name"],
        folder=folder,
        python="py" if windows else "python3",
        # PowerShell does not activate an environment unless its policy was changed.
        bin=".venv\\Scripts\\" if windows else ".venv/bin/",
        # In cmd, `cd` does not change the drive.
        shell=" in PowerShell" if windows else "",
        # Python 3.11 cannot find an installed project if its path is not ASCII.
        version=", with Python 3.12 or newer" if windows else "",
        framework=answers["framework"],
    )


def shown_folder() -> str:
    """Return the project's path from the user's folder, or its full path if that is not known."""
    here = os.getcwd()  # noqa: PTH109, importing pathlib takes longer than the rest of the hook
    if here == os.environ.get("PWD", "") + os.sep + ANSWERS["project_slug"]:
        return ANSWERS["project_slug"]
    return here if PLAIN.issuperset(here) else quoted(here, windows=os.name == "nt")


def quoted(path: str, *, windows: bool) -> str:
    """Quote a path for a POSIX shell or PowerShell, like the pre_gen hook."""
    import re
    import shlex

    if not windows:
        return shlex.quote(path)
    if re.search("[$`%\u201c-\u201e]", path):
        return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", path) + "'"
    return path if re.fullmatch(r"[A-Za-z0-9_:\\.-]+", path) else f'"{path}"'


def is_for_comparison() -> bool:
    """Return whether cruft bakes in a temporary folder, to compare an update."""
    if HAS_OUTPUT_FOLDER:
        return False
    import tempfile

    # On Windows, TEMP may have a short name: C:\Users\ADA_~E10 for C:\Users\ada_lovelace.
    here = os.path.realpath(os.getcwd())  # noqa: PTH109
    return here.startswith(os.path.realpath(tempfile.gettempdir()) + os.sep)


def main() -> None:
    """Print the steps, and never fail: after an error, Cookiecutter would delete the project."""
    try:
        colour = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        # A console with few characters must not fail on an emoji in the name.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        print(
            next_steps(ANSWERS, shown_folder(), windows=os.name == "nt", colour=colour), flush=True
        )
    except (AttributeError, OSError, ValueError):
        # There is no console, or it is closed. At exit, Python would flush again and fail.
        os._exit(0)


if __name__ == "__main__" and not is_for_comparison():
    main()
