"""Every way to give the answers leads to the same project, or to one clear message."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from answers import ROOT, TEMPLATE, Answers
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
    """A folder for what Cookiecutter keeps of one person, with the config file that says so."""
    path = tmp_path / "home"
    path.mkdir()
    configure(path)
    return path


def configure(home: Path, **settings: object) -> None:
    folders = {"cookiecutters_dir": str(home / "templates"), "replay_dir": str(home / "replay")}
    # In the simple YAML that Cookiecutter 1.7 reads as well.
    (home / "config.yaml").write_text(yaml.safe_dump(folders | settings), "utf-8")


@pytest.fixture
def run(tmp_path: Path, home: Path) -> Run:
    """Run the cookiecutter command; the project goes to the folder `out`."""

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
    """What a command has baked."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in out.iterdir()] == [slug]
    return BakedProject(out / slug, {}).contents


def test_a_local_folder(run: Run, out: Path, bake: Bake) -> None:
    done = run(str(ROOT), "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents
    assert "Ada's Books is ready" in done.stdout


def test_a_tag_of_a_git_repository(run: Run, out: Path, tmp_path: Path, bake: Bake) -> None:
    repository = template_repository(tmp_path / "cookiecutter-logto")
    git(repository, "tag", "v1")
    git(repository, "rm", "--quiet", "cookiecutter.json")
    git(repository, "commit", "--quiet", "--message=Break")
    done = run(repository.as_uri(), "--checkout", "v1", "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents


def test_a_zip_file(run: Run, out: Path, tmp_path: Path, bake: Bake) -> None:
    repository = template_repository(tmp_path / "cookiecutter-logto")
    git(repository, "archive", "--prefix=cookiecutter-logto-1/", "--output=../logto.zip", "main")
    done = run("logto.zip", "--no-input", *OVERRIDES)
    assert baked(out, done) == bake(**ANSWERS).contents


def test_a_read_only_template_gives_writable_files_from_a_zip_file(
    run: Run, out: Path, tmp_path: Path
) -> None:
    # Cookiecutter copies the modes of a folder, but no zip file has any for it.
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
    """What Cookiecutter keeps of the last answers to this template."""
    run(str(ROOT), "--no-input", *OVERRIDES)
    shutil.rmtree(out)
    (kept,) = (home / "replay").iterdir()
    return kept


def test_the_last_answers_again(run: Run, out: Path, last_answers: Path, bake: Bake) -> None:
    answers_file = last_answers.parent / "answers.json"
    shutil.copy(last_answers, answers_file)
    assert baked(out, run(str(ROOT), "--replay")) == bake(**ANSWERS).contents
    shutil.rmtree(out)
    done = run(str(ROOT), "--replay-file", str(answers_file))
    assert baked(out, done) == bake(**ANSWERS).contents


def test_kept_answers_that_somebody_edited_are_checked(
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


def test_kept_answers_of_another_version_of_the_template_make_no_project(
    run: Run, out: Path, last_answers: Path
) -> None:
    answers = json.loads(last_answers.read_text("utf-8"))
    for name in ("__dependabot", "__logto_resource"):
        del answers["cookiecutter"][name]
    last_answers.write_text(json.dumps(answers), "utf-8")
    done = run(str(ROOT), "--replay")
    assert done.returncode == 1
    assert not out.exists()


def test_the_defaults_of_an_organization(run: Run, out: Path, home: Path, bake: Bake) -> None:
    defaults = {"logto_endpoint": "https://login.acme.example", "use_docker": "no", "ci": "gitlab"}
    configure(home, default_context=defaults)
    expected = bake(**defaults | {"use_docker": False}).contents
    assert baked(out, run(str(ROOT), "--no-input"), "bookstore") == expected


def test_a_bad_choice_among_the_defaults_ends_a_pipeline_that_asks_for_it(
    run: Run, out: Path, home: Path
) -> None:
    defaults = {"ci": "jenkins", "logto_endpoint": "https://login.acme.example"}
    configure(home, default_context=defaults)
    # Cookiecutter drops the bad choice and all entries after it. It only warns.
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
        # Debian 12 has this one; it makes the folder's name without __name_slug.
        (["cookiecutter==1.7.3", "jinja2-time", "poyo", "six"], []),
        (["cookiecutter==2.1.1", "jinja2-time"], []),
        (["cookiecutter==2.6.0"], ["use_docker=true"]),
    ],
    ids=lambda value: value[0] if value else "defaults",
)
def test_an_old_cookiecutter_is_told_in_one_line_which_version_it_takes(
    run: Run, out: Path, tmp_path: Path, packages: list[str], words: list[str]
) -> None:
    target = tmp_path / "old"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--no-deps"]
    subprocess.run([*pip, "--target", target, *packages], check=True, capture_output=True)
    done = run(str(ROOT), "--no-input", *words, PYTHONPATH=str(target))
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "No project was made" in line]
    assert len(said) == 1, done.stderr
    assert "needs Cookiecutter 2.7 or newer" in said[0]
    assert 'python -m pip install --upgrade "cookiecutter>=2.7"' in said[0]
    assert "Accepted:" not in done.stderr
    assert not [path for path in out.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["yes", "true", "True", "1", "y", "on"], True),
        (["no", "false", "False", "0", "n", "off"], False),
    ],
)
def test_words_for_yes_and_no(words: list[str], answer: bool) -> None:
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
def test_the_command_of_the_message_bakes_once_it_is_completed(
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


# Over a project that is there already


@pytest.fixture
def changed(bake: Bake, out: Path) -> Path:
    """A baked project in which somebody has worked."""
    project = Path(shutil.copytree(bake().path, out / "bookstore"))
    for name in ("README.md", ".env", "app/pages.py", "app/templates/home.html"):
        (project / name).write_text("mine\n", "utf-8")
    (project / "app/shelves.py").write_text("mine\n", "utf-8")
    return project


def test_an_existing_project_is_left_alone(run: Run, changed: Path) -> None:
    done = run(str(ROOT), "--no-input")
    assert done.returncode == 1
    assert "already exists" in done.stdout
    assert (changed / "README.md").read_text("utf-8") == "mine\n"


def test_overwriting_brings_the_files_of_the_template_back(
    run: Run, changed: Path, bake: Bake
) -> None:
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists")
    contents = baked(changed.parent, done, "bookstore")
    assert contents.pop("app/shelves.py") == b"mine\n"
    assert contents == bake().contents


def test_skipping_keeps_what_somebody_changed(run: Run, changed: Path) -> None:
    (changed / "pyproject.toml").unlink()
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
    assert done.returncode == 0
    for name in ("README.md", ".env", "app/pages.py", "app/templates/home.html", "app/shelves.py"):
        assert (changed / name).read_text("utf-8") == "mine\n"
    assert (changed / "pyproject.toml").exists()


def test_skipping_spares_no_file_that_is_copied_unrendered(run: Run, changed: Path) -> None:
    # Cookiecutter forgets to skip these. When it learns to, the app's pages need no raw block.
    page = changed / "dev/templates/home.html"
    page.write_text("mine\n", "utf-8")
    run(str(ROOT), "--no-input", "--overwrite-if-exists", "--skip-if-file-exists")
    assert page.read_text("utf-8") != "mine\n"


def test_bad_answers_over_an_existing_project_take_nothing_away(run: Run, changed: Path) -> None:
    before = BakedProject(changed, {}).contents
    done = run(str(ROOT), "--no-input", "--overwrite-if-exists", "logto_app_id=not good")
    assert done.returncode == 1
    assert BakedProject(changed, {}).contents == before


# With other Pythons


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_bakes_the_same(run: Run, out: Path, bake: Bake, version: str) -> None:
    # Cookiecutter and all that it needs are pure Python, if they have to be.
    packages = sysconfig.get_path("purelib")
    done = run(
        str(ROOT), "--no-input", *OVERRIDES, python=interpreter(version), PYTHONPATH=packages
    )
    assert baked(out, done) == bake(**ANSWERS).contents
