"""The commands `python -m dev` (app and local Logto) and `python -m dev.local_logto` (alone)."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Bake, BakedProject, environment
from processes import free_port, is_taken, running, until
from stand_in_client import API, CALLBACK, CHALLENGE, HOME

FRAMEWORKS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"{name} processes"))
    for name in ("flask", "quart")
]


@pytest.fixture
def ports() -> list[str]:
    return ["--port", str(free_port()), "--logto-port", str(free_port())]


def sign_in_through(port: str) -> str:
    """Sign Alice in to the app on this port, and return the HTML of its home page."""
    with httpx2.Client(follow_redirects=True, timeout=20) as browser:
        page = browser.get(f"http://localhost:{port}/sign-in")
        form = {"interaction": page.url.params["interaction"], "user": "alice"}
        return browser.post(page.url.join("/sign-in"), data=form).text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_ignores_the_logto_of_the_env_file(
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
        process.wait_for_text("Ctrl-C stops both.")
        assert f"Open http://localhost:{ports[1]}\n" in process.output
        assert "not the real Logto" in process.output
        sign_in = httpx2.get(f"http://localhost:{ports[1]}/sign-in", timeout=20)
        page = httpx2.get(sign_in.headers["Location"], follow_redirects=True).text
        assert "Sign in to <bdi>Tom&#39;s Books</bdi>" in page
        assert "Alice Archer" in sign_in_through(ports[1])
        process.press_ctrl_c()
        assert process.exit_code() == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_uses_the_ports_of_the_env_file(
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


def test_the_app_and_the_local_logto_cannot_have_the_same_port(
    bake: Bake, ports: list[str]
) -> None:
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
    # The command does not invite the user to open a page that does not exist.
    assert "Open http" not in done.stdout


STOPPED = "The app stopped. It starts again when you save a file."


@pytest.fixture
def changeable(bake: Bake, framework: str, tmp_path: Path) -> BakedProject:
    """Return a project of this framework that a test may change."""
    return BakedProject(shutil.copytree(bake(framework=framework).path, tmp_path / "project"), {})


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_mistake_in_a_file_stops_the_app_until_the_next_save(
    changeable: BakedProject, ports: list[str], from_the_start: bool
) -> None:
    home = f"http://localhost:{ports[1]}/"
    pages = changeable.path / "app/pages.py"
    good = pages.read_text("utf-8")
    bad = f"{good}\ndef broken(:\n"
    pages.write_text(bad if from_the_start else good, "utf-8")
    with changeable.start("python", "-m", "dev", *ports) as process:
        if not from_the_start:
            process.wait_for(home)
            pages.write_text(bad, "utf-8")
        process.wait_for_text(STOPPED)
        assert process.output.index("SyntaxError") < process.output.index(STOPPED)
        process.wait_for(home)
        page = httpx2.get(f"{home}any/page")
        assert page.status_code == 500
        assert "The app stopped" in page.text
        assert "It starts again when you save a file." in page.text
        assert "def broken(:" in page.text
        assert "SyntaxError" in page.text
        # The local Logto keeps running, so its users stay signed in.
        assert is_taken(int(ports[3]))
        pages.write_text(
            f"{good}\n\n@bp.get('/new')\ndef new() -> str:\n    return 'new'\n", "utf-8"
        )
        until(lambda: text_of(f"{home}new") == "new", 60)
        process.wait_for_text("Ctrl-C stops both.")
        assert process.output.count("Open http") == 1
        # A mistake in the configuration is handled in the same way.
        (changeable.path / ".env").write_text("LOGTO_SCOPES=email\nLOG_FORMAT=yaml\n", "utf-8")
        until(lambda: process.output.count(STOPPED) == 2, 60)
        process.press_ctrl_c()
        assert process.exit_code() == 0
        assert not is_taken(int(ports[1]))


def text_of(url: str) -> str:
    """Return the text of a page, or an empty string if no server listens."""
    try:
        return httpx2.get(url).text
    except httpx2.TransportError:
        return ""


LOGS = """

import logging


@bp.get("/logs")
def logs() -> str:
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("shop").log(level, "at level %s", level)
    return "logged"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("variables", [{"TERM": "xterm"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_the_log_on_a_terminal_has_colours_and_no_static_files(
    changeable: BakedProject, ports: list[str], variables: dict[str, str]
) -> None:
    import pexpect

    pages = changeable.path / "app/pages.py"
    pages.write_text(pages.read_text("utf-8") + LOGS, "utf-8")
    env = environment(**{"TERM": "xterm", **variables})
    env = {name: value for name, value in env.items() if name in variables or name != "NO_COLOR"}
    command = ["-m", "dev", *ports]
    terminal = pexpect.spawn(
        sys.executable, command, cwd=str(changeable.path), env=env, encoding="utf-8", timeout=60
    )
    message = ""
    try:
        terminal.expect_exact("Ctrl-C stops both.")
        message += str(terminal.before)
        home = f"http://localhost:{ports[1]}"
        for path in ("/static/style.css", "/static/gone.css", "/logs"):
            httpx2.get(f"{home}{path}")
        terminal.expect_exact("GET /logs 200")
        message += str(terminal.before)
    finally:
        terminal.close(force=True)
    coloured = variables == {"TERM": "xterm"}
    for code in ("\x1b", "\x1b[33m", "\x1b[31m"):
        assert (code in message) is coloured
    for level, colour in ((20, ""), (30, "\x1b[33m"), (40, "\x1b[31m")):
        [line] = [line for line in message.splitlines() if f"at level {level}" in line]
        assert line.startswith(colour if coloured else "20")
        assert ("\x1b" in line) is (coloured and bool(colour))
    assert "style.css" not in message
    # A missing file is logged.
    assert "GET /static/gone.css 404" in message


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> BakedProject:
    """Return a project that a test may change."""
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
    # The command reads the .env of its project, even if it starts in another folder.
    with running(command, tmp_path, environment(**variables)) as process:
        endpoint = f"http://localhost:{port}"
        process.wait_for(f"{endpoint}/oidc/jwks")
        parameters = {
            "client_id": "from-file",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": API,
        }
        page = httpx2.get(f"{endpoint}/oidc/auth", params=parameters, follow_redirects=True)
        assert "Sign in to <bdi>" in page.text
        parameters = {"client_id": "from-file", "post_logout_redirect_uri": HOME}
        response = httpx2.get(f"{endpoint}/oidc/session/end", params=parameters)
        assert response.headers["Location"] == HOME
        process.press_ctrl_c()
        assert process.exit_code() == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_local_logto_alone_knows_the_name_and_the_url_of_the_app(
    bake: Bake, framework: str
) -> None:
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


# Faults that stop a command at its start


ALONE = ("dev.local_logto", "--port")
APP = ("dev", "--port")
LOGTO_BESIDE_APP = ("dev", "--logto-port")


def message_of(project: BakedProject, *command: str, wrapper: tuple[str, ...] = ()) -> str:
    """Run a command of the project that fails with status 1, and return its one-line message."""
    done = project.attempt(*wrapper, "python", "-m", *command)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def with_free_app_port(command: tuple[str, str]) -> list[str]:
    """Return the command with a free port for the app: it checks the port of the app first."""
    module, option = command
    others = ["--port", str(free_port())] if option == "--logto-port" else []
    return [module, *others, option]


@pytest.mark.parametrize("command", [ALONE, APP, LOGTO_BESIDE_APP], ids=" ".join)
def test_a_taken_port_is_named_with_the_option_for_another_port(
    bake: Bake, logto: Any, command: tuple[str, str]
) -> None:
    message = message_of(bake(), *with_free_app_port(command), str(logto.port))
    assert f"Port {logto.port} is taken" in message
    assert f"{command[1]} {logto.port + 10}" in message


def test_after_a_killed_python_m_dev_the_message_names_the_cause(
    bake: Bake, ports: list[str]
) -> None:
    with bake().start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        process.send(signal.SIGKILL)
        assert process.exit_code() == -signal.SIGKILL
        message = message_of(bake(), "dev", *ports)
        assert f"Port {ports[1]} is taken, perhaps by a python process that a killed" in message


# Root may bind every port, except without this capability.
WITHOUT_CAPABILITY = ("setpriv", "--bounding-set=-net_bind_service")
BIND_PORT_77 = "import socket; socket.create_server(('127.0.0.1', 77))"


@pytest.mark.parametrize("command", [ALONE, APP, LOGTO_BESIDE_APP], ids=" ".join)
def test_a_port_that_the_system_reserves_is_named_with_the_option_for_another_port(
    bake: Bake, command: tuple[str, str]
) -> None:
    wrapper = WITHOUT_CAPABILITY if shutil.which("setpriv") and os.geteuid() == 0 else ()
    if "PermissionError" not in bake().attempt(*wrapper, "python", "-c", BIND_PORT_77).stderr:
        pytest.skip("this system reserves no port")
    message = message_of(bake(), *with_free_app_port(command), "77", wrapper=wrapper)
    assert "Port 77 cannot be used: the system reserves it" in message
    assert f"{command[1]} 87" in message


TEXT = "LOGTO_APP_ID=bücher\n"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
@pytest.mark.parametrize("command", ["dev", "dev.local_logto"])
def test_an_env_file_in_another_encoding_is_a_plain_error_message(
    project: BakedProject, command: str, encoding: str
) -> None:
    (project.path / ".env").write_text(TEXT, encoding)
    message = message_of(project, command)
    assert f"Save {project.path / '.env'} as UTF-8" in message
