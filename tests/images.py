"""Builds the image of a bake without a container engine: runs its Dockerfile in a folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from conftest import BakedProject


@dataclass
class Stage:
    """A stage of the image: the folder of its root, and the values that the Dockerfile set."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def with_local_paths(self, text: str) -> str:
        """Return the text with the paths of the image replaced by paths in its folder."""
        return re.sub(r"(?<![\w/.])(///)?/(venv|build|data|srv)\b", rf"\1{self.root}/\2", text)

    def path(self, path: str) -> Path:
        """Return the path on this machine for a path in the image."""
        return Path(self.root, os.path.join(self.workdir, path).lstrip("/"))  # noqa: PTH118

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment variables of a command in the image."""
        image_env = {name: self.with_local_paths(value) for name, value in self.env.items()}
        path = os.pathsep.join(
            filter(None, [image_env.pop("PATH", "").removesuffix(":$PATH"), os.defpath])
        )
        # From this machine's environment, keep only what pip needs to download packages.
        kept = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "HTTP"))}
        return {**kept, "PATH": path, "HOME": "/nowhere", **image_env, **variables}


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Read the instructions of a Dockerfile, without comments: the name and the arguments."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def uv_variables() -> dict[str, str]:
    """Return variables that give uv pip's package index and the certificates of this machine."""
    index = os.environ.get("PIP_INDEX_URL")
    return {"UV_SYSTEM_CERTS": "true"} | ({"UV_DEFAULT_INDEX": index} if index else {})


def with_lock_file(project: BakedProject, folder: Path, *pins: str) -> BakedProject:
    """Copy a project into a folder and make its lock file, with these pinned versions."""
    copy = replace(project, path=Path(shutil.copytree(project.path, folder / "locked")))
    words = [word for pin in pins for word in ("--upgrade-package", pin)]
    done = copy.attempt("uv", "lock", "--quiet", *words, **uv_variables())
    if "Failed to fetch" in done.stderr:
        pytest.skip("uv cannot reach its package index")
    assert done.returncode == 0, done.stderr
    return copy


def copy_to(source: Path, target: Path) -> None:
    """Copy a file or a folder to a path, and make the folders above it."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def build_image(project: BakedProject, folder: Path) -> Stage:
    """Run the Dockerfile of a project with this machine's Python, and return the last stage."""
    context = folder / "context"
    rules = project.read(".dockerignore").splitlines()
    assert next(line for line in rules if not line.startswith("#")) == "*"
    for line in rules:
        if line.startswith("!") and (project.path / line[1:]).exists():
            copy_to(project.path / line[1:], context / line[1:])
    # These are the modes of a git checkout with umask 077.
    for path in context.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(project.read("Dockerfile")):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "image"
            stage = stages[name] = Stage(folder / name)
            stage.root.mkdir()
        elif word == "WORKDIR":
            stage.workdir = rest
            stage.path(".").mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "COPY" and rest.startswith("--from="):
            origin, source, target = rest.removeprefix("--from=").split()
            # A virtual environment cannot be moved, so link to it.
            stage.path(target).parent.mkdir(parents=True, exist_ok=True)
            stage.path(target).symlink_to(stages[origin].path(source))
        elif word == "COPY":
            *patterns, target = rest.split()
            for pattern in patterns:
                for item in context.glob(pattern):
                    destination = f"{target}{item.name}" if target.endswith("/") else target
                    copy_to(item, stage.path(destination))
        elif word == "RUN":
            command = stage.with_local_paths(rest)
            if not is_root():
                command = re.sub(r"--(owner|group) \d+", "", command)
            # There are no secrets here: a builder passes them only if its user names them.
            command = re.sub(r"--mount=type=secret,\S+ ", "", command)
            # Use the pip of this machine with its cache. That takes a third of the time.
            command = command.replace("pip --python", f"{sys.executable} -m pip --python")
            command = command.replace("install --no-cache-dir", "install -q --no-compile")
            command = re.sub(r'^(.*)pip install \S+ "uv', r'\1true "uv', command)
            env = stage.environment(HOME=str(Path.home()), **uv_variables())
            env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
            subprocess.run(["sh", "-ec", command], cwd=stage.path("."), env=env, check=True)
        elif word == "USER":
            stage.user = rest
        elif word == "VOLUME":
            stage.volumes = rest.split()
        elif word == "HEALTHCHECK":
            stage.healthcheck = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "CMD":
            stage.cmd = json.loads(rest)
        else:
            assert word in ("EXPOSE", "ARG"), word
    return stages["image"]
