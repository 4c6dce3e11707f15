"""Requests with another Host header than the host of the callback URL."""

from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest
from conftest import Bake
from sites import Browser, Site, assert_says, both_frameworks, serving

Sites = Callable[..., Site]

PAGES = (
    "/sign-in?next=/test/guarded?tab%3D1&connector=azuread",
    "/sign-up",
    "/profile",
    "/test/guarded?tab=1&name=caf%C3%A9%26x",
)
STRANGE_HOSTS = (
    "evil.example",
    "evil.example:80",
    "EVIL.example.",
    "localhost.evil.example",
    "localhost@evil.example",
    "user:password@evil.example",
    "localhost:1@evil.example",
    "evil.example#localhost",
    "evil.example?localhost",
    "evil.example/localhost",
    "evil.example\\localhost",
    "evil.example, localhost",
    "[::1]",
    "[::1",
    "[",
    ":",
    ":80",
    "a b",
    "<b>",
    "\xff",
    "x" * 63,
    "",
)


@both_frameworks
@pytest.mark.parametrize(
    "name", ["127.0.0.1", "www.localhost", "WWW.LocalHost", "bookstore", "[::1]", "localhost."]
)
def test_another_host_redirects_to_the_same_page_on_the_configured_host(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    for host in (name, f"{name}:{httpx2.URL(site.url).port}", f"{name}:8443"):
        for page in PAGES:
            browser.http.cookies.clear()
            response = browser.get(page, headers={"Host": host})
            assert response.status_code == 302
            assert response.headers["Location"] == f"{site.url}{page}"
            assert "-sign-in-" not in response.headers.get("Set-Cookie", "")


@both_frameworks
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "LocalHost"])
def test_on_the_configured_host_the_sign_in_starts_at_once(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    # A proxy may remove the port, or send its port.
    for host in (name, f"{name}:{httpx2.URL(site.url).port}", f"{name}:8443"):
        response = browser.get("/sign-in", headers={"Host": host})
        assert response.headers["Location"].startswith(f"{site.logto.endpoint}/oidc/auth?")
        response = browser.get("/profile", headers={"Host": host})
        assert response.headers["Location"] == "/sign-in?next=/profile"


@both_frameworks
@pytest.mark.parametrize("host", ["backend", "10.0.0.7:3000", "127.0.0.1:3000"])
def test_behind_a_proxy_that_replaces_the_host_header_a_sign_in_works(
    sites: Sites, framework: str, host: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.http.headers["Host"] = host
    page, redirects = follow(browser, "/test/guarded?tab=1", site.url)
    assert page.startswith(f"{site.logto.endpoint}/oidc/auth?")
    assert redirects <= 3
    assert browser.get(browser.answer(page)).headers["Location"] == "/test/guarded?tab=1"
    assert browser.is_signed_in
    # A second sign-in right after the sign-out works, too.
    browser.post("/sign-out")
    page, redirects = follow(browser, "/sign-in", site.url)
    assert redirects <= 3
    assert browser.get(browser.answer(page)).headers["Location"] == "/"


def follow(browser: Browser, page: str, origin: str) -> tuple[str, int]:
    """Follow redirects within the app. Return the first URL outside of the app, and how many
    redirects contained the configured origin."""
    redirects = 0
    for _ in range(6):
        response = browser.get(page)
        page = response.headers["Location"]
        redirects += page.startswith(f"{origin}/")
        if not page.startswith((f"{origin}/", "/")):
            return page, redirects
        page = str(response.url.join(page))
    raise AssertionError(f"the redirects do not end: {page}")


@both_frameworks
def test_pages_without_a_sign_in_work_on_every_host(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    for host in ("127.0.0.1", "10.0.0.7:3000", "www.localhost"):
        for page in ("/healthz", "/readyz", "/", "/static/style.css"):
            response = browser.get(page, headers={"Host": host})
            assert response.status_code == 200, page
            assert "Set-Cookie" not in response.headers


@both_frameworks
def test_scripts_and_forms_on_another_host_are_not_redirected(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    host = {"Host": "127.0.0.1"}
    # After a redirect, the text of the form would be lost.
    response = browser.post("/test/form", headers=host)
    assert_says(response, 403, "Your text was not saved")
    response = browser.get("/test/guarded", headers=host | {"Sec-Fetch-Mode": "cors"})
    assert response.status_code == 401


@both_frameworks
def test_no_host_header_redirects_out_of_the_app(sites: Sites, framework: str) -> None:
    site = sites(framework)
    url = httpx2.URL(site.url)
    connection = HTTPConnection(url.host, url.port, timeout=10)
    redirects = 0
    for host in STRANGE_HOSTS:
        for path in (
            "/profile",
            "/test/guarded?next=//evil.example",
            "/sign-up?next=//evil.example",
        ):
            connection.putrequest("GET", path, skip_host=True)
            connection.putheader("Host", host.encode("latin-1"))
            connection.endheaders()
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status in (302, 400), host
            assert "<b>" not in body
            location = response.headers.get("Location", "")
            if response.status == 302 and not location.startswith(f"{site.logto.endpoint}/"):
                redirects += 1
                assert location.startswith((f"{site.url}/", "/sign-in?")), host
    connection.close()
    assert redirects > 20


@both_frameworks
def test_another_host_redirects_to_the_configured_host_each_time(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    other_host = site.url.replace("localhost", "127.0.0.1")
    # The user opens two tabs, reloads, or goes back and tries again.
    for _ in range(3):
        page, _ = follow(browser, f"{other_host}/profile", site.url)
    assert browser.get(browser.answer(page)).headers["Location"] == "/profile"


@both_frameworks
@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64])
def test_an_invalid_host_causes_no_error_of_the_app(
    sites: Sites, framework: str, host: str
) -> None:
    site = sites(framework)
    with site.log_lines() as lines:
        response = site.browser().get("/profile", headers={"Host": host})
    assert response.status_code in (302, 400)
    assert "Traceback" not in "\n".join(lines)


FORGED = ("evil.example", "127.0.0.1", "10.0.0.7:8000")


@both_frameworks
@pytest.mark.parametrize("host", FORGED)
def test_urls_of_the_app_come_from_the_configuration(
    sites: Sites, framework: str, host: str
) -> None:
    site = sites(framework)
    headers = {"Host": host, "X-Forwarded-Host": host, "X-Requested-Host": host}
    response = httpx2.get(f"{site.url}/test/external", headers=headers).json()
    url = httpx2.URL(site.url)
    assert response["url"] == f"{site.url}/profile"
    assert response["host"] == f"localhost:{url.port}"
    assert response["page"] == f"{site.url}/test/external"
    # The framework itself redirects a missing slash at the end, and two slashes.
    for path in ("/test/books", "/test//external"):
        response = httpx2.get(site.url + path, headers={"Host": host})
        if response.status_code != 404:
            location = response.headers["Location"]
            assert location.startswith((f"{site.url}/", "/test/")), location


@both_frameworks
def test_behind_tls_urls_begin_with_https(bake: Bake, tmp_path: Path, framework: str) -> None:
    store = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, store, https=True) as site:
        response = httpx2.get(f"{site.url}/test/external").json()
        assert response["url"] == "https://books.example/profile"
        assert response["scheme"] == "https"
        location = httpx2.get(f"{site.url}/test/books").headers["Location"]
        assert location in ("https://books.example/test/books/", "/test/books/")


@both_frameworks
def test_with_trusted_hosts_other_hosts_get_only_the_health_checks(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    store = f"sqlite:///{tmp_path}/sessions.sqlite3"
    trusted = "localhost .books.example"
    project = bake(framework=framework)
    with serving(project, framework, store, TEST_TRUSTED_HOSTS=trusted) as site:
        for host, status in (
            ("localhost", 200),
            ("www.books.example", 200),
            ("evil.example", 400),
            ("10.0.0.7:8000", 400),
        ):
            assert httpx2.get(site.url, headers={"Host": host}).status_code == status, host
            for path in ("/healthz", "/readyz"):
                health = httpx2.get(site.url + path, headers={"Host": host})
                assert health.status_code == 200, host
        assert "Traceback" not in site.log


@both_frameworks
def test_the_configured_host_is_trusted_even_if_trusted_hosts_does_not_name_it(
    bake: Bake, tmp_path: Path, framework: str
) -> None:
    store = f"sqlite:///{tmp_path}/sessions.sqlite3"
    trusted = ".books.example"
    with serving(bake(framework=framework), framework, store, TEST_TRUSTED_HOSTS=trusted) as site:
        browser = site.browser()
        assert browser.sign_in().headers["Location"] == "/"
        assert browser.is_signed_in
        assert browser.get("/", headers={"Host": "www.books.example"}).status_code == 200
        assert browser.get("/", headers={"Host": "evil.example"}).status_code == 400
        assert "Traceback" not in site.log
