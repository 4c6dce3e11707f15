"""Attacks of users and of other sites, and the responses of the app to them."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest
from conftest import Bake
from hypothesis import given
from hypothesis import strategies as st
from random_requests import quickly
from sites import (
    MARKER,
    Browser,
    Fault,
    Site,
    assert_says,
    both_frameworks,
    both_stores,
    changed,
    fixed_response,
    query,
    serving,
)

Sites = Callable[..., Site]
REVOCATION = "/oidc/token/revocation"


# The callback

parameters = st.lists(
    st.tuples(
        st.sampled_from(["code", "state", "iss", "error", "error_description", "next", ""]),
        st.one_of(st.text(max_size=30), st.sampled_from(["STATE", "access_denied", MARKER])),
    ),
    max_size=5,
)
queries = st.one_of(
    parameters.map(lambda pairs: urlencode(pairs, errors="surrogatepass").encode()),
    st.binary(max_size=40).map(lambda raw: quote(raw, safe="!$&'()*+,/:;=?@").encode()),
)


@both_frameworks
def test_no_callback_causes_an_error_of_the_app_or_shows_its_parameters(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()

    @quickly
    @given(queries, st.booleans())
    def check(raw: bytes, started: bool) -> None:
        if started:
            browser.http.cookies.clear()
            raw = raw.replace(b"STATE", query(browser.start())["state"].encode())
        request = httpx2.Request("GET", site.url, headers={"Cookie": cookies_of(browser)})
        request.url = httpx2.URL(f"{site.url}/callback").copy_with(query=raw)
        response = browser.http.send(request)
        assert response.status_code in (200, 400, 503)
        assert MARKER not in response.text
        assert "Try again" in response.text
        assert response.headers["Cache-Control"] == "no-store"
        assert "bookstore-session=" not in response.headers.get("Set-Cookie", "")

    check()
    assert not browser.is_signed_in


def cookies_of(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())


@both_frameworks
def test_a_callback_of_another_browser_signs_nobody_in(sites: Sites, framework: str) -> None:
    site = sites(framework)
    attacker, victim = site.browser(), site.browser()
    callback = attacker.answer(attacker.start())
    assert_says(victim.get(callback), 400, "This sign-in has expired", "/sign-in")
    victim.start()
    assert_says(victim.get(callback), 400, "This sign-in has expired", "/sign-in")
    assert not victim.is_signed_in


@both_frameworks
@both_stores
def test_a_callback_works_once_even_in_parallel_requests(
    sites: Sites, framework: str, store: str
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    site = sites(framework, store)
    browser = site.browser()
    callback = browser.answer(browser.start())
    cookies = dict(browser.http.cookies)
    calls = site.logto.calls("/oidc/token")
    with ThreadPoolExecutor(6) as pool:
        responses = list(
            pool.map(lambda url: httpx2.get(f"{url}{callback}", cookies=cookies), site.urls * 3)
        )
    assert sorted(response.status_code for response in responses) == [302, 400, 400, 400, 400, 400]
    assert site.logto.calls("/oidc/token") == calls + 1


@both_frameworks
def test_the_back_button_and_several_tabs_do_no_harm(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    first = browser.answer(browser.start("/sign-in?next=/profile"))
    second = browser.answer(browser.start())
    old_tab = browser.start("/sign-in?next=/profile")
    assert browser.get(second).headers["Location"] == "/"
    assert browser.get(first).headers["Location"] == "/profile"
    # The user goes back to the callback, and continues from there.
    assert browser.get(first).headers["Location"] == "/"
    assert browser.is_signed_in

    browser.post("/sign-out")
    assert_says(browser.get(first), 400, "This sign-in has expired", "/sign-in")
    assert browser.get(browser.answer(old_tab, user="bob")).headers["Location"] == "/profile"
    page = browser.get("/profile").text
    assert "bob@example.com" in page
    assert "alice" not in page.lower()


# Requests from other sites


@both_frameworks
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("headers", "signs_out"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "APP"}, False),
        ({"Sec-Fetch-Site": "anything"}, False),
        ({"Origin": "APP"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://evil.example", "Host": "evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, True),
    ],
)
def test_only_pages_of_the_app_sign_a_user_out(
    sites: Sites, framework: str, method: str, headers: dict[str, str], signs_out: bool
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    sent = {name: value.replace("APP", site.url) for name, value in headers.items()}
    response = browser.http.request(method, "/sign-out", headers=sent)
    if signs_out:
        assert response.status_code == 303
        assert response.headers["Location"].startswith(f"{site.logto.endpoint}/oidc/session/end")
    else:
        asked = (200, "Sign out of <bdi>Bookstore</bdi>?")
        refusal = asked if method == "GET" else (403, "was not sent")
        assert response.status_code == refusal[0]
        assert refusal[1] in response.text
        assert "Set-Cookie" not in response.headers
    assert browser.is_signed_in is not signs_out


@both_frameworks
@pytest.mark.parametrize(
    "fault", [None, fixed_response("502 Bad Gateway", "")], ids=["", "without Logto"]
)
def test_sign_out_clears_the_cache_of_the_browser(
    sites: Sites, framework: str, fault: Fault | None
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    question = browser.get("/sign-out", headers={"Sec-Fetch-Site": "cross-site"})
    assert "Clear-Site-Data" not in question.headers
    with site.logto.fault(REVOCATION, fault) if fault else nullcontext():
        response = browser.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
    # Not "cookies": that would end sign-ins in other tabs, and sessions of other apps on the host.
    assert response.headers["Clear-Site-Data"] == '"cache"'
    assert not browser.is_signed_in


@both_frameworks
def test_host_and_forwarded_headers_change_nothing(sites: Sites, framework: str) -> None:
    site = sites(framework)
    forged = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "host=evil.example;proto=https",
    }
    paths = ("/", "/sign-in", "/profile", "/callback", "/nowhere", "/sign-out")
    for path in (*paths, "//profile", "/static//style.css", "/static"):
        response = site.browser().get(f"{site.url}{path}", headers=forged)
        assert "evil" not in response.text
        assert "evil" not in str(response.headers)
        assert "Secure" not in response.headers.get("Set-Cookie", "")
        if path in ("/sign-in", "/profile"):
            # The browser used another host, so the app first redirects to its configured host.
            assert response.headers["Location"] == f"{site.url}{path}"


@both_frameworks
def test_no_page_shows_text_from_its_url(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    script = "<script>alert(1)</script>"
    for path in (
        "/",
        "/profile",
        "/nowhere",
        f"/{script}",
        "/sign-out",
        "/callback",
        "/test/failure",
    ):
        for headers in ({}, {"Sec-Fetch-Site": "cross-site"}):
            response = browser.get(path, params={"error": script, "next": script}, headers=headers)
            assert script not in response.text
            assert "alert(1)" not in response.text


# Headers and cookies


@both_frameworks
def test_every_response_has_the_security_headers(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    expected = {
        302: [browser.get(callback), browser.get("/sign-in")],
        200: [browser.get("/"), browser.get("/profile"), browser.get("/static/style.css")],
        404: [browser.get("/nowhere"), browser.get("/static/nowhere")],
        405: [browser.post("/profile")],
        500: [browser.get("/test/failure")],
        400: [browser.post("/backchannel-logout")],
    }
    for status, responses in expected.items():
        for response in responses:
            assert response.status_code == status
            headers = response.headers
            policy = headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert f"form-action 'self' {site.logto.endpoint}" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Strict-Transport-Security" not in headers
            if "/static/" not in str(response.url):
                assert headers["Cache-Control"] == "no-store"
                assert "Cookie" in headers["Vary"]
    assert "Traceback" not in expected[500][0].text
    assert "own" not in expected[500][0].text


@both_frameworks
def test_cookies_hold_only_an_id_and_are_http_only(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    callback = browser.answer(browser.start())
    cookies = browser.get(callback).headers.get_list("Set-Cookie")
    (session,) = [cookie for cookie in cookies if cookie.startswith("bookstore-session=")]
    assert re.fullmatch(
        r"bookstore-session=[\w-]{43}; Expires=[^;]+; Max-Age=43200; HttpOnly; Path=/; SameSite=Lax",
        session,
    )
    (finished,) = [cookie for cookie in cookies if cookie.startswith("bookstore-session-sign-in")]
    assert "Max-Age=0" in finished


@both_frameworks
def test_with_https_cookies_are_secure_and_hsts_is_sent(
    bake: Bake, framework: str, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, url, https=True) as site:
        response = httpx2.get(f"{site.url}/test/note?name=n1")
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("__Host-bookstore-session=")
        assert "; Secure; HttpOnly; Path=/; SameSite=Lax" in cookie
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        host = {"Host": "books.example"}
        cookie = httpx2.get(f"{site.url}/sign-in", headers=host).headers["Set-Cookie"]
        assert cookie.startswith("__Host-bookstore-session-sign-in-")
        assert "; Secure;" in cookie


@both_frameworks
def test_a_file_name_that_is_too_long_is_a_404(sites: Sites, framework: str) -> None:
    site = sites(framework)
    with site.log_lines() as lines:
        assert httpx2.get(f"{site.url}/static/{'x' * 300}").status_code == 404
    assert "Traceback" not in "\n".join(lines)


@both_frameworks
def test_userinfo_about_another_user_is_not_shown(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()

    def of_another_user(claims: Any) -> Any:
        return claims | {"sub": "p8d2w5t1z6bo", "email": "mallory@example.com"}

    with site.logto.fault("/oidc/me", changed(of_another_user)):
        response = browser.get("/profile")
    assert response.headers["Location"] == "/sign-in?next=/profile"
    assert not browser.is_signed_in
