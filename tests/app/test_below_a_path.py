"""The app below a path of a shared host, behind a proxy that strips the path or does not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from conftest import Bake
from playwright.sync_api import Browser, expect
from processes import free_port, until
from sites import Site, both_frameworks, serving

ROOT = "/bookstore"
ALICE = "k3v9x0q2m7ae"


class Proxy(ThreadingHTTPServer):
    """Forwards requests below ROOT to the app, as an ingress does. Refuses all others."""

    daemon_threads = True
    to = ""

    def __init__(self, port: int, strip: bool) -> None:
        super().__init__(("127.0.0.1", port), Forward)
        self.strip = strip


class Forward(BaseHTTPRequestHandler):
    server: Proxy

    def forward(self) -> None:
        if not self.path.startswith(f"{ROOT}/") and self.path != ROOT:
            self.send_error(404, "another app")
            return
        path = (self.path.removeprefix(ROOT) or "/") if self.server.strip else self.path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        app = HTTPConnection(urlsplit(self.server.to).netloc, timeout=30)
        app.request(self.command, path, body, dict(self.headers))
        response = app.getresponse()
        content = response.read()
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() != "transfer-encoding":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        app.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.forward
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def below_a_path(
    bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, bool], Site]]:
    """Start an app with APPLICATION_ROOT behind a proxy."""
    with ExitStack() as stack:

        @cache
        def start(framework: str, strip: bool) -> Site:
            port = free_port()
            store = f"sqlite:///{tmp_path_factory.mktemp('sessions')}/sessions.sqlite3"
            site = stack.enter_context(
                serving(
                    bake(framework=framework),
                    framework,
                    store,
                    callback=f"http://localhost:{port}{ROOT}/callback",
                    APPLICATION_ROOT=ROOT,
                    LOGTO_WEBHOOK_SIGNING_KEY="a-key",
                )
            )
            proxy = stack.enter_context(Proxy(port, strip))
            proxy.to = site.url
            Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(proxy.shutdown)
            site.variables["TEST_APP_URL"] = site.url
            site.urls = [f"http://localhost:{port}"]
            return site

        yield start


both_proxies = pytest.mark.parametrize("strip", [True, False], ids=["stripped", "as it is"])


@both_frameworks
@both_proxies
def test_a_user_signs_in_and_out_below_the_path(
    below_a_path: Callable[[str, bool], Site],
    framework: str,
    strip: bool,
    chromium_browser: Browser,
) -> None:
    site = below_a_path(framework, strip)
    home = f"{site.url}{ROOT}/"
    context = chromium_browser.new_context()
    page = context.new_page()
    failed: list[str] = []
    page.on("response", lambda seen: failed.append(seen.url) if seen.status >= 400 else None)
    page.goto(f"{site.url}{ROOT}/profile")
    page.get_by_role("button", name="Alice Archer").click()
    page.wait_for_url(f"{site.url}{ROOT}/profile")
    expect(page.get_by_text("alice@example.com").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).fontFamily").startswith("system-ui")
    page.get_by_role("link", name="Bookstore").click()
    page.wait_for_url(home)
    (cookie,) = [c for c in context.cookies() if c.get("name", "").endswith("-session")]
    assert (cookie.get("name"), cookie.get("path")) == ("bookstore-bookstore-session", "/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(home)
    expect(page.get_by_role("link", name="Sign in", exact=True)).to_be_visible()
    page.goto(f"{site.url}{ROOT}/nowhere")
    page.get_by_role("link", name="Go to the home page").click()
    page.wait_for_url(home)
    assert failed == [f"{site.url}{ROOT}/nowhere"]
    context.close()


@both_frameworks
@both_proxies
def test_every_url_of_the_app_is_below_the_path(
    below_a_path: Callable[[str, bool], Site], framework: str, strip: bool
) -> None:
    site = below_a_path(framework, strip)
    http = httpx2.Client(base_url=site.url)
    assert http.get(f"{ROOT}/profile").headers["Location"] == f"{ROOT}/sign-in?next={ROOT}/profile"
    # If `next` is the URL of another app or another host, the app redirects to its home page.
    for target in ("/", "/other", f"{ROOT}store/", "//evil.example", f"{ROOT}/profile?a=1"):
        page = http.get(f"{ROOT}/sign-in", params={"next": target}).headers["Location"]
        parameters = parse_qs(urlsplit(page).query)
        assert parameters["redirect_uri"] == [site.callback]
        callback = site.browser().answer(page)
        expected = target if target.startswith(f"{ROOT}/") else f"{ROOT}/"
        assert http.get(ROOT + callback).headers["Location"] == expected
    out = urlsplit(http.post(f"{ROOT}/sign-out").headers["Location"])
    assert parse_qs(out.query)["post_logout_redirect_uri"] == [f"{site.url}{ROOT}/"]
    # A request on another host is redirected to the same page below the path.
    on_other_host = http.get(f"{ROOT}/profile?a=1", headers={"Host": "127.0.0.1"})
    assert on_other_host.headers["Location"] == f"{site.url}{ROOT}/profile?a=1"


@both_frameworks
@both_proxies
def test_logto_reaches_the_app_below_the_path(
    below_a_path: Callable[[str, bool], Site], framework: str, strip: bool
) -> None:
    site = below_a_path(framework, strip)
    http = httpx2.Client(base_url=site.url + ROOT)
    page = http.get("/sign-in").headers["Location"]
    http.get(site.browser().answer(page))
    assert http.get("/profile").status_code == 200
    site.logto.local.end_session(list(site.logto.local.sessions)[-1])
    until(lambda: http.get("/profile").status_code == 302)
    assert http.post("/webhooks/logto").status_code == 401


@both_frameworks
def test_health_is_found_with_and_without_the_path(
    below_a_path: Callable[[str, bool], Site], framework: str
) -> None:
    site = below_a_path(framework, False)
    for path in ("/healthz", "/readyz"):
        assert httpx2.get(f"{site.url}{ROOT}{path}").status_code == 200
        assert httpx2.get(f"{site.variables['TEST_APP_URL']}{path}").status_code == 200
