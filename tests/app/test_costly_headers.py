"""Request headers that are slow to parse, and the limits on their size in production."""

import http.client
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import Bake, environment, program
from processes import free_port, running
from sites import SERVED, Site, both_frameworks

Sites = Callable[..., Site]
PARSED = [
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Access-Control-Request-Headers",
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Cookie",
    "Date",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Origin",
    "Pragma",
    "Range",
    "Referer",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Request-ID",
]
"""Headers that the app, its framework or Werkzeug reads."""
READ_AT = {
    "Accept-Language": ("GET", "/sign-in"),
    "Content-Type": ("POST", "/backchannel-logout"),
    "If-Match": ("GET", "/static/style.css"),
    "If-Modified-Since": ("GET", "/static/style.css"),
    "If-None-Match": ("GET", "/static/style.css"),
    "If-Range": ("GET", "/static/style.css"),
    "Range": ("GET", "/static/style.css"),
}
"""The requests at which the app reads a header, for headers that not every page reads."""
SHAPES = ['a={}"', '"a"{}x', "bytes={}-", 'a;b={}"x']
FILLINGS = {"spaces": " " * 30_000, "tabs": "\t" * 30_000, "both": " \t" * 15_000}


def send(port: int, headers: dict[str, str], method: str = "GET", path: str = "/") -> int:
    """Send a request with exactly these header values, and return the status of the response."""
    connection = http.client.HTTPConnection("localhost", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return response.status


@both_frameworks
@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
def test_thirty_kilobytes_of_spaces_in_a_header_are_read_quickly(
    sites: Sites, framework: str, filling: str
) -> None:
    site = sites(framework)
    server, port = site.processes[0], int(site.url.rpartition(":")[2])

    def cost(name: str, shape: str) -> float:
        # The CPU time of the server: the load of the machine does not change it.
        before = server.cpu_seconds
        page = READ_AT.get(name, ("GET", "/profile"))
        assert send(port, {name: shape.format(filling)}, *page) < 500
        return server.cpu_seconds - before

    for name in PARSED:
        for shape in SHAPES:
            # One of three is enough: another thread of the server may use the CPU meanwhile.
            assert any(cost(name, shape) < 0.1 for _ in range(3)), (name, shape)


@both_frameworks
def test_spaces_in_the_headers_of_a_websocket_are_read_quickly(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    server, port = site.processes[0], int(site.url.rpartition(":")[2])
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        "Cookie": SHAPES[0].format(FILLINGS["spaces"]),
    }

    def cost() -> float:
        before = server.cpu_seconds
        assert 400 <= send(port, handshake, path="/nowhere") < 500
        return server.cpu_seconds - before

    assert any(cost() < 0.1 for _ in range(3))


# The size of all headers together

KILOBYTE = 1024


def granian_commands(
    project_files: dict[str, bytes],
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return how the image and the README start the app: a command and its variables."""
    dockerfile, readme = (project_files[name].decode() for name in ("Dockerfile", "README.md"))
    variables = dict(re.findall(r"\b(GRANIAN_\w+)=(\S+)", dockerfile))
    (words,) = re.findall(r'^CMD \["(granian.*)"\]', dockerfile, re.MULTILINE)
    (line,) = re.findall(r"^granian --interface .*app:create_app$", readme, re.MULTILINE)
    return {"image": (words.split('", "'), variables), "README": (shlex.split(line), {})}


@pytest.mark.parametrize("framework", ["flask", "quart"])
@pytest.mark.parametrize("place", ["image", "README"])
def test_the_server_refuses_headers_of_70_kilobytes(
    bake: Bake, framework: str, place: str, tmp_path: Path
) -> None:
    command, variables = granian_commands(bake(framework=framework).contents)[place]
    port = free_port()
    # This small app starts at once.
    command = [word.replace("3000", str(port)) for word in command]
    variables["GRANIAN_PORT"] = str(port)
    command[-1] = "small_app:create_app"
    interface = command[command.index("--interface") + 1]
    environ = environment(PYTHONPATH=str(SERVED), TEST_INTERFACE=interface, **variables)
    with running([program("granian", environ), *command[1:]], tmp_path, environ) as server:
        server.wait_for(f"http://localhost:{port}/")
        assert send(port, {"Cookie": "x" * 20 * KILOBYTE}) == 200
        # granian reads a little more than its limit before it refuses the request.
        assert send(port, {"Cookie": "x" * 70 * KILOBYTE}) == 431
        assert send(port, {f"X-{number}": "x" * KILOBYTE for number in range(70)}) == 431
        # granian has no limit for HTTP/2, so HTTP/2 is switched off.
        assert not speaks_http_2(port)


def speaks_http_2(port: int) -> bool:
    """Return whether the server responds to the preface of HTTP/2 with a SETTINGS frame."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with socket.create_connection(("localhost", port), timeout=10) as connection:
        connection.sendall(preface)
        response = connection.recv(9)
    return len(response) == 9 and response[3] == 4


class Upstream(BaseHTTPRequestHandler):
    """The app behind the proxy. It accepts headers of any size and responds with their cookies."""

    def do_GET(self) -> None:
        body = (self.headers["Cookie"] or "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxied(bake: Bake, folder: Path) -> Iterator[int]:
    """Run the proxy of a bake with `Upstream` behind it, and yield the port of the proxy."""
    upstream, port = HTTPServer(("127.0.0.1", 0), Upstream), free_port()
    threading.Thread(target=upstream.serve_forever, args=(0.05,), daemon=True).start()
    caddyfile = bake().read("Caddyfile").replace("tls internal", "")
    caddyfile = caddyfile.replace("https://localhost:3443", f"http://localhost:{port}")
    caddyfile, replaced = re.subn(
        r"dynamic a app 3000 \{[^}]*\}", f"to 127.0.0.1:{upstream.server_port}", caddyfile
    )
    assert replaced == 1
    (folder / "Caddyfile").write_text(caddyfile, "utf-8")
    command = [program("caddy", environment()), "run", "--config", "Caddyfile"]
    try:
        with running(command, folder, environment(HOME=str(folder))) as proxy:
            proxy.wait_for(f"http://localhost:{port}/")
            yield port
    finally:
        upstream.shutdown()
        upstream.server_close()


def test_the_proxy_refuses_headers_of_60_kilobytes(bake: Bake, tmp_path: Path) -> None:
    with proxied(bake, tmp_path) as port:
        assert send(port, {"Cookie": "x" * 20 * KILOBYTE}) == 200
        assert send(port, {"Cookie": "x" * 60 * KILOBYTE}) == 431


def test_the_proxy_drops_a_cookie_that_would_hide_the_others(bake: Bake, tmp_path: Path) -> None:
    with proxied(bake, tmp_path) as port:
        for sent, kept in (
            ("a=1; bookstore-session=abc", "a=1; bookstore-session=abc"),
            ("a=1; b=\xe9; bookstore-session=abc", "a=1; bookstore-session=abc"),
            ("\xe9=1; bookstore-session=abc", "bookstore-session=abc"),
            # The rest of a name must not become the name of another cookie.
            ("bookstore-session\xe9=evil; a=1", "a=1"),
        ):
            connection = http.client.HTTPConnection("localhost", port, timeout=60)
            connection.request("GET", "/", headers={"Cookie": sent})
            assert connection.getresponse().read().decode().strip("; ") == kept
            connection.close()
