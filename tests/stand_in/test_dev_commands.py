"""The commands `python -m dev`, which runs the app too, and `python -m dev.local_logto`."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Bake, BakedProject, environment
from processes import free_port, is_taken, running
from stand_in_client import API, CALLBACK, CHALLENGE, HOME

FRAMEWORKS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"{name} processes"))
    for name in ("flask", "quart")
]


@pytest.fixture
def ports() -> list[str]:
    return ["--port", str(free_port()), "--logto-port", str(free_port())]


def sign_in_through(port: str) -> str:
    """The home page of the app on this port, after Alice has signed in there."""
    with httpx2.Client(follow_redirects=True, timeout=20) as browser:
        page = browser.get(f"http://localhost:{port}/sign-in")
        form = {"interaction": page.url.params["interaction"], "user": "alice"}
        return browser.post(page.url.join("/sign-in"), data=form).text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_uses_the_local_logto_whatever_env_names(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(
        framework=framework,
        project_name="Tom's Books",
        logto_endpoint="https://books.logto.invalid",
        logto_app_id="realapp",
        callback_url="https://books.example/auth/callback",
    )
    with project.start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        assert f"http://localhost:{ports[1]}" in process.output
        assert "not the real Logto" in process.output
        sign_in = httpx2.get(f"http://localhost:{ports[1]}/sign-in", timeout=20)
        page = httpx2.get(sign_in.headers["Location"], follow_redirects=True).text
        assert "Sign in to <bdi>Tom&#39;s Books</bdi>" in page
        assert "Alice Archer" in sign_in_through(ports[1])
        process.press_ctrl_c()
        assert process.exit_code() == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_takes_the_ports_that_env_names(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(
        framework=framework,
        callback_url=f"http://127.0.0.1:{ports[1]}/callback",
        logto_endpoint=f"http://localhost:{ports[3]}",
        api_resource=API,
    )
    assert f"Open <http://localhost:{ports[1]}>" in project.read("README.md")
    with project.start("python", "-m", "dev") as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        assert "Alice Archer" in sign_in_through(ports[1])
        token = project.run("python", "-m", "dev.access_token", "--scope", "read:books").stdout
        books = httpx2.get(
            f"http://localhost:{ports[1]}/api/books",
            headers={"Authorization": f"Bearer {token.strip()}"},
        )
        assert books.status_code == 200


def test_the_app_and_the_local_logto_cannot_have_one_port(bake: Bake, ports: list[str]) -> None:
    same = ["--port", ports[1], "--logto-port", ports[1]]
    done = bake().attempt("python", "-m", "dev", *same)
    assert done.returncode == 2
    assert ports[1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_python_m_dev_alone_ends_the_app_too(
    bake: Bake, framework: str, ports: list[str], sent: signal.Signals
) -> None:
    with bake(framework=framework).start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        process.send(sent)
        assert process.exit_code() == 0
        assert not is_taken(int(ports[1]))
        assert "Traceback" not in process.output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_exit_code_of_an_app_that_cannot_start_is_passed_on(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(framework=framework)
    done = project.attempt("python", "-m", "dev", *ports, SESSION_URL="nonsense")
    assert done.returncode == 1
    assert "SESSION_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_saved_file_starts_the_app_again_also_after_a_mistake(
    bake: Bake, framework: str, ports: list[str], tmp_path: Path
) -> None:
    project = BakedProject(tmp_path / "project", {})
    shutil.copytree(bake(framework=framework).path, project.path)
    pages = project.path / "app/pages.py"
    good = pages.read_text("utf-8")
    with project.start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        pages.write_text(f"{good}\ndef broken(:\n", "utf-8")
        process.wait_for_text("SyntaxError")
        # What is held at the local Logto outlives the app.
        assert is_taken(int(ports[3]))
        pages.write_text(
            f"{good}\n\n@bp.get('/new')\ndef new() -> str:\n    return 'new'\n", "utf-8"
        )
        process.wait_for(f"http://localhost:{ports[1]}/new")
        assert httpx2.get(f"http://localhost:{ports[1]}/new").text == "new"


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> BakedProject:
    """A project that a test may change."""
    return BakedProject(shutil.copytree(bake().path, tmp_path / "project"), {})


def test_the_local_logto_runs_alone(project: BakedProject, tmp_path: Path) -> None:
    port = free_port()
    (project.path / ".env").write_text(
        "LOGTO_APP_ID=from-file\nLOGTO_CALLBACK_URL=overridden\n", "utf-8"
    )
    variables = {
        "LOGTO_CALLBACK_URL": CALLBACK,
        "LOGTO_API_RESOURCE": API,
        "PYTHONPATH": str(project.path),
    }
    command = [sys.executable, "-m", "dev.local_logto", "--port", str(port)]
    # It reads the .env of its project, from whatever folder it is started.
    with running(command, tmp_path, environment(**variables)) as process:
        endpoint = f"http://localhost:{port}"
        process.wait_for(f"{endpoint}/oidc/jwks")
        asked = {
            "client_id": "from-file",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": API,
        }
        page = httpx2.get(f"{endpoint}/oidc/auth", params=asked, follow_redirects=True)
        assert "Sign in to <bdi>" in page.text
        asked = {"client_id": "from-file", "post_logout_redirect_uri": HOME}
        answer = httpx2.get(f"{endpoint}/oidc/session/end", params=asked)
        assert answer.headers["Location"] == HOME
        process.press_ctrl_c()
        assert process.exit_code() == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_alone_it_knows_the_name_of_the_app_and_the_way_back(bake: Bake, framework: str) -> None:
    project = bake(framework=framework, project_name="Tom's Books", project_slug="books")
    port = free_port()
    with project.start("python", "-m", "dev.local_logto", "--port", str(port)) as process:
        endpoint = f"http://localhost:{port}"
        process.wait_for(f"{endpoint}/oidc/jwks")
        expired = httpx2.get(f"{endpoint}/sign-in?interaction=gone")
        assert expired.status_code == 400
        back = (
            'href="http://localhost:3000/"><span>Go back to <bdi>Tom&#39;s Books</bdi></span></a>'
        )
        assert back in expired.text


# What keeps a command from starting


ALONE = ("dev.local_logto", "--port")
APP = ("dev", "--port")
BESIDE = ("dev", "--logto-port")


def refused(project: BakedProject, *command: str, within: tuple[str, ...] = ()) -> str:
    """Return the one line that a command of the project says before it ends with status 1."""
    done = project.attempt(*within, "python", "-m", *command)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def free_beside(command: tuple[str, str]) -> list[str]:
    """Return a command with a free port for the app, whose port is looked at first."""
    module, option = command
    others = ["--port", str(free_port())] if option == "--logto-port" else []
    return [module, *others, option]


@pytest.mark.parametrize("command", [ALONE, APP, BESIDE], ids=" ".join)
def test_a_taken_port_is_named_with_the_option_for_another(
    bake: Bake, logto: Any, command: tuple[str, str]
) -> None:
    said = refused(bake(), *free_beside(command), str(logto.port))
    assert f"Port {logto.port} is taken" in said
    assert f"{command[1]} {logto.port + 10}" in said


def test_after_a_killed_python_m_dev_the_message_says_what_to_look_for(
    bake: Bake, ports: list[str]
) -> None:
    with bake().start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        process.send(signal.SIGKILL)
        assert process.exit_code() == -signal.SIGKILL
        said = refused(bake(), "dev", *ports)
        assert f"Port {ports[1]} is taken, perhaps by a python process that a killed" in said


# Root may bind every port, but for this.
BOUND = ("setpriv", "--bounding-set=-net_bind_service")
BIND = "import socket; socket.create_server(('127.0.0.1', 77))"


@pytest.mark.parametrize("command", [ALONE, APP, BESIDE], ids=" ".join)
def test_a_port_that_the_system_reserves_is_named_with_the_option_for_another(
    bake: Bake, command: tuple[str, str]
) -> None:
    within = BOUND if shutil.which("setpriv") and os.geteuid() == 0 else ()
    if "PermissionError" not in bake().attempt(*within, "python", "-c", BIND).stderr:
        pytest.skip("this system reserves no port")
    said = refused(bake(), *free_beside(command), "77", within=within)
    assert "Port 77 cannot be used: the system reserves it" in said
    assert f"{command[1]} 87" in said


TEXT = "LOGTO_APP_ID=bücher\n"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
@pytest.mark.parametrize("command", ["dev", "dev.local_logto"])
def test_an_env_in_another_encoding_is_a_line_and_no_traceback(
    project: BakedProject, command: str, encoding: str
) -> None:
    (project.path / ".env").write_text(TEXT, encoding)
    said = refused(project, command)
    assert f"Save {project.path / '.env'} as UTF-8" in said
