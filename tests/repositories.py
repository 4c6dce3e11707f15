"""Git repositories that hold the template, for what takes it from one."""

import shutil
import subprocess
from pathlib import Path

from answers import ROOT, TEMPLATE

NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*_cache", "instance")


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and give its output. Raises CalledProcessError when it fails."""
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@bookstore.example"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, encoding="utf-8", check=True
    ).stdout


def commit_all(folder: Path, message: str) -> None:
    """Commit everything in a repository, what its .gitignore names too."""
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", f"--message={message}")


def template_repository(path: Path) -> Path:
    """Make a repository with the template as it is now, in one commit on main."""
    path.mkdir(parents=True)
    shutil.copy(ROOT / "cookiecutter.json", path)
    for folder in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(folder, path / folder.name, ignore=NOT_COPIED)
    git(path, "init", "--quiet", "--initial-branch=main")
    commit_all(path, "Begin")
    return path
