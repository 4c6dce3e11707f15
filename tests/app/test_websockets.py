"""WebSockets: Quart protects them like pages, and a refusal is no error in the log."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Bake
from httpx2 import URL
from processes import free_port, until
from sites import Browser, Site, both_frameworks, serving
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    Event,
    RejectConnection,
    Request,
    TextMessage,
)

Sites = Callable[..., Site]

quart_only = pytest.mark.parametrize(
    "framework", [pytest.param("quart", marks=pytest.mark.xdist_group("quart sites"))]
)


class WebSocket:
    """A client's end of a WebSocket, and the status of the response to its handshake."""

    def __init__(self, browser: Browser, path: str, **headers: str) -> None:
        url = URL(browser.site.url)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
        sent = {**headers, **({"Cookie": cookies} if cookies else {})}
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=10)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events = self._received()
        extra = [(name.encode(), value.encode()) for name, value in sent.items()]
        self.send(Request(host=f"{url.host}:{url.port}", target=path, extra_headers=extra))
        response = next(self._events)
        assert isinstance(response, AcceptConnection | RejectConnection)
        refused = isinstance(response, RejectConnection)
        self.status: int = response.status_code if refused else 101  # type: ignore[union-attr]

    def send(self, event: Event) -> None:
        self.socket.sendall(self._protocol.send(event))

    def _received(self) -> Iterator[Event]:
        while True:
            data = self.socket.recv(65536)
            self._protocol.receive_data(data or None)
            yield from self._protocol.events()

    def text(self) -> str:
        """Return the next message."""
        event = next(self._events)
        assert isinstance(event, TextMessage), event
        return event.data


@contextmanager
def open_websocket(browser: Browser, path: str, **headers: str) -> Iterator[WebSocket]:
    opened = WebSocket(browser, path, **headers)
    try:
        yield opened
    finally:
        opened.socket.close()


def status_of(browser: Browser, path: str, **headers: str) -> int:
    with open_websocket(browser, path, **headers) as opened:
        return opened.status


@pytest.fixture
def no_errors_in_log(sites: Sites, framework: str) -> Iterator[None]:
    """Check that the log of the app has no error during the test."""
    with sites(framework).log_lines() as lines:
        yield
    assert not [line for line in lines if "Traceback" in line or "ERROR" in line]


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
def test_a_signed_out_client_is_refused(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    assert status_of(browser, "/test/talk") == 403
    assert status_of(browser, "/test/talk", Origin=site.url) == 403
    assert status_of(browser, "/test/talk", Origin="https://evil.example") == 403
    browser.http.cookies.set("bookstore-session", "x" * 43)
    assert status_of(browser, "/test/talk", Origin=site.url) == 403


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
def test_a_signed_in_user_is_accepted_from_pages_of_the_app(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    # A client that is not a browser sends no Origin.
    for headers in ({"Origin": site.url}, {}):
        with open_websocket(browser, "/test/talk", **headers) as opened:
            assert opened.status == 101
            assert opened.text() == "k3v9x0q2m7ae"
    assert browser.is_signed_in


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
def test_a_page_of_another_site_cannot_use_the_cookies_of_a_user(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    for origin in (
        "https://evil.example",
        "null",
        "",
        site.logto.endpoint,
        f"{site.url}.evil.example",
        f"{site.url}0",
        site.url.replace("http:", "https:"),
        site.url.replace("localhost", "127.0.0.1"),
    ):
        assert status_of(browser, "/test/talk", Origin=origin) == 403, origin
    assert browser.is_signed_in


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
def test_a_websocket_without_a_guard_accepts_every_client(sites: Sites, framework: str) -> None:
    site = sites(framework)
    for headers in ({}, {"Origin": site.url}, {"Origin": "https://other.example"}):
        with open_websocket(site.browser(), "/test/echo", **headers) as opened:
            assert opened.status == 101
            opened.send(TextMessage(data="山田"))
            assert opened.text() == "山田"


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
def test_a_websocket_can_write_into_the_session(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    browser.sign_in()
    with open_websocket(browser.site.browser(), "/test/remember") as opened:
        assert opened.text() == "remembered"
    with open_websocket(browser, "/test/remember") as opened:
        assert opened.text() == "remembered"
        # Check before the connection ends: Quart cancels a view whose client disconnected.
        until(lambda: "'note': 'text'" in browser.get("/test/note?name=other").text)


@quart_only
@pytest.mark.usefixtures("no_errors_in_log")
@pytest.mark.parametrize(
    "path",
    [
        "/test/hang-up",
        "/test/hang-up?status=404",
        "/test/hang-up?status=503",
        "/nowhere",
        "/",
        "/profile",
        "/sign-in",
        "/callback?code=1&state=2",
        "//evil.example",
        "/test/talk/",
    ],
)
def test_a_websocket_is_refused_if_the_view_closes_it_or_no_view_exists(
    sites: Sites, framework: str, path: str
) -> None:
    assert status_of(sites(framework).browser(), path) == 403


@quart_only
def test_a_session_store_that_is_down_refuses_websockets(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    database = tmp_path / "sessions.sqlite3"
    database.write_bytes(b"this is no database " * 1000)
    with serving(bake(framework=framework), framework, f"sqlite:///{database}") as site:
        browser = site.browser()
        browser.http.cookies.set("bookstore-session", "x" * 43)
        with site.log_lines() as lines:
            assert status_of(browser, "/test/talk", Origin=site.url) == 403
            assert status_of(browser, "/test/echo") == 101
            with open_websocket(site.browser(), "/test/remember") as opened:
                assert opened.text() == "remembered"
            time.sleep(0.2)
        assert [line for line in lines if "session store is unavailable" in line]
        assert not [line for line in lines if "Traceback" in line]


@pytest.mark.usefixtures("no_errors_in_log")
@both_frameworks
def test_a_handshake_at_a_page_starts_no_sign_in(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser_headers = {"Origin": site.url, "Sec-Fetch-Mode": "websocket"}
    for path in ("/profile", "/test/guarded", "/sign-out", "/nowhere"):
        assert 400 <= status_of(browser, path, **browser_headers) < 500 or path == "/sign-out"
    browser.sign_in()
    status_of(browser, "/sign-out", **browser_headers)
    assert browser.is_signed_in


@quart_only
def test_a_websocket_works_below_a_path_and_is_refused_on_untrusted_hosts(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    port = free_port()
    with serving(
        bake(framework=framework),
        framework,
        f"sqlite:///{tmp_path}/sessions.sqlite3",
        callback=f"http://localhost:{port}/bookstore/callback",
        APPLICATION_ROOT="/bookstore",
        TEST_TRUSTED_HOSTS="books.example",
    ) as site:
        browser = site.browser()
        for path in ("/bookstore/test/echo", "/test/echo"):
            with open_websocket(browser, path) as opened:
                assert opened.status == 101
                opened.send(TextMessage(path))
                assert opened.text() == path
        site.urls = [site.url.replace("localhost", "127.0.0.1")]
        assert status_of(browser, "/test/echo") == 403
        assert "Traceback" not in site.log
