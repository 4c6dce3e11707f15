"""Behaviour of a real browser: prefetches, polls, other host names, Strict cookies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Bake
from playwright.sync_api import Browser, Page, expect
from sites import Site, both_frameworks, serving

Sites = Callable[..., Site]


@pytest.fixture
def page(chromium_browser: Browser) -> Iterator[Page]:
    context = chromium_browser.new_context()
    yield context.new_page()
    context.close()


def sign_in(page: Page, site: Site, path: str = "/") -> None:
    page.goto(f"{site.url}/sign-in?next={path}")
    page.get_by_role("button", name="Alice Archer").click()
    page.wait_for_url(f"{site.url}{path}")


def cookies(page: Page) -> dict[str, str]:
    return {cookie.get("name", ""): cookie.get("value", "") for cookie in page.context.cookies()}


EVENT_STREAM = """async path => {
    const source = new EventSource(path);
    await new Promise(resolve => source.onerror = resolve);
    return source.readyState;
}"""
IMAGE = """async path => {
    const image = new Image();
    await new Promise(resolve => { image.onload = image.onerror = resolve; image.src = path; });
}"""
FETCH = "async path => { const got = await fetch(path); return [got.status, await got.text()]; }"
PREFETCH = """path => document.head.append(
    Object.assign(document.createElement("link"), {rel: "prefetch", href: path})
)"""


@both_frameworks
def test_a_page_that_polls_does_not_disturb_a_sign_in(
    sites: Sites, framework: str, page: Page
) -> None:
    site = sites(framework)
    page.goto(f"{site.url}/sign-in?next=/profile")
    waiting = cookies(page)
    polls = page.context.new_page()
    polls.goto(site.url)
    status, text = polls.evaluate(FETCH, "/test/guarded")
    assert (status, "sign_in_required" in text) == (401, True)
    # The state 2 is CLOSED: the browser does not connect again.
    assert polls.evaluate(EVENT_STREAM, "/test/guarded") == 2
    polls.evaluate(IMAGE, "/test/guarded")
    assert cookies(page) == waiting
    page.get_by_role("button", name="Alice Archer").click()
    expect(page).to_have_url(f"{site.url}/profile")


@both_frameworks
def test_a_link_signs_the_user_out_and_a_prefetch_or_fetch_does_not(
    sites: Sites, framework: str, page: Page
) -> None:
    site = sites(framework)
    sign_in(page, site)
    signed_in = cookies(page)
    with page.expect_response("**/sign-out") as prefetched:
        page.evaluate(PREFETCH, "/sign-out")
    assert prefetched.value.request.all_headers()["sec-purpose"] == "prefetch"
    with page.expect_response("**/sign-out?image"):
        page.evaluate(IMAGE, "/sign-out?image")
    status, text = page.evaluate(FETCH, "/sign-out?fetch")
    assert (status, "Sign out of <bdi>Bookstore</bdi>?" in text) == (200, True)
    assert cookies(page) == signed_in
    page.evaluate(
        """document.body.append(
            Object.assign(document.createElement("a"), {href: "/sign-out", textContent: "Leave"})
        )"""
    )
    page.get_by_role("link", name="Leave").click()
    expect(page.get_by_role("heading", name="Welcome to Bookstore")).to_be_visible()
    assert "bookstore-session" not in cookies(page)


@both_frameworks
def test_a_typed_url_signs_the_user_out(sites: Sites, framework: str, page: Page) -> None:
    site = sites(framework)
    sign_in(page, site)
    page.goto(f"{site.url}/sign-out")
    expect(page.get_by_role("heading", name="Welcome to Bookstore")).to_be_visible()


@both_frameworks
def test_a_prefetched_sign_in_is_not_used_when_the_user_clicks_the_link(
    sites: Sites, framework: str, page: Page
) -> None:
    site = sites(framework)
    page.goto(site.url)
    with page.expect_response("**/sign-in"):
        page.evaluate(PREFETCH, "/sign-in")
    assert cookies(page) == {}
    page.get_by_role("link", name="Sign in", exact=True).click()
    page.get_by_role("button", name="Alice Archer").click()
    expect(page.get_by_role("heading", name="Hello, Alice Archer")).to_be_visible()


@both_frameworks
@pytest.mark.parametrize("path", ["/profile", "/sign-in?next=/profile"])
def test_a_sign_in_that_starts_on_another_host_leads_to_the_requested_page(
    sites: Sites, framework: str, page: Page, path: str
) -> None:
    site = sites(framework)
    page.goto(f"{site.url.replace('localhost', '127.0.0.1')}{path}")
    page.get_by_role("button", name="Alice Archer").click()
    expect(page).to_have_url(f"{site.url}/profile")
    expect(page.get_by_text("alice@example.com")).to_be_visible()


@both_frameworks
def test_after_a_sign_in_in_another_tab_the_back_button_restores_a_form(
    sites: Sites, framework: str, page: Page
) -> None:
    site = sites(framework)
    sign_in(page, site, "/test/form")
    page.get_by_label("Text").fill("a long text")
    page.context.clear_cookies()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="Your text was not saved")).to_be_visible()
    link = page.get_by_role("link", name="Sign in").get_attribute("href")
    assert link == "/sign-in?next=/test/form"
    tab = page.context.new_page()
    tab.goto(f"{site.url}{link}")
    tab.get_by_role("button", name="Alice Archer").click()
    tab.wait_for_url(f"{site.url}/test/form")
    page.go_back()
    expect(page.get_by_label("Text")).to_have_value("a long text")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("sent")).to_be_visible()


@both_frameworks
def test_with_strict_cookies_a_sign_in_leads_to_the_requested_page(
    bake: Bake, framework: str, page: Page, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    project = bake(framework=framework)
    # For a browser, 127.0.0.1 (the app) and localhost (Logto) are two sites.
    with serving(project, framework, url, host="127.0.0.1", TEST_SAMESITE="strict") as site:
        page.goto(f"{site.url}/profile?tab=1&name=%22%26")
        assert {cookie.get("sameSite") for cookie in page.context.cookies(site.url)} == {"Lax"}
        page.get_by_role("button", name="Alice Archer").click()
        expect(page).to_have_url(f"{site.url}/profile?tab=1&name=%22%26")
        expect(page.get_by_text("alice@example.com")).to_be_visible()
        (session,) = page.context.cookies(site.url)
        assert (session.get("name"), session.get("sameSite")) == ("bookstore-session", "Strict")

        # The page has no script, and a link for browsers that ignore the refresh.
        response = site.browser().sign_in("/sign-in?next=/profile?a%3D1%26b%3D%22")
        assert response.status_code == 200
        assert "<script" not in response.text
        target = "/profile?a=1&amp;b=%22"
        assert f'<meta http-equiv="refresh" content="0; url={target}">' in response.text
        assert f'href="{target}"' in response.text
        # Later, a link from another site starts a new sign-in at most once.
        page.goto(f"{site.logto.endpoint}/")
        page.evaluate("url => { location.href = url; }", f"{site.url}/profile")
        expect(page.get_by_text("alice@example.com")).to_be_visible()


@pytest.mark.parametrize(
    "framework", [pytest.param("quart", marks=pytest.mark.xdist_group("quart sites"))]
)
def test_a_page_of_the_app_opens_a_websocket(sites: Sites, framework: str, page: Page) -> None:
    site = sites(framework)
    sign_in(page, site)
    open_websocket = """path => new Promise(resolve => {
        const socket = new WebSocket(new URL(path, location.href.replace("http", "ws")));
        socket.onmessage = message => resolve(message.data);
        socket.onerror = () => resolve("refused");
    })"""
    assert page.evaluate(open_websocket, "/test/talk") == "k3v9x0q2m7ae"
    page.context.clear_cookies()
    assert page.evaluate(open_websocket, "/test/talk") == "refused"
