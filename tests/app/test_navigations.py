"""Requests that a browser sends without the user, and pages that are opened twice or too late."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html import unescape
from re import search
from urllib.parse import quote

import pytest
from processes import until
from sites import Browser, Site, assert_says, both_frameworks, fixed_response, query, slow

Sites = Callable[..., Site]

SCRIPTS = {
    "fetch": {"Sec-Fetch-Mode": "cors", "Accept": "*/*"},
    "fetch of the same origin": {"Sec-Fetch-Mode": "same-origin"},
    "an event stream": {"Sec-Fetch-Mode": "cors", "Accept": "text/event-stream"},
    "an image": {"Sec-Fetch-Mode": "no-cors", "Accept": "image/avif,image/webp,*/*;q=0.8"},
    "an unknown mode": {"Sec-Fetch-Mode": "something-new"},
    "htmx": {"HX-Request": "true", "Accept": "*/*"},
    "jQuery": {"X-Requested-With": "XMLHttpRequest", "Accept": "text/html, */*; q=0.01"},
    "JSON": {"Accept": "application/json"},
    "JSON before pages": {"Accept": "application/json, text/html;q=0.5"},
}
VISITS = {
    "a page": {"Sec-Fetch-Mode": "navigate", "Accept": "text/html,*/*;q=0.8"},
    "an Android app": {"Sec-Fetch-Mode": "navigate", "X-Requested-With": "com.google.android.gm"},
    "an older browser": {"Accept": "text/html,application/xhtml+xml"},
    "a command line": {"Accept": "*/*"},
    "no header": {},
}
PURPOSES = ("prefetch", "prefetch;prerender", "prefetch;anonymous-client-ip")


@both_frameworks
def test_a_request_of_a_script_starts_no_sign_in(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    for headers in SCRIPTS.values():
        for path in ("/profile", "/test/guarded?tab=1"):
            response = browser.get(path, headers=headers)
            assert response.status_code == 401, headers
            assert response.json()["error"] == "sign_in_required"
            assert "Set-Cookie" not in response.headers
        assert browser.post("/test/form", headers=headers).status_code == 401
    assert browser.get(callback).headers["Location"] == "/profile"
    for headers in SCRIPTS.values():
        assert browser.get("/test/guarded", headers=headers).status_code == 200


@both_frameworks
@pytest.mark.parametrize("headers", VISITS.values(), ids=VISITS)
def test_a_page_that_the_user_opens_starts_a_sign_in(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    browser = sites(framework).browser()
    response = browser.get("/test/guarded?tab=1", headers=headers)
    assert response.headers["Location"] == "/sign-in?next=/test/guarded?tab%3D1"
    response = browser.get(response.headers["Location"], headers=headers)
    callback = browser.answer(response.headers["Location"])
    response = browser.get(callback, headers=headers)
    assert response.headers["Location"] == "/test/guarded?tab=1"
    assert browser.get("/test/guarded", headers=headers).status_code == 200


@both_frameworks
def test_of_too_many_sign_ins_only_the_oldest_expires(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    pages = [browser.start(f"/sign-in?next=/tab/{number}") for number in range(21)]
    callbacks = [browser.answer(page) for page in pages]
    assert_says(browser.get(callbacks[0]), 400, "This sign-in has expired", "/sign-in")
    for number in range(1, 21):
        assert browser.get(callbacks[number]).headers["Location"] == f"/tab/{number}"


@both_frameworks
@pytest.mark.parametrize("headers", list(SCRIPTS.values())[:7], ids=list(SCRIPTS)[:7])
def test_a_script_that_fetches_the_sign_in_url_starts_no_sign_in(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    browser = sites(framework).browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    for path in ("/sign-in", "/sign-up") * 11:
        response = browser.get(path, headers=headers)
        assert "Set-Cookie" not in response.headers
    assert browser.get(callback).headers["Location"] == "/profile"


# Prefetch and HEAD


def ways_without_a_visit(browser: Browser, path: str) -> list[tuple[str, int, str]]:
    """Send each kind of request that is no visit of the user.

    Return the method, the status and the cookies of each response.
    """
    seen = []
    for method, purpose in (("HEAD", ""), *(("GET", each) for each in PURPOSES)):
        headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
        if purpose:
            headers["Sec-Purpose"] = purpose
        response = browser.http.request(method, path, headers=headers)
        assert "Location" not in response.headers, (method, purpose)
        cookies = response.headers.get("Set-Cookie", "")
        seen.append((method, response.status_code, cookies))
    return seen


@both_frameworks
def test_a_prefetch_or_head_starts_no_sign_in(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    for path in ("/sign-in?next=/profile", "/sign-up", "/sign-in?connector=azuread"):
        for method, status, cookies in ways_without_a_visit(browser, path):
            assert cookies == ""
            # A browser does not show a prefetched response with an error status.
            assert status < 400 if method == "HEAD" else 400 <= status < 500
    assert not browser.http.cookies


@both_frameworks
def test_a_prefetch_or_head_of_a_callback_does_not_use_the_code(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    calls = site.logto.calls("/oidc/token")
    for _, status, cookies in ways_without_a_visit(browser, callback):
        assert status < 500
        assert cookies == ""
    assert site.logto.calls("/oidc/token") == calls
    assert not browser.is_signed_in
    assert browser.get(callback).headers["Location"] == "/profile"
    assert browser.is_signed_in


@both_frameworks
def test_a_prefetch_or_head_signs_nobody_out(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    browser.sign_in()
    for _, _, cookies in ways_without_a_visit(browser, "/sign-out"):
        assert cookies == ""
    for mode in ("no-cors", "cors", "same-origin", "websocket"):
        headers = {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "same-origin"}
        assert "Sign out of <bdi>Bookstore</bdi>?" in browser.get("/sign-out", headers=headers).text
    assert browser.is_signed_in


@both_frameworks
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("site_of_the_link", ["same-origin", "none"])
def test_a_visit_to_the_sign_out_url_signs_the_user_out(
    sites: Sites, framework: str, method: str, site_of_the_link: str
) -> None:
    browser = sites(framework).browser()
    browser.sign_in()
    headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": site_of_the_link}
    assert browser.http.request(method, "/sign-out", headers=headers).status_code == 303
    assert not browser.is_signed_in


# Repeated callbacks


@both_frameworks
def test_a_repeated_callback_while_logto_is_slow_keeps_the_target(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/test/guarded?tab%3D1"))
    calls = site.logto.calls("/oidc/token")
    with site.logto.fault("/oidc/token", slow(1)), ThreadPoolExecutor(1) as pool:
        first = pool.submit(browser.get, callback)
        until(lambda: site.logto.calls("/oidc/token") > calls)
        again = browser.get(callback)
        retry = "/sign-in?next=/test/guarded?tab%3D1"
        assert_says(again, 400, "This sign-in has expired", retry)
        assert "Set-Cookie" not in again.headers
        assert first.result().headers["Location"] == "/test/guarded?tab=1"
    assert site.logto.calls("/oidc/token") == calls + 1
    assert browser.is_signed_in


@both_frameworks
def test_a_repeated_callback_leads_a_signed_in_user_to_the_target(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    # Meanwhile, the user has signed in in another tab.
    tab = site.browser()
    tab.sign_in()
    tab.http.cookies.update(browser.http.cookies)
    calls = site.logto.calls("/oidc/token")
    with site.logto.fault("/oidc/token", slow(1)), ThreadPoolExecutor(1) as pool:
        first = pool.submit(browser.get, callback)
        until(lambda: site.logto.calls("/oidc/token") > calls)
        assert tab.get(callback).headers["Location"] == "/profile"
        assert first.result().headers["Location"] == "/profile"
    assert site.logto.calls("/oidc/token") == calls + 1


@both_frameworks
def test_a_callback_repeated_long_after_the_sign_in_is_not_sent_to_logto(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    late = site.browser()
    late.http.cookies.update(browser.http.cookies)
    browser.get(callback)
    with closing(sqlite3.connect(site.database)) as connection:
        # A minute later.
        connection.execute("UPDATE sessions SET expires_at = expires_at - 60")
        connection.commit()
    calls = site.logto.calls("/oidc/token")
    assert_says(late.get(callback), 400, "This sign-in has expired", "/sign-in?next=/")
    assert site.logto.calls("/oidc/token") == calls


@both_frameworks
def test_a_reload_finishes_a_sign_in_once_logto_responds_again(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    with site.logto.fault("/oidc/token", fixed_response("429 Too Many Requests", "{}")):
        for _ in range(2):
            assert_says(browser.get(callback), 503, "Sign-in is unavailable")
    assert browser.get(callback).headers["Location"] == "/profile"
    assert browser.is_signed_in


# A form that is sent after the session has ended


@both_frameworks
def test_a_form_sent_after_the_end_of_the_session_shows_that_it_was_not_saved(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    page = "/test/form?tab=1&name=%26%C3%A9"
    response = browser.post(
        "/test/form",
        data={"text": "a long text"},
        headers={"Referer": f"{site.url}{page}", "Origin": site.url, "Sec-Fetch-Mode": "navigate"},
    )
    assert_says(response, 403, "Your text was not saved")
    assert "a long text" not in response.text
    assert "Set-Cookie" not in response.headers
    link = sign_in_link(response.text)
    assert query(link) == {"next": page}
    assert browser.sign_in(link).headers["Location"] == page


@both_frameworks
def test_after_a_lost_form_the_sign_in_leads_to_pages_of_the_app_only(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    for referer in (
        None,
        "",
        "/test/form",
        "https://evil.example/test/form",
        f"{site.url}.evil.example/test/form",
        f"{site.url}@evil.example/test/form",
        f"{site.url}0/test/form",
        f"{site.url}//evil.example/",
        f"{site.url}/\\evil.example/",
        site.url.replace("localhost", "127.0.0.1") + "/test/form",
    ):
        headers = {} if referer is None else {"Referer": referer}
        response = browser.post("/test/form", headers=headers)
        assert_says(response, 403, "Your text was not saved")
        link = sign_in_link(response.text)
        if not (referer or "").startswith(f"{site.url}/"):
            assert link == "/sign-in?next=/"
        assert browser.sign_in(link).headers["Location"] == "/", referer
        browser.post("/sign-out")


def sign_in_link(page: str) -> str:
    found = search(r'href="(/sign-in[^"]*)"', page)
    assert found, page
    return unescape(found[1])


# Errors that Logto sends back


@both_frameworks
def test_an_error_without_a_state_is_shown_as_a_problem_of_logto(
    sites: Sites, framework: str
) -> None:
    browser = sites(framework).browser()
    for error in ("invalid_request", "login_required", "server_error", "<b>outside</b>"):
        response = browser.get(f"/callback?error={quote(error)}&error_description=outside")
        assert_says(response, 400, "Sign-in did not work", "/sign-in")
        assert "Logto reported a problem" in response.text


@both_frameworks
@pytest.mark.parametrize("error", ["login_required", "consent_required", "interaction_required"])
def test_a_sign_in_that_needs_the_user_starts_again_once(
    sites: Sites, framework: str, error: str
) -> None:
    browser = sites(framework).browser()
    state = query(browser.start("/sign-in?next=/profile"))["state"]
    response = browser.get(f"/callback?error={error}&state={state}")
    again = query(response.headers["Location"])
    assert response.headers["Location"].startswith("/sign-in?")
    assert again == {"next": "/profile", "prompt": "login"}
    page = browser.start(response.headers["Location"])
    assert "login" in query(page)["prompt"].split()
    response = browser.get(f"/callback?error={error}&state={query(page)['state']}")
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/profile")
    page = browser.start("/sign-in?next=/profile&prompt=login")
    assert browser.get(browser.answer(page)).headers["Location"] == "/profile"
