"""The effect of each response of Logto on a sign-in, on a session, and on the pause."""

import re
from typing import Any

import pytest
from sites import Fault, assert_says, both_frameworks, changed, cut_off, fixed_response, oidc_error
from token_faults import (
    ALICE,
    Sites,
    end_pause,
    end_pause_after,
    endless,
    respond,
    with_expired_token,
)

LOGTO_ERROR = {"code": "auth.exceed_token_limit", "message": "Token limit exceeded."}
FAULTS: dict[str, tuple[Fault, str]] = {
    "429 of OAuth": (
        respond(429, {"error": "too_many_requests"}),
        "HTTP 429, too_many_requests",
    ),
    "429 of Logto Cloud": (respond(429, LOGTO_ERROR), "HTTP 429, auth.exceed_token_limit"),
    "408": (respond(408), "HTTP 408, text/html"),
    "500": (respond(500, {"error": "server_error"}), "HTTP 500, server_error"),
    "503": (respond(503, {"error": "temporarily_unavailable"}), "HTTP 503, temporarily_unava"),
    "503 that looks like a refusal": (
        respond(503, {"error": "invalid_grant"}),
        "HTTP 503, invalid_grant",
    ),
    "401 that looks like a refusal": (
        oidc_error("invalid_grant", "401 Unauthorized"),
        "invalid_grant: outside",
    ),
    "404": (respond(404, {"error": "not_found"}), "HTTP 404, not_found"),
    "invalid_request": (oidc_error("invalid_request"), "invalid_request: outside"),
    "invalid_scope": (oidc_error("invalid_scope"), "invalid_scope: outside"),
    "slow_down": (oidc_error("slow_down"), "slow_down: outside"),
    "400 without an OAuth error": (
        respond(400, {"code": "oidc.invalid_grant", "message": "no"}),
        "HTTP 400, invalid_grant",
    ),
    "403 of a firewall": (respond(403, b"<h1>Blocked</h1>"), "HTTP 403, text/html"),
    "302": (respond(302, Location="https://wifi.example/"), "a redirect to https://wifi.example/"),
    "307": (respond(307, Location="https://wifi.example/"), "a redirect to https://wifi.example/"),
    "closed connection": (cut_off, "no valid HTTP response (ServerDisconnectedError)"),
    "endless": (endless, "not a response of Logto (HTTP 200, application/json)"),
}
EACH_FAULT = pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
REFUSED_APP = pytest.mark.parametrize(
    "fault",
    [
        oidc_error("invalid_client", "401 Unauthorized"),
        oidc_error("invalid_client"),
        oidc_error("unauthorized_client"),
    ],
    ids=["invalid_client 401", "invalid_client 400", "unauthorized_client"],
)


@both_frameworks
@EACH_FAULT
def test_a_code_exchange_that_fails_says_that_sign_in_is_unavailable(
    sites: Sites, framework: str, fault: Fault, reason: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    with site.log_lines() as lines, site.logto.fault("/oidc/token", fault):
        response = browser.get(callback)
    assert_says(response, 503, "Sign-in is unavailable", retry="/sign-in?next=/profile")
    (line,) = [line for line in lines if "Logto is unavailable" in line]
    assert reason in line
    assert not browser.is_signed_in


@both_frameworks
@EACH_FAULT
def test_a_refresh_that_fails_keeps_the_session_and_its_refresh_token(
    sites: Sites, framework: str, fault: Fault, reason: str
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    with end_pause_after(site), site.log_lines() as lines, site.logto.fault("/oidc/token", fault):
        assert browser.get("/test/guarded").text.startswith(ALICE)
    (line,) = [line for line in lines if "Refresh postponed, Logto is unavailable" in line]
    assert reason in line
    assert browser.is_signed_in
    before = site.logto.calls("/oidc/token")
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert site.logto.calls("/oidc/token") == before + 1


@both_frameworks
def test_an_invalid_grant_at_a_refresh_ends_the_session(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    with (
        site.log_lines() as lines,
        site.logto.fault("/oidc/token", oidc_error("invalid_grant")),
    ):
        response = browser.get("/test/guarded")
    assert response.headers["Location"] == "/sign-in?next=/test/guarded"
    assert any("Session ended by Logto" in line and "invalid_grant" in line for line in lines)
    assert not browser.is_signed_in


@both_frameworks
@REFUSED_APP
def test_if_logto_refuses_the_app_the_log_names_the_variables_and_sessions_continue(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    signed_in, new_browser = with_expired_token(site), site.browser()
    callback = new_browser.answer(new_browser.start())
    with end_pause_after(site), site.logto.fault("/oidc/token", fault):
        with site.log_lines() as at_sign_in:
            assert_says(new_browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
        with site.log_lines() as at_refresh:
            assert signed_in.get("/test/guarded").text.startswith(ALICE)
    for lines in (at_sign_in, at_refresh):
        (line,) = [line for line in lines if "_client: " in line]
        assert "LOGTO_APP_ID and LOGTO_APP_SECRET" in line
    assert signed_in.get("/test/guarded").text.startswith(ALICE)


@both_frameworks
@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("invalid_target", "400 Bad Request"),
        ("invalid_scope", "400 Bad Request"),
        ("invalid_request", "400 Bad Request"),
        ("access_denied", "403 Forbidden"),
        ("insufficient_scope", "403 Forbidden"),
    ],
)
def test_a_refused_resource_is_a_403_and_the_session_continues(
    sites: Sites, framework: str, error: str, status: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    refusal = oidc_error(error, status)
    with site.log_lines() as lines, site.logto.fault("/oidc/token", refusal):
        assert_says(browser.get("/test/other-app"), 403, "You cannot do this")
    assert any("Access token refused by Logto" in line and error in line for line in lines)
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert end_pause(site) == 0


@both_frameworks
@pytest.mark.parametrize("name", ["429 of OAuth", "503 that looks like a refusal", "302"])
def test_a_resource_during_a_fault_is_a_503_and_the_session_continues(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    with end_pause_after(site), site.logto.fault("/oidc/token", FAULTS[name][0]):
        response = browser.get("/test/other-app")
    assert_says(response, 503, "Sign-in is unavailable", retry="/test/other-app")
    assert browser.get("/test/guarded").text.startswith(ALICE)


PAUSES = {"20": 20, "3600": 60, "0": 0, "soon": 0, "-5": 0, "1.5": 0}


@both_frameworks
def test_retry_after_of_a_rate_limit_sets_the_pause(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser, other = with_expired_token(site), with_expired_token(site)
    limit = {"error": "too_many_requests"}
    for retry_after, seconds in PAUSES.items():
        fault = respond(429, limit, Retry_After=retry_after)
        with end_pause_after(site), site.logto.fault("/oidc/token", fault):
            assert browser.get("/test/guarded").text.startswith(ALICE)
            before = site.logto.calls("/oidc/token")
            assert other.get("/test/guarded").text.startswith(ALICE)
            assert site.logto.calls("/oidc/token") == before + (not seconds)
            assert max(0, seconds - 5) <= end_pause(site) <= seconds, retry_after


@both_frameworks
def test_an_absurd_retry_after_causes_a_pause_of_at_most_one_minute(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    fault = respond(429, {"error": "too_many_requests"}, Retry_After="9" * 5000)
    with end_pause_after(site), site.logto.fault("/oidc/token", fault):
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert end_pause(site) <= 60


@both_frameworks
def test_only_a_rate_limit_or_no_response_causes_a_pause(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    later = {"Retry_After": "20"}
    for fault in (respond(503, {"error": "server_error"}, **later), respond(302, **later)):
        with end_pause_after(site), site.logto.fault("/oidc/token", fault):
            assert browser.get("/test/guarded").text.startswith(ALICE)
            assert end_pause(site) == 0
    with end_pause_after(site), site.logto.fault("/oidc/token", cut_off):
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert 25 < end_pause(site) <= 30


@both_frameworks
@pytest.mark.parametrize(
    "fault",
    [
        changed(lambda claims: claims | {"name": 5}),
        changed(lambda claims: {"name": "Alice"}),
        fixed_response("200 OK", "[]"),
        respond(403, {"error": "insufficient_scope"}),
    ],
    ids=["a wrong type", "no subject", "a list", "a refusal"],
)
def test_invalid_userinfo_of_one_user_causes_no_pause(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    browser, other = site.browser(), with_expired_token(site, user="bob")
    browser.sign_in()
    with site.logto.fault("/oidc/me", fault):
        profile = browser.get("/profile")
    assert "Alice Archer" in profile.text
    assert "Logto does not respond at the moment" in profile.text
    before = site.logto.calls("/oidc/token")
    assert other.get("/test/guarded").status_code == 200
    assert site.logto.calls("/oidc/token") == before + 1
    assert end_pause(site) == 0


@both_frameworks
def test_a_bug_in_the_app_is_a_500_with_a_traceback(sites: Sites, framework: str) -> None:
    site = sites(framework)
    signed_in, new_browser = with_expired_token(site), site.browser()
    callback = new_browser.answer(new_browser.start())
    bug: dict[str, Any] = {"headers": {"X-Test-Bug": "yes"}}
    for path, browser in {callback: new_browser, "/test/guarded": signed_in}.items():
        with site.log_lines() as lines:
            assert_says(browser.get(path, **bug), 500, "Something went wrong")
        log = "\n".join(lines)
        assert "Traceback (most recent call last)" in log
        assert re.search(r"^TypeError: a planted bug$", log, re.MULTILINE)
        assert "unavailable" not in log
    assert signed_in.get("/test/guarded").text.startswith(ALICE)
