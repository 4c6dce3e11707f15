"""The version of the template is in each project and in the changelog."""

import re
import tomllib

from answers import ROOT, SETTINGS
from conftest import Bake

VERSION = SETTINGS["__version"]


def test_a_project_names_the_version_of_its_template(bake: Bake) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    project = bake()
    settings = tomllib.loads(project.read("pyproject.toml"))
    assert settings["tool"]["cookiecutter-logto"] == {"version": VERSION}
    assert f"version {VERSION} of the template" in project.read("README.md")


def test_the_changelog_lists_the_manual_steps_of_an_update_to_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    released = [section for section in sections if not section.startswith("Unreleased\n")]
    assert released[0].startswith(f"{VERSION}\n")
    assert "by hand after `cruft update`" in released[0]
