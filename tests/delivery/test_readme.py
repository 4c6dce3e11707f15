"""The README and docs/recipes.md of a project: their code works when it is pasted, and their commands exist."""

import json
import re
import shlex
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from answers import Answers
from conftest import BARE, FULL, Bake, BakedProject, mypy_cache
from processes import free_port
from readme_blocks import CODE, Block, blocks
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, Request, TextMessage

ALL = BARE + FULL
# Both frameworks, and a README with an API and one without: each takes half a minute.
PASTED = [BARE[0], FULL[1]]
ORDERS = [{"title": "Kindred"}, {"title": "Dawn"}]
ROUTE = re.compile(r'@bp\.(get|post|websocket)\("([^"]+)"')
PLACES = {"organization_id": "bookclub0001"}
"""What to put into the variables of routes."""

BUILDS_ON = {"React to changes in Logto": "Keep a row for each user"}
"""Sections that say that they continue the section above."""

Pasted = Callable[[Answers], BakedProject]


@pytest.fixture(scope="module")
def pasted(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Pasted:
    """Paste all blocks of a README, and run the commands that follow, once for each answers."""
    done: dict[str, BakedProject] = {}

    def paste_all(answers: Answers) -> BakedProject:
        key = str(answers)
        if key not in done:
            project = copied(bake(**answers), tmp_path_factory.mktemp("pasted"))
            found = list(blocks(project.path))
            paste([block for block in found if block.section != "Run it in production"], project)
            done[key] = project
        return done[key]

    return paste_all


def copied(project: BakedProject, folder: Path) -> BakedProject:
    ignored = shutil.ignore_patterns("instance", "__pycache__")
    return BakedProject(
        Path(shutil.copytree(project.path, folder / "project", ignore=ignored)), project.answers
    )


def paste(found: list[Block], project: BakedProject) -> None:
    """Do what the README says: paste the blocks, and run the two commands of ruff."""
    for block in found:
        if block.language in CODE:
            block.paste(project.path)
        elif block.language == "json":
            # The text above it says: in `openapi.json`, under `paths`.
            file = project.path / "openapi.json"
            description = json.loads(file.read_text("utf-8"))
            description["paths"] |= json.loads(f"{{{block.text}}}")
            file.write_text(json.dumps(description, indent=2), "utf-8")
    for command in ("ruff check --fix", "ruff format"):
        assert f"\nuv run {command}\n" in project.read("README.md")
        assert f"`uv run {command}`" in project.read("docs/recipes.md")
        project.run("python", "-m", *command.split(), "--no-cache")


@pytest.mark.parametrize("answers", ALL)
def test_every_section_uses_only_names_that_it_imports(
    bake: Bake, answers: Answers, tmp_path: Path
) -> None:
    found = list(blocks(bake(**answers).path))
    sections = {block.section for block in found if block.language in CODE}
    assert {"Protect a page", "Roles and organizations", "Call another API"} <= sections
    assert ("Protect an API" in sections) is bool(answers["api_resource"])
    for number, section in enumerate(sorted(sections)):
        project = copied(bake(**answers), tmp_path / str(number))
        needed = (section, BUILDS_ON.get(section))
        paste([block for block in found if block.section in needed], project)


@pytest.mark.parametrize("answers", PASTED)
def test_a_project_with_all_blocks_passes_its_own_checks(pasted: Pasted, answers: Answers) -> None:
    project = pasted(answers)
    project.run("python", "-m", "ruff", "check", "--no-cache")
    project.run("python", "-m", "ruff", "format", "--check", "--no-cache")
    project.run("python", "-m", "mypy", "--cache-dir", mypy_cache(answers["framework"]))
    tests = project.run("python", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert " passed" in tests.stdout
    assert (project.path / "tests/test_notes.py").exists()


class OtherService(BaseHTTPRequestHandler):
    """The service that the page /orders calls. It needs an access token."""

    def do_GET(self) -> None:
        # A JWT has three parts.
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        right = self.path == "/v1/orders" and token.count(".") == 2
        content = json.dumps(ORDERS if right else {}).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def other_service() -> Iterator[str]:
    """Start the other service, and return its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OtherService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def signed_in(origin: str, user: str) -> httpx2.Client:
    """Sign in at the app as a user of the local Logto."""
    browser = httpx2.Client(base_url=origin, timeout=30, trust_env=False, follow_redirects=True)
    page = browser.get("/sign-in")
    form = {"interaction": page.url.params["interaction"], "user": user}
    assert browser.post(page.url.join("/sign-in"), data=form).status_code == 200
    return browser


@pytest.mark.parametrize("answers", PASTED)
def test_the_pages_that_the_blocks_make_open(
    pasted: Pasted, answers: Answers, other_service: str
) -> None:
    project = pasted(answers)
    found = list(blocks(project.path))
    scopes = " ".join(re.findall(r"^LOGTO_SCOPES=(.*)", "\n".join(b.text for b in found), re.M))
    routes = [route for block in found for route in ROUTE.findall(block.text)]
    assert len(routes) >= 5
    port, logto_port = free_port(), free_port()
    variables = {"ORDERS_URL": other_service, "LOGTO_SCOPES": scopes}
    ports = ["--port", str(port), "--logto-port", str(logto_port)]
    with project.fork("python", "-m", "dev", *ports, **variables) as process:
        origin = f"http://localhost:{port}"
        process.wait_for(f"{origin}/healthz")
        alice, bob = signed_in(origin, "alice"), signed_in(origin, "bob")
        pages = [route.replace("<", "{").replace(">", "}").format(**PLACES) for _, route in routes]
        for (method, _), path in zip(routes, pages, strict=True):
            if path == "/reviews":
                ask = ["dev.access_token", *ports, "--scope", "review:books"]
                token = project.run("python", "-m", *ask)
                headers = {"Authorization": f"Bearer {token.stdout.strip()}"}
                body = httpx2.get(f"{origin}/api{path}", headers=headers).json()
                assert set(body) == {"reviewer", "books"}
            elif method == "websocket":
                assert greeting(port, path, alice) == "Hello Alice Archer"
            elif method == "get":
                assert alice.get(path).status_code == 200, process.output
        for path in ("/admin", "/organizations/bookclub0001"):
            assert bob.get(path).status_code == 403
        assert "admin" in bob.get("/admin").text
        added = alice.post("/notes", data={"text": "<b>Buy paper</b>"})
        assert added.url.path == "/notes"
        assert "<td>&lt;b&gt;Buy paper&lt;/b&gt;</td>" in added.text
        assert '<a href="/notes" aria-current="page">Notes</a>' in added.text
        assert "There are no notes yet" in bob.get("/notes").text
        assert "<li>Kindred</li>" in alice.get("/orders").text
    with sqlite3.connect(project.path / "instance/users.sqlite3") as database:
        names = database.execute("SELECT name FROM users ORDER BY name").fetchall()
    assert names == [("Alice Archer",), ("Bob Baker",)]


def greeting(port: int, path: str, browser: httpx2.Client) -> str:
    """Open a WebSocket, and return its first message."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    protocol = WSConnection(ConnectionType.CLIENT)
    extra = [(b"Cookie", cookies.encode())]
    with socket.create_connection(("localhost", port), timeout=20) as connection:
        request = Request(host=f"localhost:{port}", target=path, extra_headers=extra)
        connection.sendall(protocol.send(request))
        while data := connection.recv(65536):
            protocol.receive_data(data)
            for event in protocol.events():
                assert not isinstance(event, RejectConnection), event
                if isinstance(event, TextMessage):
                    return event.data
                assert isinstance(event, AcceptConnection)
    raise AssertionError("no message")


@pytest.mark.parametrize("answers", FULL)
def test_every_command_of_the_project_exists_with_its_options(bake: Bake, answers: Answers) -> None:
    project = bake(**answers)
    pages = "\n".join(path.read_text("utf-8") for path in project.path.rglob("*.md"))
    commands = set(re.findall(r"(?:^ *|`|= |\()uv run ([^`)\n]+)", pages, re.M))
    assert {"python -m dev", "pytest", f"{answers['framework']} logto check"} <= commands
    for command in commands:
        words = shlex.split(command)
        if words[1:2] == ["logto"]:
            # An installation adds this entry point, and the bakes are not installed.
            words[:2] = ["python", "-c", "from logto_setup import commands; commands()"]
        elif words[0] != "python":
            words[:0] = ["python", "-m"]
        project.run(*words, "--help")
