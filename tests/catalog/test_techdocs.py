"""TechDocs, the MkDocs of Backstage, shows the README and the pages of the team."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from answers import Answers, everything, identifier
from backstage import TYPED
from conftest import Bake

CASES = [*everything(on=True), *TYPED]


@pytest.mark.parametrize("answers", CASES, ids=[*map(identifier, CASES[:2]), *"123"])
def test_techdocs_shows_the_readme_and_the_pages_of_the_team(
    bake: Bake, answers: Answers, tmp_path: Path
) -> None:
    project = bake(**answers)
    component = next(yaml.safe_load_all(project.read("catalog-info.yaml")))
    source, _, folder = component["metadata"]["annotations"]["backstage.io/techdocs-ref"].partition(
        ":"
    )
    assert (source, folder) == ("dir", ".")
    docs = Path(shutil.copytree(project.path, tmp_path / "project")) / "docs"
    # Without a docs/index.md, TechDocs makes this page from the README.
    shutil.copy(docs.parent / "README.md", docs / "index.md")
    (docs / "runbook.md").write_text("# Runbook\n\nRestart it.\n", "utf-8")
    built = replace(project, path=docs.parent)
    built.run("python", "-m", "mkdocs", "build", "--strict", "--quiet")
    name = str(answers.get("project_name", "Bookstore"))
    assert json.loads(built.read("site/techdocs_metadata.json"))["site_name"] == name
    first = built.read("site/index.html")
    assert 'id="run-it-now"' in first
    assert 'href="runbook/"' in first
    assert "Restart it." in built.read("site/runbook/index.html")
    for page in ("recipes", "logto", "production"):
        assert f'href="{page}/"' in first
