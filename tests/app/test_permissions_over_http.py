"""Roles, forms of other sites and the first sign-in, with a real server and a real browser."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from sites import Site, both_frameworks

Sites = Callable[..., Site]

METHODS = ("POST", "PUT", "PATCH", "DELETE")
OTHER_SITES: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "APP"},
    {"Sec-Fetch-Site": "anything"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Host": "evil.example"},
    {"Origin": "null"},
]
SAME_SITE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "APP"},
    {},
]


@pytest.fixture
def page(chromium_browser: Browser) -> Iterator[Page]:
    context = chromium_browser.new_context()
    yield context.new_page()
    context.close()


def sent(site: Site, headers: dict[str, str]) -> dict[str, str]:
    return {name: value.replace("APP", site.url) for name, value in headers.items()}


@both_frameworks
@pytest.mark.parametrize("headers", OTHER_SITES)
def test_a_change_from_another_site_is_refused(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    for method in METHODS:
        response = browser.http.request(method, "/test/form", headers=sent(site, headers))
        assert response.status_code == 403, method
        assert "This form was not sent" in response.text
    json = {"Accept": "application/json", **sent(site, headers)}
    assert browser.post("/test/form", headers=json).json()["error"] == "other_site"
    assert browser.is_signed_in
    # A GET changes nothing, and a URL without a view is a 404.
    assert browser.get("/test/form", headers=sent(site, headers)).status_code == 200
    assert browser.post("/nowhere", headers=sent(site, headers)).status_code == 404


@both_frameworks
@pytest.mark.parametrize("headers", SAME_SITE)
def test_a_change_from_a_page_of_the_app_reaches_the_view(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    for method in METHODS:
        response = browser.http.request(method, "/test/form", headers=sent(site, headers))
        assert (response.status_code, response.text) == (200, "sent"), method


@both_frameworks
def test_a_signed_out_browser_gets_the_same_refusal(sites: Sites, framework: str) -> None:
    site = sites(framework)
    response = site.browser().post("/test/form", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert "This form was not sent" in response.text


@both_frameworks
@pytest.mark.parametrize("headers", OTHER_SITES)
def test_logto_may_post_a_logout_token_with_any_headers(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    response = httpx2.post(
        f"{site.url}/backchannel-logout",
        data={"logout_token": site.logto.logout_token()},
        headers={name: value for name, value in headers.items() if name != "Host"},
    )
    assert response.status_code == 200
    assert not browser.is_signed_in


@both_frameworks
def test_a_browser_shows_why_a_form_of_another_site_is_refused(
    sites: Sites, framework: str, page: Page
) -> None:
    site = sites(framework)
    page.goto(f"{site.url}/sign-in?next=/test/form")
    page.get_by_role("button", name="Alice Archer").click()
    page.get_by_label("Text").fill("text")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("sent", exact=True)).to_be_visible()

    form = f'<form method="post" action="{site.url}/test/form"><button>Win</button></form>'
    evil = "http://evil.localhost/"
    page.route(evil, lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(evil)
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("heading", name="This form was not sent")).to_be_visible()


@both_frameworks
def test_a_page_for_admins_needs_the_role(sites: Sites, framework: str) -> None:
    site = sites(framework)
    for user, status in (("alice", 200), ("bob", 403), ("misaki", 403)):
        browser = site.browser()
        browser.sign_in(user=user)
        assert browser.get("/test/admins").status_code == status, user
    # No user has a role with an empty name, for example from a missing setting.
    browser = site.browser()
    browser.sign_in()
    assert browser.get("/test/nameless").status_code == 403


@both_frameworks
def test_every_kind_of_receiver_gets_the_signal_of_a_sign_in(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    before = browser.get("/test/sign-ins").text.splitlines()
    browser.sign_in()
    browser.get("/profile")
    received = browser.get("/test/sign-ins").text.splitlines()[len(before) :]
    receivers = {"flask": 1, "quart": 2}[framework]
    assert received == ["k3v9x0q2m7ae is k3v9x0q2m7ae"] * receivers


@both_frameworks
def test_a_bug_in_a_receiver_is_a_500(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    with site.log_lines() as lines:
        response = browser.get(callback, headers={"X-Test-Receiver": "fails"})
        assert response.status_code == 500
    assert any("a bug of a receiver" in line for line in lines)
