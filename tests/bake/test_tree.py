"""The files of the template can be checked out and baked on every system."""

import shutil
import subprocess
import tomllib
from pathlib import Path, PurePosixPath

import pytest
from answers import ROOT, TEMPLATE
from conftest import Bake
from packaging.requirements import Requirement
from repositories import commit_all, git

# The folder of the user plus this path must be shorter than 260 characters, a limit of Windows.
LONGEST_PATH = 120
DEVICES = {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10)}


def tracked_paths() -> list[str]:
    """Return the paths that git tracks, or without git, all paths in the template."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode == 0:
        return done.stdout.strip("\0").split("\0")
    files = [path for path in TEMPLATE.rglob("*") if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in files]


PATHS = tracked_paths()


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_granian_is_left_out_only_where_it_has_no_wheel(bake: Bake, framework: str) -> None:
    settings = tomllib.loads(bake(framework=framework).read("pyproject.toml"))
    [granian] = [
        requirement
        for requirement in map(Requirement, settings["project"]["dependencies"])
        if requirement.name == "granian"
    ]
    assert granian.marker
    assert not granian.marker.evaluate({"platform_machine": "ARM64"})  # Windows
    for machine in ("AMD64", "x86_64", "arm64", "aarch64"):
        assert granian.marker.evaluate({"platform_machine": machine}), machine


def test_windows_accepts_every_file_name() -> None:
    for path in PATHS:
        for name in PurePosixPath(path).parts:
            assert not set('<>:"|?*\\') & set(name), path
            assert name.isprintable(), path
            assert not name.endswith((" ", ".")), path
            assert name.split(".")[0].lower() not in DEVICES, path


def test_no_two_names_differ_in_case_alone() -> None:
    assert len({path.lower() for path in PATHS}) == len(PATHS)


def test_no_path_is_too_long_for_windows() -> None:
    assert not [path for path in PATHS if len(path) > LONGEST_PATH]


def test_no_folder_has_a_conditional_name() -> None:
    # An empty folder name would end the bake. This name is never empty: without a workflow it
    # is the name of the folder that the app makes at its first start and that git ignores.
    never_empty = {"{{cookiecutter.__workflows}}"}
    folders = {part for path in PATHS for part in PurePosixPath(path).parts[1:-1]}
    assert not [folder for folder in folders - never_empty if "{" in folder]


def test_nothing_is_a_symbolic_link() -> None:
    assert not [path for path in PATHS if (ROOT / path).is_symlink()]


def test_every_text_has_the_line_endings_of_unix() -> None:
    for path in PATHS:
        content = (ROOT / path).read_bytes()
        assert b"\0" in content or b"\r" not in content, path


def test_a_checkout_on_windows_keeps_the_line_endings(tmp_path: Path) -> None:
    # Without .gitattributes, a bake has other bytes on Windows, and cruft shows every line changed.
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / "app.py").write_bytes(b"pass\n")
    git(tmp_path, "init", "--quiet")
    commit_all(tmp_path, "Begin")
    (tmp_path / "app.py").unlink()
    git(tmp_path, "-c", "core.autocrlf=true", "checkout", "--", "app.py")
    assert (tmp_path / "app.py").read_bytes() == b"pass\n"
