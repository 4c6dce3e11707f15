"""The check of the answers before a bake, and the next steps that are printed after a bake."""

import ast
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from accepted_and_rejected import ACCEPTED, REJECTED
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreters import VERSIONS, interpreter
from rendered_hooks import all_variables, import_hook, render_hook

DEFAULTS = all_variables()
CHECK = import_hook("pre_gen_project", DEFAULTS)

# Other tests may slow the machine down.
UNHURRIED = settings(deadline=None)


def rejected(**answers: Any) -> list[str]:
    """Return the questions whose answers the pre_gen hook rejects."""
    bad: list[str] = CHECK.rejected(DEFAULTS | answers)
    return bad


@pytest.mark.parametrize("question", CHECK.RULES)
def test_good_answers_are_accepted(question: str) -> None:
    for answer in ACCEPTED[question]:
        assert rejected(**{question: answer}) == [], repr(answer)


@pytest.mark.parametrize("question", CHECK.RULES)
def test_bad_answers_are_rejected(question: str) -> None:
    for answer in REJECTED[question]:
        assert rejected(**{question: answer}) == [question], repr(answer)


def test_a_missing_answer_is_rejected() -> None:
    without = {name: value for name, value in DEFAULTS.items() if name != "framework"}
    assert CHECK.rejected(without) == ["framework"]


def test_the_app_and_logto_cannot_share_an_origin() -> None:
    shared = {"logto_endpoint": "https://a.example/", "callback_url": "https://a.example/callback"}
    assert rejected(**shared) == ["callback_url"]
    assert rejected(**shared | {"logto_endpoint": "https://a.example.org"}) == []


@pytest.mark.parametrize("question", ["logto_endpoint", "callback_url"])
def test_a_url_parser_agrees_with_every_accepted_url(question: str) -> None:
    @UNHURRIED
    @given(st.from_regex(CHECK.RULES[question].pattern, fullmatch=True))
    def check(url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname
        assert parts.geturl() == url
        assert host
        assert parts.username is None
        assert parts.query == parts.fragment == ""
        assert parts.port is None or 1 <= parts.port <= 65535
        if parts.scheme == "http":
            assert host == "localhost" or ip_address(host).is_loopback
        else:
            assert parts.scheme == "https"
        if question == "logto_endpoint":
            assert parts.path in ("", "/")

    check()


@UNHURRIED
@given(st.from_regex(CHECK.RULES["project_name"].pattern, fullmatch=True))
def test_an_accepted_name_needs_no_escaping_in_double_quotes(name: str) -> None:
    quoted = f'"{name}"'
    assert ast.literal_eval(quoted) == name
    assert json.loads(quoted) == name
    assert tomllib.loads(f"name = {quoted}") == {"name": name}
    assert yaml.safe_load(f"name: {quoted}") == {"name": name}


@UNHURRIED
@given(st.text(st.characters()) | st.text("\"'\\\n\r{}%#`$") | st.none() | st.booleans())
def test_the_check_reads_every_answer_unchanged(answer: str | bool | None) -> None:
    variables = DEFAULTS | {"project_name": answer, "catalog_owner": answer}
    assert variables == import_hook("pre_gen_project", variables).ANSWERS


@UNHURRIED
@given(st.from_regex(CHECK.RULES["project_name"].pattern, fullmatch=True))
def test_the_next_steps_read_every_accepted_name_unchanged(name: str) -> None:
    hook = import_hook("post_gen_project", DEFAULTS | {"project_name": name})
    assert hook.ANSWERS["project_name"] == name


# The message when answers are rejected


def report(**answers: Any) -> str:
    """Return the report of the pre_gen hook about these answers."""
    variables = DEFAULTS | {"_template": "gh:acme/cookiecutter-logto"} | answers
    text: str = CHECK.report(variables, CHECK.rejected(variables))
    return text


def test_the_report_lists_all_problems_one_per_line() -> None:
    text = report(project_slug="My Shop", logto_endpoint="logto.example", use_docker="maybe")
    problems = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(problems) == 3
    for line, question, answer in zip(
        problems,
        ["project_slug", "logto_endpoint", "use_docker"],
        ["'My Shop'", "'logto.example'", "'maybe'"],
        strict=True,
    ):
        rule = CHECK.RULES[question]
        for part in (rule.label, question, answer, rule.accepted, rule.example):
            assert part in line


def problem(**answers: Any) -> str:
    """Return the message of the pre_gen hook about these answers, empty if all are good."""
    variables = {"_template": "gh:acme/cookiecutter-logto", **DEFAULTS, **answers}
    text: str = CHECK.problem(variables, CHECK.rejected(variables))
    return text


def test_good_answers_give_no_message() -> None:
    assert problem() == ""


@pytest.mark.parametrize("text", ["True", "true", "no", ""])
def test_the_message_for_a_boolean_as_text_names_the_required_cookiecutter(text: str) -> None:
    (line,) = problem(use_docker=text).splitlines()
    assert f"use_docker is the text {text!r}" in line
    assert CHECK.NEEDED in line


def test_a_boolean_as_text_hides_no_other_problem() -> None:
    text = problem(use_docker="true", framework="django")
    assert "- Web framework (framework): 'django'." in text
    assert (
        f"(use_docker): 'true'. Accepted: true or false. Example: true\n  {CHECK.NEEDED}\n" in text
    )


def test_the_message_for_another_bad_answer_does_not_mention_cookiecutter() -> None:
    assert CHECK.NEEDED not in problem(use_docker=1)
    assert CHECK.NEEDED not in problem(framework="django")


@pytest.mark.parametrize("name", ["ci", "__dependabot", "__reserved_slugs"])
def test_a_missing_variable_is_named_in_one_line(name: str) -> None:
    variables = {other: value for other, value in DEFAULTS.items() if other != name}
    check = import_hook("pre_gen_project", variables)
    (line,) = check.problem(variables, check.rejected(variables)).splitlines()
    assert f"a variable is missing: {name}." in line
    assert "A replay file works only with the version of the template that wrote it." in line
    assert check.NEEDED in line


def test_the_check_knows_every_variable() -> None:
    computed = [name for name in DEFAULTS if name.startswith("__")]
    assert list(CHECK.COMPUTED) == computed


def test_the_report_shortens_long_answers_and_escapes_invisible_characters() -> None:
    line = report(project_name="a\n\u202e\x1b[2J\u00a0" + "x" * 10_000).splitlines()[2]
    assert "a\\n\\u202e\\x1b[2J\\xa0xxx" in line
    assert len(line) < 400
    assert line.isprintable()


def command_words(text: str) -> list[str]:
    """Return the words of the `cookiecutter` command in a report, as a shell splits them."""
    (line,) = [line for line in text.splitlines() if line.startswith("cookiecutter ")]
    return shlex.split(line)


def test_the_command_repeats_the_good_answers_and_marks_the_bad_ones() -> None:
    words = command_words(
        report(project_name="Ada's $HOME", project_slug="My Shop", use_docker=False)
    )
    assert words[:3] == ["cookiecutter", "gh:acme/cookiecutter-logto", "--no-input"]
    given_answers = dict(word.split("=", 1) for word in words[3:])
    assert list(given_answers) == list(CHECK.RULES)
    assert given_answers["project_name"] == "Ada's $HOME"
    assert given_answers["use_docker"] == "false"
    assert given_answers["project_slug"] == CHECK.CHANGE_ME


@pytest.mark.parametrize(
    ("prefix", "uv", "words"),
    [
        ("/home/ada/.cache/uv/archive-v0/x1Y_2", "/usr/bin/uv", ["uvx", "cookiecutter"]),
        (r"C:\Users\ada\uv\cache\archive-v0\x1", "uv.exe", ["uvx", "cookiecutter"]),
        ("/home/ada/shop/.venv", "/usr/bin/uv", ["cookiecutter"]),
        ("/home/ada/.cache/uv/archive-v0/x1Y_2", "", ["cookiecutter"]),
    ],
)
def test_the_command_starts_with_the_program_that_was_used(
    monkeypatch: pytest.MonkeyPatch, prefix: str, uv: str, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setenv("UV", uv)
    command = report(ci="none ").splitlines()[-3]
    assert shlex.split(command)[: len(words)] == words


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_a_message_on_a_terminal_wraps_between_words(run_hook: Any) -> None:
    # These modules do not exist on Windows.
    import fcntl
    import termios

    variables = DEFAULTS | {"callback_url": "nonsense", "_template": "t" * 30}
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = run_hook("pre_gen_project", variables, stderr=terminal)
    os.close(terminal)
    output = os.read(reader, 10_000).decode().replace("\r", "")
    os.close(reader)
    assert done.returncode == 1
    *message, command, _, _, _ = output.split("\n")
    assert command.startswith("cookiecutter ")
    assert "'callback_url=\\CHANGE-ME'" in command
    assert all(len(line) <= 80 for line in message), message
    whole = run_hook("pre_gen_project", variables, stderr=subprocess.PIPE).stderr
    assert whole.split() == output.split()


def test_the_command_keeps_the_version_and_the_folder(tmp_path: Path) -> None:
    words = command_words(report(ci="none ", _checkout="v 1", _output_dir=str(tmp_path)))
    assert words[3:7] == ["--checkout", "v 1", "--output-dir", str(tmp_path)]


@UNHURRIED
@given(st.from_regex(CHECK.RULES["project_name"].pattern, fullmatch=True))
def test_a_posix_shell_reads_a_quoted_name_as_it_is(name: str) -> None:
    assert shlex.split(CHECK.quoted(f"project_name={name}", windows=False)) == [
        f"project_name={name}"
    ]


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("framework=flask", "framework=flask"),
        (r"project_slug=\CHANGE-ME", r"project_slug=\CHANGE-ME"),
        ("project_name=Ada's Books & Maps", '"project_name=Ada\'s Books & Maps"'),
        ("callback_url=http://[::1]:3000/cb", '"callback_url=http://[::1]:3000/cb"'),
        ("project_name=$HOME", "'project_name=$HOME'"),
        ("project_name=Ada's `%PATH%`", "'project_name=Ada''s `%PATH%`'"),
        ("project_name=\u201cAda\u2019s\u201d", "'project_name=\u201cAda\u2019\u2019s\u201d'"),
    ],
)
def test_the_shells_of_windows_read_a_quoted_word_as_it_is(word: str, quoted: str) -> None:
    assert CHECK.quoted(word, windows=True) == quoted


# The next steps after a bake

STEPS = import_hook("post_gen_project", DEFAULTS)


def steps(*, windows: bool = False, colour: bool = False, **answers: Any) -> str:
    """Return the next steps that the post_gen hook prints for these answers."""
    text: str = STEPS.next_steps(
        all_variables(**answers), "bookstore", windows=windows, colour=colour
    )
    return text


def lines_after(text: str, heading: str) -> list[str]:
    """Return the lines from a heading to the next empty line."""
    rest = text.split(heading)[1].splitlines()[1:]
    return [line.strip() for line in rest[: rest.index("")]]


def test_the_next_steps_begin_with_two_commands() -> None:
    assert lines_after(steps(), "Run it") == ["cd bookstore", "uv run python -m dev"]


@pytest.mark.parametrize("framework", ["flask", "quart"])
@pytest.mark.parametrize("windows", [False, True])
def test_the_next_steps_fit_on_a_small_terminal(framework: str, windows: bool) -> None:
    text = steps(windows=windows, framework=framework, project_name="x" * 60)
    lines = text.splitlines()
    # Three more lines: the command of the bake, the prompt, and the empty line of `print`.
    assert len(lines) + 3 <= 24
    assert all(len(line) <= 80 for line in lines), lines
    assert text.index("Run it") < text.index("README.md") < text.index(f"{framework} logto check")


def test_the_next_steps_contain_no_url_and_do_not_mention_azure() -> None:
    text = steps(logto_endpoint="https://bookstore.logto.app/")
    assert "azure" not in text.lower()
    assert "http" not in text


def test_the_next_steps_on_windows_are_for_its_shells() -> None:
    text = steps(windows=True)
    assert "\nRun it in PowerShell, with" in text
    assert "\nOr without uv, with Python 3.12 or newer:\n" in text
    assert lines_after(text, "Or without uv") == [
        "cd bookstore",
        "py -m venv .venv",
        r".venv\Scripts\python -m pip install --upgrade pip",
        r".venv\Scripts\python -m pip install --editable . --group dev",
        r".venv\Scripts\python -m dev",
    ]


def test_the_next_steps_on_other_systems_do_not_mention_windows() -> None:
    text = steps()
    assert "PowerShell" not in text
    assert "3.12" not in text
    assert "\\" not in text
    assert ".venv/bin/python -m dev" in lines_after(text, "Or without uv")


@pytest.mark.parametrize(
    "folder",
    [
        r"C:\Users\ada\bookstore",
        r"D:\Ada's Books\bookstore",
        r"C:\Users\José\bookstore",
        r"C:\Users\$HOME\bookstore",
        r"C:\Ada's $HOME `n\%PATH%\bookstore",
        "C:\\\u201cAda\u2019s\u201d\\bookstore",
    ],
)
def test_both_hooks_quote_a_folder_alike(folder: str) -> None:
    assert STEPS.quoted(folder, windows=True) == CHECK.quoted(folder, windows=True)


@UNHURRIED
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_posix_shell_reads_a_quoted_folder_as_it_is(folder: str) -> None:
    assert shlex.split(STEPS.quoted(folder, windows=False)) == [folder]


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_temporary_folder_with_a_second_name_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows has such names: C:\Users\ADA_~E10 and C:\Users\ada_lovelace are the same folder.
    long, short = tmp_path / "ada_lovelace", tmp_path / "ADA_~E10"
    (long / "temp" / "bookstore").mkdir(parents=True)
    (tmp_path / "ada_lovelace-2").mkdir()
    short.symlink_to(long)
    hook = import_hook("post_gen_project", DEFAULTS)
    for temporary, here, expected in (
        (short / "temp", long / "temp" / "bookstore", True),
        (long / "temp", short / "temp" / "bookstore", True),
        (short / "temp", long, False),
        (long, tmp_path / "ada_lovelace-2", False),
    ):
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setattr(os, "getcwd", lambda here=here: str(here))
        assert hook.is_for_comparison() is expected, (temporary, here)


def test_only_the_headings_are_in_colour() -> None:
    assert "\n# {Books} is ready.\n" in steps(project_name="# {Books}", colour=True)
    assert "\033" not in steps()
    assert steps(colour=True).count("\033[1m") == steps(colour=True).count("\033[0m") == 3


@pytest.fixture
def run_hook(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a hook as a script with these variables."""

    def run(hook: str, variables: dict[str, Any], **options: Any) -> Any:
        script = tmp_path / "hook.py"
        # Cookiecutter sets the output folder; cruft does not.
        variables = {"_output_dir": str(tmp_path.parent), **variables}
        script.write_text(render_hook(hook, variables), "utf-8")
        interpreter = options.pop("interpreter", sys.executable)
        return subprocess.run(
            [interpreter, str(script)], check=False, encoding="utf-8", cwd=tmp_path, **options
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_with_few_characters_fails_no_hook(run_hook: Run, encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run_hook(
        "post_gen_project", all_variables(project_name="📚 本屋"), capture_output=True, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\U0001f4da \\u672c\\u5c4b is ready" in done.stdout
    done = run_hook(
        "pre_gen_project", all_variables(project_name="📚" * 61), capture_output=True, env=env
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "\\U0001f4da" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_console_that_cannot_be_written_to_fails_no_bake(run_hook: Run) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_hook("post_gen_project", DEFAULTS, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="preexec_fn exists only on POSIX")
def test_a_console_that_is_closed_fails_no_bake(run_hook: Run) -> None:
    done = run_hook("post_gen_project", DEFAULTS, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0


def test_a_pipe_gets_no_colour(run_hook: Run) -> None:
    done = run_hook("post_gen_project", DEFAULTS, stdout=subprocess.PIPE)
    assert "\033" not in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hooks_run_on_every_python(run_hook: Run, version: str) -> None:
    for hook in ("pre_gen_project", "post_gen_project"):
        done = run_hook(hook, DEFAULTS, interpreter=interpreter(version), stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("hook", "modules"),
    [("pre_gen_project", "json, os, collections.abc"), ("post_gen_project", "os")],
)
def test_with_good_answers_a_hook_imports_few_modules(
    hook: str, modules: str, tmp_path: Path
) -> None:
    script = tmp_path / "hook.py"
    project = tmp_path / DEFAULTS["project_slug"]
    project.mkdir()
    script.write_text(render_hook(hook, DEFAULTS | {"_output_dir": str(tmp_path)}), "utf-8")

    def imported_by(*command: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command],
            cwd=project,
            env={**os.environ, "PWD": str(tmp_path)},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return {line.split("|")[2].strip() for line in done.stderr.splitlines()}

    assert imported_by(str(script)) <= imported_by("-c", f"import {modules}")
