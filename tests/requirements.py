"""Prints the requirements of a bake of every framework for pip, one on each line.

It reads them from the pyproject.toml of each bake, so this repository lists no requirement twice.
"""

import tempfile
import tomllib
from pathlib import Path

from answers import ROOT, everything
from cookiecutter.main import cookiecutter

requirements = set()
with tempfile.TemporaryDirectory() as folder:
    for answers in everything(on=True):
        project = cookiecutter(
            str(ROOT),
            no_input=True,
            extra_context=answers,
            output_dir=str(Path(folder, str(answers["framework"]))),
            accept_hooks=False,
            default_config=True,
        )
        settings = tomllib.loads(Path(project, "pyproject.toml").read_text("utf-8"))
        requirements |= {
            *settings["project"]["dependencies"],
            *settings["dependency-groups"]["dev"],
        }

print(*sorted(requirements), sep="\n")
