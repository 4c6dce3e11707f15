"""Git repositories with the template, for tests that bake from a repository."""

import shutil
import subprocess
from pathlib import Path

from answers import ROOT, TEMPLATE

NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*_cache", "instance")


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return its output. Raises CalledProcessError when git fails."""
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@bookstore.example"]
    return subprocess.run(
        ["git", *author, *words], cwd=folder, capture_output=True, encoding="utf-8", check=True
    ).stdout


def commit_all(folder: Path, message: str) -> None:
    """Commit all files of a repository, including the ignored files."""
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", f"--message={message}")


def template_repository(path: Path) -> Path:
    """Make a repository with the current template in one commit on main, and return its path."""
    path.mkdir(parents=True)
    shutil.copy(ROOT / "cookiecutter.json", path)
    for folder in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(folder, path / folder.name, ignore=NOT_COPIED)
    git(path, "init", "--quiet", "--initial-branch=main")
    commit_all(path, "Begin")
    return path
