"""The image: it holds the app and its packages, and runs as its own user."""

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
# An older version than the newest, which pyproject.toml allows.
PINNED = "python-dotenv==1.1.0"


@pytest.fixture(scope="module", params=["flask", "quart"])
def image(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Stage:
    """The image of a Flask project without a lock file, and of a Quart project with one."""
    project, folder = bake(framework=request.param), tmp_path_factory.mktemp("image")
    if request.param == "quart":
        project = with_lock_file(project, folder, PINNED)
    return build_image(project, folder)


# Everything is read-only but the volume, which is $0, and the user may read it all: what the
# image holds is not in a place of its own here.
CONFINED = """
mount --bind "$0" "$0"
mount -o remount,bind,ro /
exec setpriv --reuid {0} --regid {1} --clear-groups \\
    --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search -- "$@"
"""


def confined(stage: Stage) -> list[str]:
    """What runs a command as the image's user, where that is allowed; else nothing."""
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
    return {str(path): path.stat().st_mtime for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_holds_the_app_and_its_packages_only(image: Stage) -> None:
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
def test_everybody_can_read_the_app_also_after_a_build_with_a_strict_umask(image: Stage) -> None:
    app = [image.path("app"), *image.path("app").rglob("*")]
    context = [*image.root.parent.glob("context/app/**/*")]
    assert len(app) == len(context) + 1 > 20
    assert not [path for path in context if path.stat().st_mode & 0o077]
    for path in app:
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_serves_stays_healthy_and_writes_to_its_volume_only(image: Stage) -> None:
    port = free_port()
    before = files(image.path("/srv")) | files(image.path("/venv"))
    assert image.volumes == ["/data"]
    with started(image, port) as process:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert b"Sign in" in answer.read()
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
