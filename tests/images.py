"""What the Dockerfile of a bake says, done without an engine: line by line, in an empty folder."""

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
    """A stage of the image: a folder for its root, and what the Dockerfile has set."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def with_local_paths(self, text: str) -> str:
        """The text with the image's own paths led into its folder."""
        return re.sub(r"(?<![\w/.])(///)?/(venv|build|data|srv)\b", rf"\1{self.root}/\2", text)

    def path(self, path: str) -> Path:
        """Where a path of the image is here."""
        return Path(self.root, os.path.join(self.workdir, path).lstrip("/"))  # noqa: PTH118

    def environment(self, **variables: str) -> dict[str, str]:
        own = {name: self.with_local_paths(value) for name, value in self.env.items()}
        path = os.pathsep.join(
            filter(None, [own.pop("PATH", "").removesuffix(":$PATH"), os.defpath])
        )
        # Only what brings pip to its packages is taken from here.
        kept = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "HTTP"))}
        return {**kept, "PATH": path, "HOME": "/nowhere", **own, **variables}


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, without comments, each on one line."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def uv_variables() -> dict[str, str]:
    """Tell uv which package index pip uses here, and to trust the certificates of this machine."""
    index = os.environ.get("PIP_INDEX_URL")
    return {"UV_SYSTEM_CERTS": "true"} | ({"UV_DEFAULT_INDEX": index} if index else {})


def with_lock_file(project: BakedProject, folder: Path, *pins: str) -> BakedProject:
    """Copy a project into a folder and lock its packages, some of them to these versions."""
    copy = replace(project, path=Path(shutil.copytree(project.path, folder / "locked")))
    words = [word for pin in pins for word in ("--upgrade-package", pin)]
    done = copy.attempt("uv", "lock", "--quiet", *words, **uv_variables())
    if "Failed to fetch" in done.stderr:
        pytest.skip("uv does not reach its package index here")
    assert done.returncode == 0, done.stderr
    return copy


def copy_to(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def build_image(project: BakedProject, folder: Path) -> Stage:
    """Do what the Dockerfile says, with this machine's Python in the place of the image's."""
    context = folder / "context"
    sent = project.read(".dockerignore").splitlines()
    assert next(line for line in sent if not line.startswith("#")) == "*"
    for line in sent:
        if line.startswith("!") and (project.path / line[1:]).exists():
            copy_to(project.path / line[1:], context / line[1:])
    # As git writes them with umask 077.
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
            # A virtual environment knows where it is, so here it stays where it was made.
            stage.path(target).parent.mkdir(parents=True, exist_ok=True)
            stage.path(target).symlink_to(stages[origin].path(source))
        elif word == "COPY":
            *patterns, target = rest.split()
            for pattern in patterns:
                for item in context.glob(pattern):
                    into = f"{target}{item.name}" if target.endswith("/") else target
                    copy_to(item, stage.path(into))
        elif word == "RUN":
            mine = stage.with_local_paths(rest)
            if not is_root():
                mine = re.sub(r"--(owner|group) \d+", "", mine)
            # Secrets are there only if the builder passes them.
            mine = re.sub(r"--mount=type=secret,\S+ ", "", mine)
            # By a pip that is there already and keeps what it has downloaded: a third of the time.
            mine = mine.replace("pip --python", f"{sys.executable} -m pip --python")
            mine = mine.replace("install --no-cache-dir", "install -q --no-compile")
            mine = re.sub(r'^(.*)pip install \S+ "uv', r'\1true "uv', mine)
            env = stage.environment(HOME=str(Path.home()), **uv_variables())
            env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
            subprocess.run(["sh", "-ec", mine], cwd=stage.path("."), env=env, check=True)
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
