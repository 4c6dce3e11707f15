"""The tokens of a session: refresh, expiry and revocation."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from conftest import Bake
from sites import (
    TIME_LIMIT,
    UNAVAILABLE,
    Browser,
    Fault,
    assert_says,
    both_frameworks,
    both_stores,
    changed,
    oidc_error,
    serving,
)
from token_faults import ALICE, Sites, end_pause_after, with_expired_token


@both_frameworks
@both_stores
def test_twenty_requests_in_two_processes_refresh_once(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    with site.logto.rotating():
        browser = with_expired_token(site)
        before = site.logto.calls("/oidc/token")
        cookies = dict(browser.http.cookies)

        def request(number: int) -> httpx2.Response:
            url = f"{site.urls[number % 2]}/test/guarded"
            return httpx2.get(url, cookies=cookies, timeout=30)

        with ThreadPoolExecutor(20) as pool:
            responses = list(pool.map(request, range(20)))
        assert {(a.status_code, a.text) for a in responses} == {(200, f"{ALICE} {{}}")}
        assert site.logto.calls("/oidc/token") == before + 1


@both_frameworks
def test_the_session_continues_after_each_refresh(sites: Sites, framework: str) -> None:
    site = sites(framework)
    with site.logto.rotating(), site.logto.expired_tokens():
        browser = site.browser()
        browser.sign_in()
        before = site.logto.calls("/oidc/token")
        for url in site.urls * 4:
            assert browser.get(f"{url}/test/guarded").status_code == 200
        assert site.logto.calls("/oidc/token") == before + 8


@both_frameworks
def test_a_client_that_disconnects_during_a_refresh_does_not_lose_the_token(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    with site.logto.rotating():
        browser = with_expired_token(site)

        def late(tokens: Any) -> Any:
            time.sleep(0.5)
            return tokens

        with site.logto.fault("/oidc/token", changed(late)), pytest.raises(httpx2.ReadTimeout):
            browser.get("/test/guarded", timeout=0.2)
        time.sleep(1)
        before = site.logto.calls("/oidc/token")
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert site.logto.calls("/oidc/token") == before


@both_frameworks
@both_stores
def test_a_suspended_user_is_noticed_when_the_token_expires(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    valid, expired = site.browser(), with_expired_token(site, user="bob")
    valid.sign_in(user="bob")
    site.logto.local.suspend("bob")
    try:
        calls = len(site.logto.local.requests)
        assert valid.get("/test/guarded").status_code == 200
        assert len(site.logto.local.requests) == calls

        with site.log_lines() as lines:
            response = expired.get("/test/guarded?a=1&b=%26")
        assert response.headers["Location"] == "/sign-in?next=/test/guarded?a%3D1%26b%3D%2526"
        assert any("invalid_grant" in line and "p8d2w5t1z6bo" in line for line in lines)
        assert not expired.is_signed_in
    finally:
        site.logto.local.users["bob"].suspended = False


@both_frameworks
def test_scripts_and_forms_are_notified_if_logto_has_ended_the_session(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    refused = oidc_error("invalid_grant")
    script, form, first = (with_expired_token(site) for _ in range(3))
    second = Browser(site)
    second.http.cookies = httpx2.Cookies(first.http.cookies)
    with site.logto.fault("/oidc/token", refused):
        response = script.get("/test/guarded", headers={"Accept": "application/json"})
        assert response.status_code == 401
        assert response.json()["error"] == "sign_in_required"
        page = form.post("/test/form")
        assert_says(page, 403, "Your text was not saved")
        assert 'href="/sign-in?next=/" target="_blank">Sign in in a new tab<' in page.text
        with ThreadPoolExecutor(2) as pool:
            responses = list(pool.map(lambda b: b.get("/test/guarded"), [first, second]))
        assert [a.headers.get("Location") for a in responses] == ["/sign-in?next=/test/guarded"] * 2
    assert not any(browser.is_signed_in for browser in (script, form, first, second))


@both_frameworks
@pytest.mark.parametrize("fault", UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_an_unreachable_logto_does_not_end_the_session(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    with end_pause_after(site), site.logto.fault("/oidc/token", fault):
        assert browser.get("/test/guarded").text.startswith(ALICE)
        response = browser.get("/profile")
        assert response.status_code == 200
        assert "Logto does not respond at the moment" in response.text
    before = site.logto.calls("/oidc/token")
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert site.logto.calls("/oidc/token") == before + 1


@both_frameworks
def test_after_a_pause_an_unreachable_logto_is_requested_again(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, url, TEST_PAUSE="3") as site:
        browser = with_expired_token(site)
        before = site.logto.calls("/oidc/token")
        with site.logto.unreachable():
            assert browser.get("/test/guarded").text.startswith(ALICE)
            assert "Alice Archer" in browser.get("/profile").text
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert site.logto.calls("/oidc/token") == before
        time.sleep(3)
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert site.logto.calls("/oidc/token") == before + 1


@both_frameworks
@both_stores
def test_parallel_requests_wait_for_a_silent_logto_only_once(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = with_expired_token(site)
    cookies = dict(browser.http.cookies)

    def request(path: str) -> tuple[str, float]:
        start = time.monotonic()
        response = httpx2.get(f"{site.url}{path}", cookies=cookies, timeout=30)
        return response.text[:12], time.monotonic() - start

    with end_pause_after(site), site.logto.fault("/oidc/token", UNAVAILABLE["silent"]):
        with ThreadPoolExecutor(4) as pool:
            responses = list(pool.map(request, ["/test/guarded"] * 4))
        assert {text for text, _ in responses} == {ALICE}
        assert max(seconds for _, seconds in responses) < 2 * TIME_LIMIT
        # The next request does not wait for Logto again.
        text, seconds = request("/test/guarded")
        assert text == ALICE
        assert seconds < TIME_LIMIT


@both_frameworks
def test_a_refresh_that_returns_a_token_of_another_user_ends_the_session(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)

    def of_another_user(tokens: Any) -> Any:
        claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
        return tokens | {"id_token": site.logto.signed({}, claims | {"sub": "p8d2w5t1z6bo"})}

    with site.logto.fault("/oidc/token", changed(of_another_user)):
        response = browser.get("/test/guarded")
    assert response.headers["Location"].startswith("/sign-in")
    assert not browser.is_signed_in


@pytest.mark.slow
@both_frameworks
def test_if_the_userinfo_endpoint_fails_the_profile_is_still_shown(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    for name in ("silent", "cut off", "502 HTML", "broken JSON"):
        fault = UNAVAILABLE[name]
        with end_pause_after(site), site.logto.fault("/oidc/me", fault):
            response = browser.get("/profile")
        assert response.status_code == 200
        assert "Alice Archer" in response.text
        assert "Logto does not respond at the moment" in response.text
    assert "Logto does not respond" not in browser.get("/profile").text


@both_frameworks
def test_a_token_that_was_revoked_ends_the_session_at_the_profile(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in(user="carol")
    site.logto.local.suspend("carol")
    site.logto.local.users["carol"].suspended = False
    assert browser.get("/profile").headers["Location"] == "/sign-in?next=/profile"
    assert not browser.is_signed_in


@both_frameworks
def test_a_resource_that_logto_does_not_grant_is_a_403_and_the_session_continues(
    sites: Sites, framework: str
) -> None:
    browser = sites(framework).browser()
    browser.sign_in()
    refused = browser.get("/test/other-app")
    assert refused.status_code == 403
    assert "You cannot do this" in refused.text
    assert browser.get("/test/guarded").status_code == 200


@both_frameworks
@both_stores
def test_session_data_of_parallel_requests_is_not_lost_in_a_refresh(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = with_expired_token(site)
    slow = threading.Thread(target=browser.get, args=["/test/note?name=n1&value=slow&seconds=0.5"])
    slow.start()
    time.sleep(0.1)
    assert "quick" in browser.get("/test/note?name=n2&value=quick&refresh=1").text
    slow.join()
    noted = browser.get("/test/note?name=n3").text
    notes = sorted(re.findall(r"'(n\d)': '(\w*)'", noted))
    assert notes == [("n1", "slow"), ("n2", "quick"), ("n3", "")]
