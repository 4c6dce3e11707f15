"""The image contains only the app and its packages, and runs as a separate user."""

import json
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Bake
from images import Stage, build_image, is_root, with_lock_file
from processes import Process, free_port, running

VARIABLES = {
    "LOGTO_ENDPOINT": "https://bookstore.logto.app",
    "LOGTO_APP_ID": "bookstore",
    "LOGTO_APP_SECRET": "hush-hush",
    "LOGTO_CALLBACK_URL": "https://bookstore.example/callback",
}
# Not the newest version, but pyproject.toml allows it.
PINNED = "python-dotenv==1.1.0"


@pytest.fixture(scope="module", params=["flask", "quart"])
def image(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Stage:
    """Build the image of a Flask project without a lock file, and of a Quart project with one."""
    project, folder = bake(framework=request.param), tmp_path_factory.mktemp("image")
    if request.param == "quart":
        project = with_lock_file(project, folder, PINNED)
    return build_image(project, folder)


# Make everything read-only except the volume, which is $0. The user may read all files, because
# the folder of the image is among the files of this machine.
CONFINED = """
mount --bind "$0" "$0"
mount -o remount,bind,ro /
exec setpriv --reuid {0} --regid {1} --clear-groups \\
    --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search -- "$@"
"""


def confined(stage: Stage) -> list[str]:
    """Return the start of a command that runs as the image's user, or nothing if not allowed."""
    volume = str(stage.path(*stage.volumes))
    script = CONFINED.format(*stage.user.split(":"))
    words = ["unshare", "--mount", "sh", "-ec", script, volume]
    if not is_root() or not shutil.which("setpriv"):
        return []
    tried = subprocess.run([*words, "test", "-w", volume], capture_output=True)
    return [] if tried.returncode else words


@contextmanager
def started(stage: Stage, port: int, **variables: str) -> Iterator[Process]:
    """Start the image's CMD on a port of this machine."""
    command = list(stage.cmd)
    env = stage.environment(**VARIABLES, GRANIAN_PORT=str(port), **variables)
    command[0] = shutil.which(command[0], path=env["PATH"]) or command[0]
    with running([*confined(stage), *command], stage.path("."), env) as process:
        process.wait_for(f"http://127.0.0.1:{port}/healthz")
        yield process


def files(root: Path) -> dict[str, float]:
    """Return all files below a folder with the times of their last change."""
    return {str(path): path.stat().st_mtime for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_contains_only_the_app_and_its_packages(image: Stage) -> None:
    assert {path.name for path in image.root.iterdir()} == {"venv", "srv", "data"}
    assert {path.name for path in image.path(".").iterdir()} == {"app"}
    packages = {path.name for path in image.path("/venv").glob("lib/*/site-packages/*")}
    assert "granian" in packages
    assert not packages & {"pytest", "mypy", "ruff", "joserfc", "pip", "uv"}
    assert image.user.split(":")[0].isdigit()
    assert not [name for name in image.env if "SECRET" in name]


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_has_the_versions_of_the_lock_file_if_there_is_one(image: Stage) -> None:
    [version] = image.path("/venv").glob("lib/*/site-packages/python_dotenv-*.dist-info")
    is_locked = list(image.root.parent.glob("context/uv.lock")) != []
    assert (version.name == "python_dotenv-1.1.0.dist-info") is is_locked


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_every_user_can_read_the_app_even_after_a_build_with_a_strict_umask(image: Stage) -> None:
    app = [image.path("app"), *image.path("app").rglob("*")]
    context = [*image.root.parent.glob("context/app/**/*")]
    assert len(app) == len(context) + 1 > 20
    assert not [path for path in context if path.stat().st_mode & 0o077]
    for path in app:
        mode = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & mode == mode, path


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_serves_the_app_and_writes_only_to_its_volume(image: Stage) -> None:
    port = free_port()
    before = files(image.path("/srv")) | files(image.path("/venv"))
    assert image.volumes == ["/data"]
    with started(image, port) as process:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            assert b"Sign in" in response.read()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        no_websocket = urllib.request.Request(f"http://127.0.0.1:{port}/readyz", headers=handshake)
        urllib.request.urlopen(no_websocket).close()  # noqa: S310
        check, env = image.healthcheck, image.environment(GRANIAN_PORT=str(port))
        program = str(image.path("/venv/bin") / check[0])
        subprocess.run([program, *check[1:]], env=env, check=True)
        process.send(signal.SIGTERM)
        assert process.exit_code() == 0
        lines = [json.loads(line) for line in process.output.splitlines()]
    assert "exception" not in [name for line in lines for name in line]
    assert "/healthz" in [line.get("path") for line in lines]
    assert files(image.path("/srv")) | files(image.path("/venv")) == before
    assert list(image.path("/data").glob("sessions.sqlite3*"))
    assert subprocess.run([program, *check[1:]], env=env, capture_output=True).returncode != 0
