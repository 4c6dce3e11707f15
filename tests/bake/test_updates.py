"""`cruft update` brings the changes of the template and keeps the changes of the team."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from answers import SETTINGS, TEMPLATE
from conftest import Bake, BakedProject, environment
from repositories import commit_all, git, template_repository

pytest.importorskip("cruft")

Cruft = Callable[..., subprocess.CompletedProcess[str]]
EDITED_ENV = "LOGTO_APP_SECRET=from-the-console\n"


def run_cruft(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the cruft command in a folder, for a user without any configuration."""
    home = str(folder.parent / "empty-home")
    return subprocess.run(
        [sys.executable, "-m", "cruft", *words],
        cwd=folder,
        env=environment(HOME=home, USERPROFILE=home, PYTHONUTF8="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def template_and_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the template and with a service made from it, each in git."""
    folder = tmp_path_factory.mktemp("template-and-service")
    repository = template_repository(folder / "cookiecutter-logto")
    created = run_cruft(folder, "create", repository.as_uri(), "--no-input")
    assert created.returncode == 0, created.stdout + created.stderr
    git(folder / "bookstore", "init", "--quiet", "--initial-branch=main")
    git(folder / "bookstore", "add", "--all")
    git(folder / "bookstore", "commit", "--quiet", "--message=Begin")
    return folder


@pytest.fixture
def repository(template_and_service: Path, tmp_path: Path) -> Path:
    """Copy the template for one test."""
    source = template_and_service / "cookiecutter-logto"
    return Path(shutil.copytree(source, tmp_path / "cookiecutter-logto"))


@pytest.fixture
def service(template_and_service: Path, tmp_path: Path, repository: Path) -> Path:
    """Copy the service and connect it to the copy of the template."""
    source = template_and_service / "bookstore"
    service = Path(shutil.copytree(source, tmp_path / "bookstore"))
    cruft_json = service / ".cruft.json"
    state = json.loads(cruft_json.read_text("utf-8")) | {"template": str(repository)}
    cruft_json.write_text(json.dumps(state, indent=2), "utf-8")
    git(service, "commit", "--quiet", "--all", "--message=Move")
    return service


@pytest.fixture
def cruft(service: Path) -> Cruft:
    """Return a function that runs a cruft command in the service."""
    return functools.partial(run_cruft, service)


def test_a_service_is_what_cookiecutter_bakes(service: Path, bake: Bake) -> None:
    contents = BakedProject(service, {}).contents
    tracked = git(service, "ls-files", "-z").strip("\0").split("\0")
    assert ".env" not in tracked
    assert {**{name: contents[name] for name in tracked}, ".env": contents[".env"]} == {
        **bake().contents,
        ".cruft.json": contents[".cruft.json"],
    }


def test_a_new_service_with_an_edited_env_file_has_no_difference(
    service: Path, cruft: Cruft
) -> None:
    (service / ".env").write_text(EDITED_ENV, "utf-8")
    assert cruft("check").returncode == 0
    compared = cruft("diff", "--exit-code")
    assert (compared.returncode, compared.stdout) == (0, "")


def test_a_clone_with_the_line_endings_of_windows_shows_no_difference(
    service: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--config=core.autocrlf=true", "bookstore", "clone")
    shutil.copy(service / ".cruft.json", tmp_path / "clone")
    compared = run_cruft(tmp_path / "clone", "diff", "--exit-code")
    assert (compared.returncode, compared.stdout) == (0, "")


def test_a_checkout_gives_only_windows_scripts_the_line_endings_of_windows(service: Path) -> None:
    for name in ("start.cmd", "start.bat", "start.sh"):
        (service / name).write_bytes(b"one\ntwo\n")
    git(service, "add", "start.cmd", "start.bat", "start.sh")
    git(service, "commit", "--quiet", "--message=Start")
    for name in ("start.cmd", "start.bat", "start.sh"):
        (service / name).unlink()
    git(service, "checkout", "--", ".")
    endings = {path.name: b"\r\n" in path.read_bytes() for path in service.glob("start.*")}
    assert endings == {"start.cmd": True, "start.bat": True, "start.sh": False}


def test_a_change_of_the_template_arrives_as_a_clean_patch(
    service: Path, repository: Path, cruft: Cruft
) -> None:
    (service / ".env").write_text(EDITED_ENV, "utf-8")
    insert(service / "app/pages.py", "# Ours: shelves.\n", at_the_end=True)
    insert(service / "app/templates/home.html", "<p>Ours</p>\n", at_the_end=True)
    (service / "app/shelves.py").write_text('"""Ours."""\n', "utf-8")
    (service / "connectors/azure-ad.json").unlink()
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message=Work")

    source = repository / TEMPLATE.name
    insert(source / "app/pages.py", "# Theirs: for {{ cookiecutter.project_name }}.\n")
    insert(source / "app/templates/home.html", "<!-- Theirs -->\n")
    insert(source / ".env", "NEW=1\n")
    insert(source / ".env.example", "NEW=1\n")
    insert(source / "connectors/azure-ad.json", "\n")
    (source / "THEIRS.md").write_text("{{ cookiecutter.framework }}\n", "utf-8")
    commit_all(repository, "Continue")
    assert cruft("check").returncode == 1

    updated = cruft("update", "--skip-apply-ask")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert "reject" not in (updated.stdout + updated.stderr).lower()
    assert "is ready" not in updated.stdout
    assert not list(service.rglob("*.rej"))
    changed = {line[3:] for line in git(service, "status", "--porcelain").splitlines()}
    assert changed == {
        ".cruft.json", ".env.example", "THEIRS.md", "app/pages.py", "app/templates/home.html",
    }  # fmt: skip
    pages = (service / "app/pages.py").read_text("utf-8")
    assert pages.startswith("# Theirs: for Bookstore.\n")
    assert pages.endswith("# Ours: shelves.\n")
    assert (service / "app/templates/home.html").read_text("utf-8").endswith("<p>Ours</p>\n")
    assert (service / "THEIRS.md").read_text("utf-8") == "flask\n"
    assert (service / ".env").read_text("utf-8") == EDITED_ENV
    assert cruft("check").returncode == 0


def test_an_update_brings_the_new_version_of_the_template(
    service: Path, repository: Path, cruft: Cruft
) -> None:
    settings = repository / "cookiecutter.json"
    text = settings.read_text("utf-8")
    new = text.replace(f'"__version": "{SETTINGS["__version"]}"', '"__version": "99.0.0"')
    assert new != text
    settings.write_text(new, "utf-8")
    commit_all(repository, "Release")
    updated = cruft("update", "--skip-apply-ask")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert 'version = "99.0.0"\n' in (service / "pyproject.toml").read_text("utf-8")
    assert "version 99.0.0 of the template" in (service / "README.md").read_text("utf-8")


def insert(path: Path, text: str, *, at_the_end: bool = False) -> None:
    """Add text to a file, at its beginning or at its end."""
    content = path.read_text("utf-8")
    path.write_text(content + text if at_the_end else text + content, "utf-8")


def test_an_answer_can_be_changed_later(service: Path, cruft: Cruft, bake: Bake) -> None:
    answers = {"framework": "quart", "ci": "none"}
    updated = cruft("update", "--skip-apply-ask", "--variables-to-update", json.dumps(answers))
    assert updated.returncode == 0, updated.stdout + updated.stderr
    contents = BakedProject(service, {}).contents
    expected = bake(**answers).contents
    assert {name: contents[name] for name in expected} == expected
    assert set(git(service, "ls-files").split()) == set(expected) - {".env"} | {".cruft.json"}
