"""The requests of the app to Logto: which hosts get them, their headers, and the sign-out."""

import re
import socket
import time
from collections import defaultdict
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from answers import everything
from conftest import Bake
from sites import (
    UNAVAILABLE,
    Browser,
    Fault,
    Site,
    assert_says,
    both_frameworks,
    changed,
    oidc_error,
    query,
)
from token_faults import (
    ALICE,
    DISCOVERY,
    Sites,
    end_pause,
    end_pause_after,
    recording,
    respond,
    with_expired_token,
)

REVOCATION = "/oidc/token/revocation"


def sign_out(browser: Browser) -> httpx2.Response:
    return browser.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"})


@both_frameworks
@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_of_an_endpoint_sends_no_secret_to_another_server(
    sites: Sites, framework: str, status: int
) -> None:
    site = sites(framework)
    new_browser, signed_in, refreshing = site.browser(), site.browser(), with_expired_token(site)
    signed_in.sign_in()
    callback = new_browser.answer(new_browser.start())
    with (
        socket.create_server(("127.0.0.1", 0)) as other_server,
        end_pause_after(site),
        ExitStack() as faults,
    ):
        redirect = respond(status, Location=f"http://127.0.0.1:{other_server.getsockname()[1]}/")
        for path in ("/oidc/token", "/oidc/me", REVOCATION):
            faults.enter_context(site.logto.fault(path, redirect))
        assert_says(new_browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
        assert refreshing.get("/test/guarded").text.startswith(ALICE)
        assert "Logto does not respond at the moment" in signed_in.get("/profile").text
        assert sign_out(signed_in).status_code == 303
        other_server.setblocking(False)
        with pytest.raises(BlockingIOError):
            other_server.accept()


@both_frameworks
@pytest.mark.parametrize("path", [DISCOVERY, "/oidc/jwks"])
def test_a_redirect_does_not_replace_the_keys(sites: Sites, framework: str, path: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    site.logto.new_key()
    before = site.logto.calls("/moved")

    def moved_document(app: Any, environ: Any, start: Any, over: Any) -> Any:
        return app(environ | {"PATH_INFO": path}, start)

    moved = respond(307, Location=f"{site.logto.endpoint}/moved")
    with (
        site.log_lines() as lines,
        site.logto.fault(path, moved),
        site.logto.fault("/moved", moved_document),
    ):
        assert_says(browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
    assert any("a redirect to " in line for line in lines)
    assert site.logto.calls("/moved") == before
    assert browser.sign_in().headers["Location"] == "/"


@both_frameworks
@pytest.mark.parametrize(
    "name",
    [
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "end_session_endpoint",
        "revocation_endpoint",
    ],
)
def test_an_endpoint_on_another_host_is_never_used(sites: Sites, framework: str, name: str) -> None:
    site = sites(framework)
    new_browser, signed_in, refreshing = site.browser(), site.browser(), with_expired_token(site)
    signed_in.sign_in()
    callback = new_browser.answer(new_browser.start())
    with socket.create_server(("127.0.0.1", 0)) as other_server, end_pause_after(site):
        url = f"http://127.0.0.1:{other_server.getsockname()[1]}/oidc/x"
        with site.logto.fault(DISCOVERY, changed(lambda found: found | {name: url})):
            # The app fetches the document again, because it does not know the key.
            site.logto.new_key()
            assert_says(new_browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
            assert new_browser.start().startswith(site.logto.endpoint)
            assert refreshing.get("/test/guarded").text.startswith(ALICE)
            assert "Logto does not respond" not in signed_in.get("/profile").text
            location = sign_out(signed_in).headers["Location"]
            assert location.startswith(f"{site.logto.issuer}/session/end")
        other_server.setblocking(False)
        with pytest.raises(BlockingIOError):
            other_server.accept()
    assert site.browser().sign_in().headers["Location"] == "/"


@both_frameworks
def test_every_call_names_the_app_as_its_user_agent(sites: Sites, framework: str) -> None:
    site = sites(framework)
    seen: dict[str, list[Any]] = defaultdict(list)
    with ExitStack() as stack:
        for path in (DISCOVERY, "/oidc/jwks", "/oidc/token", "/oidc/me", REVOCATION):
            stack.enter_context(site.logto.fault(path, recording(seen[path])))
        site.logto.new_key()
        browser = with_expired_token(site)
        assert "Logto does not respond" not in browser.get("/profile").text
        sign_out(browser)
    assert {path: len(requests) for path, requests in seen.items()} == {
        DISCOVERY: 1,
        "/oidc/jwks": 1,
        "/oidc/token": 2,
        "/oidc/me": 1,
        REVOCATION: 1,
    }
    agents = {environ["HTTP_USER_AGENT"] for requests in seen.values() for environ in requests}
    assert len(agents) == 1
    assert re.fullmatch(r"bookstore/[0-9.]+", agents.pop())


@both_frameworks
@pytest.mark.parametrize("prompt", ["login", "none", "consent"])
def test_a_parameter_of_a_sign_in_is_sent_once(sites: Sites, framework: str, prompt: str) -> None:
    page = httpx2.get(
        f"{sites(framework).url}/test/begin", params={"prompt": prompt, "login_hint": "a&b=c"}
    )
    parameters = parse_qsl(urlsplit(page.text).query)
    names = [name for name, _ in parameters]
    assert len(names) == len(set(names))
    assert ("prompt", prompt) in parameters
    assert ("login_hint", "a&b=c") in parameters
    assert {"client_id", "redirect_uri", "scope", "state", "code_challenge"} <= set(names)


def refresh_at_logto(site: Site, token: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "client_id": "test-app", "client_secret": "any"}
    return httpx2.post(f"{site.logto.issuer}/token", data=form | {"refresh_token": token})


@both_frameworks
def test_sign_out_revokes_the_refresh_token(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    token = list(site.logto.local.refresh_tokens)[-1]
    assert refresh_at_logto(site, token).status_code == 200
    response = sign_out(browser)
    assert response.status_code == 303
    assert response.headers["Location"].startswith(f"{site.logto.issuer}/session/end?")
    assert refresh_at_logto(site, token).json()["error"] == "invalid_grant"


@both_frameworks
@pytest.mark.parametrize(
    "fault",
    [
        *(UNAVAILABLE[name] for name in ("silent", "cut off", "502 HTML")),
        oidc_error("unsupported_token_type"),
    ],
    ids=["silent", "cut off", "502 HTML", "refusal"],
)
def test_a_failed_revocation_does_not_block_the_sign_out(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    browser, stolen = site.browser(), site.browser()
    browser.sign_in()
    stolen.http.cookies = httpx2.Cookies(browser.http.cookies)
    start = time.monotonic()
    with site.log_lines() as lines, site.logto.fault(REVOCATION, fault):
        response = sign_out(browser)
    assert time.monotonic() - start < 5
    assert response.status_code == 303
    assert query(response.headers["Location"])["post_logout_redirect_uri"].startswith(site.url)
    assert any("The refresh token is not revoked" in line for line in lines)
    assert not browser.is_signed_in
    assert not stolen.is_signed_in
    assert end_pause(site) == 0


@pytest.mark.parametrize("framework", ["flask", "quart"])
@pytest.mark.parametrize("on", [False, True], ids=["bare", "full"])
def test_only_one_module_sends_http_requests(bake: Bake, framework: str, on: bool) -> None:
    (answers,) = [one for one in everything(on) if one["framework"] == framework]
    contents = bake(**answers).contents
    code = {
        name: content.decode()
        for name, content in contents.items()
        if name.startswith(("app/", "logto_setup/")) and name.endswith(".py")
    }
    lines = [(name, line) for name, text in code.items() for line in text.splitlines()]
    sending = re.compile(r"ClientSession|urlopen")
    assert [name for name, line in lines if sending.search(line)] == ["app/auth/oidc.py"]
    library = re.compile(r"^\s*(import|from) (aiohttp|httpx|requests|http\.client|urllib\.request)")
    assert {name for name, line in lines if library.match(line)} == {"app/auth/oidc.py"}
    assert "PyJWKClient" not in "".join(code.values())
