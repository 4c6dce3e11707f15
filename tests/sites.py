"""A baked app that runs as in production, with a Logto that can have faults.

The processes of granian, HTTP, the SQLite files and the Redis servers are real.
"""

import functools
import json
import re
import shutil
import socket
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpcore2
import httpx2
import pytest
from conftest import Bake, BakedProject, missing
from jwt import PyJWS
from processes import Process, free_port, running
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

SERVED = Path(__file__).parent / "served"
FRAMEWORKS = ("flask", "quart")
TIME_LIMIT = 2.0
"""Seconds that the apps of these tests wait for Logto."""
SIGNING_KEY = "the-signing-key-of-the-webhook"
MARKER = "outside<b>text</b>"
"""A text that Logto sends. The app must never show it on a page."""

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]
Fault = Callable[..., Iterable[bytes]]


def both_frameworks(function: Any) -> Any:
    """Run a test for each `framework`.

    One worker runs all tests of a framework, because they share their apps.
    """
    return pytest.mark.parametrize(
        "framework",
        [pytest.param(name, marks=pytest.mark.xdist_group(f"{name} sites")) for name in FRAMEWORKS],
    )(function)


def both_stores(function: Any) -> Any:
    """Run a test on SQLite and on Redis."""
    return pytest.mark.parametrize("store", ["sqlite", "redis"])(function)


# Faults of a provider


def silent(
    app: WSGI, environ: dict[str, Any], start: Any, over: threading.Event
) -> Iterable[bytes]:
    """Send no response until the fault is over."""
    over.wait()
    return app(environ, start)


def cut_off(
    app: WSGI, environ: dict[str, Any], start: Any, over: threading.Event
) -> Iterable[bytes]:
    """Close the connection without a response."""
    # Without the shutdown, the server would keep the connection for the next request.
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def slow(seconds: float) -> Fault:
    """Send the correct response after so many seconds."""

    def fault(app: WSGI, environ: dict[str, Any], start: Any, over: threading.Event) -> Any:
        time.sleep(seconds)
        return app(environ, start)

    return fault


def fixed_response(status: str, body: str | bytes, mimetype: str = "application/json") -> Fault:
    """Send this response to every request."""

    def fault(app: WSGI, environ: dict[str, Any], start: Any, over: threading.Event) -> Any:
        content = body.encode() if isinstance(body, str) else body
        start(status, [("Content-Type", mimetype), ("Content-Length", str(len(content)))])
        return [content]

    return fault


def oidc_error(error: str, status: str = "400 Bad Request") -> Fault:
    """Send an error (RFC 6749, 5.2) whose description contains HTML and control characters."""
    return fixed_response(
        status, json.dumps({"error": error, "error_description": f"{MARKER}\r\n\x1b[31m"})
    )


def changed(change: Callable[[Any], Any]) -> Fault:
    """Send the correct response after `change` was applied to its JSON."""

    def fault(app: WSGI, environ: dict[str, Any], start: Any, over: threading.Event) -> Any:
        body, _, _ = run_wsgi_app(app, environ, buffered=True)
        content = json.dumps(change(json.loads(b"".join(body))))
        return fixed_response("200 OK", content)(app, environ, start, over)

    return fault


UNAVAILABLE: dict[str, Fault] = {
    "silent": silent,
    "cut off": cut_off,
    "502 HTML": fixed_response("502 Bad Gateway", f"<h1>{MARKER}</h1>", "text/html"),
    "200 HTML": fixed_response("200 OK", f"<h1>{MARKER}</h1>", "text/html"),
    "500 JSON": fixed_response("500 Server Error", json.dumps({"message": MARKER})),
    "broken JSON": fixed_response("200 OK", f'{{"access_token": "{MARKER}'),
    "not UTF-8": fixed_response("200 OK", b'{"\xff\xfe": 1}'),
    "a list": fixed_response("200 OK", json.dumps([MARKER])),
    "null": fixed_response("200 OK", "null"),
    "an empty object": fixed_response("200 OK", "{}"),
    "deep JSON": fixed_response("200 OK", "[" * 100_000),
    "nothing": fixed_response("200 OK", ""),
}
"""Responses that Logto never sends at any endpoint."""


class Handler(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class FaultyLogto:
    """The local Logto of a bake on a separate server, which can stop and send wrong responses."""

    def __init__(self, project: BakedProject, redirect_uri: str) -> None:
        home = redirect_uri.removesuffix("callback")
        sys.path.insert(0, str(project.path))
        try:
            from dev.local_logto import LocalLogto  # type: ignore[import-not-found]
        finally:
            sys.path.remove(str(project.path))
        self.local: Any = LocalLogto(
            port=free_port(),
            app_id="test-app",
            redirect_uris=[redirect_uri],
            post_logout_redirect_uris=[home],
            backchannel_logout_uri=f"{home}backchannel-logout",
        )
        self.local.stop()
        self.endpoint: str = self.local.endpoint
        self.issuer: str = self.local.issuer
        self._faults: dict[str, Callable[..., Iterable[bytes]]] = {}
        self._paths: list[str] = []

    def start(self) -> None:
        self._server = make_server(
            "127.0.0.1", self.local.port, self._wsgi, threaded=True, request_handler=Handler
        )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Stop listening on the port until the end of the `with` block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @property
    def has_fault(self) -> bool:
        """Whether a fault is active now."""
        return bool(self._faults)

    @contextmanager
    def fault(self, path: str, fault: Fault) -> Iterator[None]:
        """Respond to requests for this path with this fault until the end of the `with` block."""
        over = threading.Event()
        self._faults[path] = functools.partial(fault, over=over)
        try:
            yield
        finally:
            del self._faults[path]
            over.set()

    def _wsgi(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self._paths.append(environ["PATH_INFO"])
        app: WSGI = self.local.app.wsgi_app
        fault = self._faults.get(environ["PATH_INFO"])
        if fault is None:
            return app(environ, start)
        return fault(app, environ, start)

    def calls(self, path: str) -> int:
        """Return how many requests for this path have arrived so far."""
        return self._paths.count(path)

    @contextmanager
    def expired_tokens(self) -> Iterator[None]:
        """Issue access tokens that have already expired, until the end of the `with` block."""
        self.local.access_token_lifetime = 0
        try:
            yield
        finally:
            self.local.access_token_lifetime = 3600

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Rotate refresh tokens: a token works once, and a second use revokes the whole grant."""
        oidc: Any = sys.modules["dev.oidc"]
        grace = oidc.ROTATION_GRACE
        self.local.rotate_refresh_tokens = True
        oidc.ROTATION_GRACE = -1
        try:
            yield
        finally:
            self.local.rotate_refresh_tokens = False
            oidc.ROTATION_GRACE = grace

    def new_key(self) -> None:
        """Replace the signing key by a new key."""
        self.local.key = type(self.local.key).generate_key(
            "P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True
        )

    def logout_token(
        self, header: dict[str, Any] | None = None, key: Any = None, **claims: Any
    ) -> str:
        """Return a logout token (Back-Channel Logout 1.0, 2.4) without the claims that are None."""
        now = int(time.time())
        payload = {
            "iss": self.issuer,
            "sub": "k3v9x0q2m7ae",
            "aud": "test-app",
            "iat": now,
            "exp": now + 120,
            "jti": f"jti-{time.monotonic_ns()}",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        } | claims
        return self.signed(
            {"typ": "logout+jwt"} | (header or {}),
            {name: value for name, value in payload.items() if value is not None},
            key,
        )

    def signed(self, header: dict[str, Any], claims: Any, key: Any = None) -> str:
        """Return a JWT with this header. The default `alg` and `kid` are those of Logto's key."""
        header = {"alg": "ES384", "kid": self.local.key.kid} | header
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        if header["alg"] == "none":
            parts = (json.dumps(header).encode(), payload)
            return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."
        private_key = (key or self.local.key).private_key
        return PyJWS().encode(payload, private_key, header["alg"], {"typ": "", **header})


@dataclass
class Browser:
    """A browser that keeps cookies and follows no redirect by itself."""

    site: "Site"
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(
            base_url=self.site.url,
            timeout=30,
            verify=False,
            event_hooks={"response": [self._remember_cookies]},
        )

    def _remember_cookies(self, response: httpx2.Response) -> None:
        for header in response.headers.get_list("Set-Cookie"):
            value = header.partition("=")[2].partition(";")[0]
            # A shorter value is no secret: it only marks a visit through another host name.
            if len(value) > 20:
                self.site.secrets.add(value)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.http.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return self.http.post(path, **options)

    def start(self, path: str = "/sign-in") -> str:
        """Begin a sign-in, and return the URL of Logto's page."""
        response = self.get(path)
        assert response.status_code == 302, response.text
        return response.headers["Location"]

    def answer(self, url: str, **choice: str) -> str:
        """Send the form of Logto's page, and return the path and query of the callback.

        The default choice is `user="alice"`.
        """
        with httpx2.Client(follow_redirects=True, verify=False) as http:
            page = http.get(url).url
            form = {"interaction": page.params["interaction"], **(choice or {"user": "alice"})}
            callback = http.post(page.join("/sign-in"), data=form, follow_redirects=False)
        return callback.headers["Location"].removeprefix(
            self.site.callback.removesuffix("/callback")
        )

    def sign_in(self, start: str = "/sign-in", **choice: str) -> httpx2.Response:
        """Sign in completely, and return the app's response to the callback."""
        return self.get(self.answer(self.start(start), **choice))

    @property
    def is_signed_in(self) -> bool:
        response = self.get("/")
        assert response.status_code == 200, response.text
        return "Hello," in response.text

    @property
    def session_cookie(self) -> str | None:
        return self.http.cookies.get("bookstore-session")


@dataclass
class Site:
    """A baked app in one or more processes, which share a session store."""

    project: BakedProject
    framework: str
    logto: FaultyLogto
    urls: list[str]
    variables: dict[str, str]
    processes: list[Process] = field(default_factory=list)
    secrets: set[str] = field(default_factory=lambda: {"the-app-secret", SIGNING_KEY})

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def callback(self) -> str:
        return self.variables["LOGTO_CALLBACK_URL"]

    @property
    def log(self) -> str:
        return "".join(process.output for process in self.processes)

    def browser(self) -> Browser:
        return Browser(self)

    @property
    def database(self) -> Path:
        """The SQLite file of the sessions."""
        return Path(self.variables["SESSION_URL"].removeprefix("sqlite:///"))

    @contextmanager
    def log_lines(self) -> Iterator[list[str]]:
        """Yield a list that has the log lines of the `with` block after the end of the block."""
        lines: list[str] = []
        before = [len(process.output) for process in self.processes]
        yield lines
        time.sleep(0.05)
        for process, start in zip(self.processes, before, strict=True):
            lines += process.output[start:].split("\n")


@contextmanager
def serving(
    project: BakedProject,
    framework: str,
    session_url: str,
    processes: int = 1,
    https: bool = False,
    host: str = "localhost",
    callback: str = "",
    **variables: str,
) -> Iterator[Site]:
    """Start the app on granian, and its Logto. At the end, check that the log has no secret."""
    ports = [free_port() for _ in range(processes)]
    origin = "https://books.example" if https else f"http://{host}:{ports[0]}"
    callback = callback or f"{origin}/callback"
    logto = FaultyLogto(project, callback)
    environment = {
        "LOGTO_ENDPOINT": logto.endpoint,
        "LOGTO_APP_ID": "test-app",
        "LOGTO_APP_SECRET": "the-app-secret",
        "LOGTO_CALLBACK_URL": callback,
        "SESSION_URL": session_url,
        "PYTHONPATH": str(SERVED),
        "TEST_FRAMEWORK": framework,
        "TEST_TIME_LIMIT": str(TIME_LIMIT),
    } | variables
    urls = [f"http://{host}:{port}" for port in ports]
    site = Site(project, framework, logto, urls, environment)
    logto.start()
    with ExitStack() as stack:
        stack.callback(logto.stop)
        site.processes += [stack.enter_context(process(site, port)) for port in ports]
        for url, started in zip(urls, site.processes, strict=True):
            started.wait_for(f"{url}/healthz")
        yield site
        in_log = {secret for secret in site.secrets | set(logto.local.issued) if secret in site.log}
        assert not in_log, "the log contains secrets"


def process(site: Site, port: int) -> Any:
    """Start granian with the app on this port, until the end of the `with` block."""
    interface = {
        "flask": ["--interface", "wsgi", "--blocking-threads", "4"],
        "quart": ["--interface", "asgi"],
    }[site.framework]
    limit = ["--http", "1", "--http1-buffer-size", "32768"]
    command = ["granian", *interface, *limit, "--factory", "--port", str(port)]
    app = site.variables.get("TEST_APP", "served:create_app")
    return site.project.fork(*command, app, **site.variables)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[tuple[int, Process]]:
    """Start a separate Redis. Give its port and its process."""
    program = shutil.which("redis-server")
    if not program:
        missing("redis-server")
    assert program
    port = free_port()
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no", *options]
    with running(command, folder, {}) as server:
        server.wait_for_text("Ready to accept connections")
        yield port, server


@pytest.fixture(scope="session", autouse=True)
def certificates_loaded_once() -> Iterator[None]:
    """Share the trusted certificates between all HTTP clients: loading them takes 40 ms."""
    with pytest.MonkeyPatch.context() as patch:
        loaded_once = functools.cache(httpcore2.default_ssl_context)
        patch.setattr(httpcore2, "default_ssl_context", loaded_once)
        yield


@pytest.fixture(scope="session")
def sites(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Return a function that gives the site of a framework and a kind of store.

    The first call for a framework and a store starts the site.
    """
    started: dict[tuple[str, str], Site] = {}
    with ExitStack() as stack:

        def site_of(framework: str, store: str = "sqlite") -> Site:
            if (framework, store) not in started:
                folder = tmp_path_factory.mktemp(store)
                url = f"sqlite:///{folder}/sessions.sqlite3"
                if store == "redis":
                    port, _ = stack.enter_context(redis_server(folder))
                    url = f"redis://localhost:{port}/0"
                site = serving(
                    bake(framework=framework),
                    framework,
                    url,
                    processes=2,
                    LOGTO_WEBHOOK_SIGNING_KEY=SIGNING_KEY,
                )
                started[framework, store] = stack.enter_context(site)
                assert started[framework, store].browser().get("/readyz").status_code == 200
            return started[framework, store]

        yield site_of


def query(url: str) -> dict[str, str]:
    """Return the query parameters of a URL."""
    return dict(parse_qsl(urlsplit(url).query))


def assert_says(
    response: httpx2.Response, status: int, title: str, retry: str | None = None
) -> None:
    """Check that this is the app's page with this title, without a text from Logto.

    `retry` is the URL of the link "Try again".
    """
    assert response.status_code == status, response.text
    assert f"<h1>{title}</h1>" in response.text
    assert MARKER not in response.text
    assert "outside" not in response.text
    assert "Traceback" not in response.text
    assert "Location" not in response.headers
    assert response.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert ("Retry-After" in response.headers) == (status == 503)
    if retry:
        links = re.findall(r'href="([^"]+)">Try again<', response.text)
        assert links == [retry]
