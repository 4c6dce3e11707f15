"""Every way to run Cookiecutter gives the same project, or one clear message."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from answers import ROOT, SETTINGS, TEMPLATE, UPDATED_FOLDERS, Answers
from conftest import Bake, BakedProject, environment
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from interpreters import VERSIONS, interpreter
from repositories import git, template_repository

Run = Callable[..., subprocess.CompletedProcess[str]]

SLUG = "ada-s-books"
ANSWERS: Answers = {
    "project_name": "Ada's Books",
    "framework": "quart",
    "use_docker": False,
    "ci": "gitlab",
    "api_resource": "https://api.books.example",
}
OVERRIDES = [f"{name}={answer}" for name, answer in ANSWERS.items()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home folder with a config file, so that Cookiecutter keeps its files there."""
    path = tmp_path / "home"
    path.mkdir()
    configure(path)
    return path


def configure(home: Path, **settings: object) -> None:
    """Write the config file of Cookiecutter with these settings."""
    folders = {"cookiecutters_dir": str(home / "templates"), "replay_dir": str(home / "replay")}
    # Cookiecutter 1.7 can read this simple YAML, too.
    (home / "config.yaml").write_text(yaml.safe_dump(folders | settings), "utf-8")


@pytest.fixture
def run(tmp_path: Path, home: Path) -> Run:
    """Return a function that runs cookiecutter with the output folder `out`."""

    def run(
        *words: str, python: str = sys.executable, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        variables |= {"COOKIECUTTER_CONFIG": str(home / "config.yaml"), "PYTHONUTF8": "1"}
        return subprocess.run(
            [python, "-m", "cookiecutter", *words, "--output-dir", "out"],
            env=environment(**variables),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def baked(out: Path, done: subprocess.CompletedProcess[str], slug: str = SLUG) -> dict[str, bytes]:
    """Check that a command made one project, and return the contents of its files."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in out.iterdir()] == [slug]
    return BakedProject(out / slug, {}).contents


def test_a_local_folder_gives_the_project(run: Run, out: Path, bake: Bake) -> None:
    done = run(str(ROOT), "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents
    assert "Ada's Books is ready" in done.stdout


def test_a_tag_of_a_git_repository_gives_the_project(
    run: Run, out: Path, tmp_path: Path, bake: Bake
) -> None:
    repository = template_repository(tmp_path / "cookiecutter-logto")
    git(repository, "tag", "v1")
    git(repository, "rm", "--quiet", "cookiecutter.json")
    git(repository, "commit", "--quiet", "--message=Break")
    done = run(repository.as_uri(), "--checkout", "v1", "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents


def test_a_zip_file_gives_the_project(run: Run, out: Path, tmp_path: Path, bake: Bake) -> None:
    repository = template_repository(tmp_path / "cookiecutter-logto")
    git(repository, "archive", "--prefix=cookiecutter-logto-1/", "--output=../logto.zip", "main")
    done = run("logto.zip", "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents


def test_a_read_only_template_in_a_zip_file_gives_writable_files(
    run: Run, out: Path, tmp_path: Path
) -> None:
    # Cookiecutter copies the file modes of a folder, but it reads no modes from a zip file.
    repository = template_repository(tmp_path / "cookiecutter-logto")
    for path in (repository / TEMPLATE.name).rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    shutil.make_archive(str(tmp_path / "logto"), "zip", tmp_path, repository.name)
    for template, writable in ((repository.name, False), ("logto.zip", True)):
        done = run(template, "--no-input")
        assert done.returncode == 0, done.stderr
        modes = {path.stat().st_mode & 0o200 for path in out.rglob("*") if path.is_file()}
        assert modes == {0o200 if writable else 0}, template
        for path in out.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(out)


@pytest.fixture
def last_answers(run: Run, out: Path, home: Path) -> Path:
    """Bake once, and return the replay file with the answers."""
    run(str(ROOT), "--no-input", *OVERRIDES)
    shutil.rmtree(out)
    (replay_file,) = (home / "replay").iterdir()
    return replay_file


def test_a_replay_gives_the_same_project(
    run: Run, out: Path, last_answers: Path, bake: Bake
) -> None:
    answers_file = last_answers.parent / "answers.json"
    shutil.copy(last_answers, answers_file)
    assert baked(out, run(str(ROOT), "--replay")) == bake(**ANSWERS).contents
    shutil.rmtree(out)
    done = run(str(ROOT), "--replay-file", str(answers_file))
    assert baked(out, done) == bake(**ANSWERS).contents


def test_the_answers_of_an_edited_replay_file_are_checked(
    run: Run, out: Path, last_answers: Path
) -> None:
    answers = json.loads(last_answers.read_text("utf-8"))
    answers["cookiecutter"] |= {"framework": "django", "use_docker": "false"}
    last_answers.write_text(json.dumps(answers), "utf-8")
    done = run(str(ROOT), "--replay")
    assert done.returncode == 1
    assert "- Web framework (framework): 'django'." in done.stderr
    assert "- Add a Dockerfile and compose.yaml (use_docker): 'false'." in done.stderr
    assert list(out.iterdir()) == []


def test_a_replay_file_of_another_template_version_makes_no_project(
    run: Run, out: Path, last_answers: Path
) -> None:
    answers = json.loads(last_answers.read_text("utf-8"))
    for name in ("__dependabot", "__logto_resource"):
        del answers["cookiecutter"][name]
    last_answers.write_text(json.dumps(answers), "utf-8")
    done = run(str(ROOT), "--replay")
    assert done.returncode == 1
    assert not out.exists()


def test_defaults_from_the_user_config_are_used(
    run: Run, out: Path, home: Path, bake: Bake
) -> None:
    defaults = {"logto_endpoint": "https://login.acme.example", "use_docker": "no", "ci": "gitlab"}
    configure(home, default_context=defaults)
    expected = bake(**defaults | {"use_docker": False}).contents
    assert baked(out, run(str(ROOT), "--no-input"), "bookstore") == expected


def test_a_bad_choice_in_the_user_config_ends_a_pipeline_with_warnings_as_errors(
    run: Run, out: Path, home: Path
) -> None:
    defaults = {"ci": "jenkins", "logto_endpoint": "https://login.acme.example"}
    configure(home, default_context=defaults)
    # Cookiecutter only warns, and ignores the bad choice and all entries after it.
    assert (
        b"login.acme.example" not in baked(out, run(str(ROOT), "--no-input"), "bookstore")[".env"]
    )
    shutil.rmtree(out)
    # The documented pipeline sets this variable.
    setting = "PYTHONWARNINGS=error::UserWarning"
    assert setting in (ROOT / "docs/backstage.md").read_text("utf-8")
    name, _, value = setting.partition("=")
    done = run(str(ROOT), "--no-input", **{name: value})
    assert done.returncode == 1
    assert "jenkins provided for choice variable ci" in done.stderr.splitlines()[-1]
    assert not out.exists()
    configure(home, default_context=defaults | {"ci": "gitlab"})
    done = run(str(ROOT), "--no-input", **{name: value})
    assert b"LOGTO_ENDPOINT=https://login.acme.example\n" in baked(out, done, "bookstore")[".env"]


# With other versions of Cookiecutter


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "words"),
    [
        # Debian 12 has this version. It renders the name of the folder without __name_slug.
        (["cookiecutter==1.7.3", "jinja2-time", "poyo", "six"], []),
        (["cookiecutter==2.1.1", "jinja2-time"], []),
        (["cookiecutter==2.6.0"], ["use_docker=true"]),
    ],
    ids=lambda value: value[0] if value else "defaults",
)
def test_the_message_for_an_old_cookiecutter_names_the_required_version_in_one_line(
    run: Run, out: Path, tmp_path: Path, packages: list[str], words: list[str]
) -> None:
    target = tmp_path / "old"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--no-deps"]
    subprocess.run([*pip, "--target", target, *packages], check=True, capture_output=True)
    done = run(str(ROOT), "--no-input", *words, PYTHONPATH=str(target))
    assert done.returncode == 1
    messages = [line for line in done.stderr.splitlines() if "No project was made" in line]
    assert len(messages) == 1, done.stderr
    assert "needs Cookiecutter 2.7 or newer" in messages[0]
    assert 'python -m pip install --upgrade "cookiecutter>=2.7"' in messages[0]
    assert "Accepted:" not in done.stderr
    assert not [path for path in out.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["yes", "true", "True", "1", "y", "on"], True),
        (["no", "false", "False", "0", "n", "off"], False),
    ],
)
def test_words_for_yes_and_no_become_booleans(words: list[str], answer: bool) -> None:
    for word in words:
        overridden = {"use_docker": word}
        context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=overridden)
        assert prompt_for_config(context, no_input=True)["use_docker"] is answer


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("framework=django", "but the choices are ['flask', 'quart']"),
        ("use_docker=maybe", "could not be converted to a boolean"),
    ],
)
def test_cookiecutter_refuses_an_unknown_choice_by_name(
    run: Run, out: Path, override: str, message: str
) -> None:
    done = run(str(ROOT), "--no-input", override)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert not out.exists()


def test_bad_answers_leave_a_message_and_nothing_else(run: Run, out: Path) -> None:
    done = run(str(ROOT), "--no-input", "project_slug=My Shop", "callback_url=/callback")
    assert done.returncode == 1
    assert done.stderr.count("\n- ") == 2
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_the_completed_command_of_the_message_bakes_the_project(
    run: Run, out: Path, tmp_path: Path, home: Path, bake: Bake
) -> None:
    answers = {**ANSWERS, "project_slug": "books", "project_name": "$(id) & 'more' 📚"}
    overrides = [f"{name}={answer}" for name, answer in answers.items()]
    done = run(str(ROOT), "--no-input", *overrides, "logto_app_id=not good")
    (command,) = [line for line in done.stderr.splitlines() if line.startswith("cookiecutter ")]
    assert "'logto_app_id=\\CHANGE-ME'" in command
    completed = subprocess.run(
        ["sh", "-c", command.replace("\\CHANGE-ME", "good")],
        env=environment(COOKIECUTTER_CONFIG=str(home / "config.yaml")),
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert baked(out, completed, "books") == bake(**answers, logto_app_id="good").contents


# Over an existing project


@pytest.fixture
def edited_project(bake: Bake, out: Path) -> Path:
    """Bake a project and edit some of its files."""
    project = Path(shutil.copytree(bake().path, out / "bookstore"))
    for name in ("README.md", ".env", "app/pages.py", "app/templates/home.html"):
        (project / name).write_text("mine\n", "utf-8")
    (project / "app/shelves.py").write_text("mine\n", "utf-8")
    return project


def test_an_existing_project_is_left_alone(run: Run, edited_project: Path) -> None:
    done = run(str(ROOT), "--no-input")
    assert done.returncode == 1
    assert "already exists" in done.stdout
    assert (edited_project / "README.md").read_text("utf-8") == "mine\n"


def test_overwriting_restores_the_files_of_the_template(
    run: Run, edited_project: Path, bake: Bake
) -> None:
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists")
    contents = baked(edited_project.parent, done, "bookstore")
    assert contents.pop("app/shelves.py") == b"mine\n"
    assert contents == bake().contents


def test_skipping_existing_files_keeps_edited_files(run: Run, edited_project: Path) -> None:
    (edited_project / "pyproject.toml").unlink()
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
    assert done.returncode == 0
    for name in ("README.md", ".env", "app/pages.py", "app/templates/home.html", "app/shelves.py"):
        assert (edited_project / name).read_text("utf-8") == "mine\n"
    assert (edited_project / "pyproject.toml").exists()


def test_skipping_existing_files_overwrites_files_that_are_copied_unrendered(
    run: Run, edited_project: Path
) -> None:
    # Cookiecutter does not skip these files, which is a bug. So pages of the app, which a team
    # edits, use raw blocks instead. When Cookiecutter fixes the bug, they need no raw blocks.
    copied = [edited_project / name for name in ("dev/templates/home.html", "dev/oidc.py")]
    for path in copied:
        path.write_text("mine\n", "utf-8")
    run(str(ROOT), "--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
    for path in copied:
        assert path.read_text("utf-8") != "mine\n"


def test_only_files_that_a_team_leaves_alone_are_copied_unrendered() -> None:
    for pattern in SETTINGS["_copy_without_render"]:
        assert list(TEMPLATE.glob(pattern)), pattern
        assert pattern.startswith(tuple(f"{folder}/" for folder in UPDATED_FOLDERS)), pattern


def test_bad_answers_leave_an_existing_project_unchanged(run: Run, edited_project: Path) -> None:
    before = BakedProject(edited_project, {}).contents
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists", "logto_app_id=not good")
    assert done.returncode == 1
    assert BakedProject(edited_project, {}).contents == before


# With other Pythons


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_bakes_the_same_project(run: Run, out: Path, bake: Bake, version: str) -> None:
    # Cookiecutter and its dependencies also work without compiled modules, so each version of
    # Python can import the packages of this Python.
    packages = sysconfig.get_path("purelib")
    done = run(
        str(ROOT), "--no-input", *OVERRIDES, python=interpreter(version), PYTHONPATH=packages
    )
    assert baked(out, done) == bake(**ANSWERS).contents
