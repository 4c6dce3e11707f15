"""What people and sites that mean harm can try, and what it gets them."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
import redis
from conftest import Bake
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from sites import (
    MARKER,
    Browser,
    FaultyLogto,
    Site,
    assert_says,
    both_frameworks,
    both_stores,
    changed,
    query,
    serving,
)

Sites = Callable[..., Site]
ALICE = "k3v9x0q2m7ae"
BROWSER = """
    const {createInterface} = require("node:readline");
    createInterface({input: process.stdin}).on("line", (line) => {
        const [address, base] = JSON.parse(line);
        let origin;
        try { origin = new URL(address, base).origin; } catch { origin = "nowhere"; }
        console.log(JSON.stringify(origin));
    });
"""

quickly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Where `next` leads


@pytest.fixture(scope="session")
def resolve(node: str) -> Any:
    """Where a browser goes that gets this Location from this address (the WHATWG's rules)."""
    command = [node, "-e", BROWSER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as browser:
        questions, answers = browser.stdin, browser.stdout
        assert questions
        assert answers

        def resolve(address: str, base: str) -> str:
            questions.write(json.dumps([address, base]).encode() + b"\n")
            questions.flush()
            return str(json.loads(answers.readline()))

        yield resolve
        questions.close()


NASTY = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: a=b",
    "\x00//evil.example",
    " //evil.example",
    "\u00a0//evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https://evil.example",
    "HTTPS://evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "//user:password@evil.example",
    "/;@evil.example",
    "/@evil.example",
    "@evil.example",
    ".evil.example",
    ":80",
    "?next=//evil.example",
    "#//evil.example",
    "/..//evil.example",
    "/.//evil.example",
    "/./\\evil.example",
    "/%5cevil.example",
    "/%2f/evil.example",
    "/%2e%2e//evil.example",
    "/%09/evil.example",
    "/\uff0f/evil.example",
    "/\u2215evil.example",
    "/\u202eevil",
    "/\ud83d\ude00",
    "//[evil",
    "/[evil",
    "/profile\u0085",
    "/" + "a" * 5000,
    "",
]
PIECES = ["/", "\\", ":", "@", "?", "#", "%2f", "%5c", ".", "..", "\t", "\n", "\r", "\x00", " ", "//",
          "https:", "evil.example", "user", "[", "]", ";", "\uff0f", "\u3002", "a"]  # fmt: skip
addresses = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces)),
).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


@both_frameworks
def test_next_stays_in_the_app_for_every_browser(
    sites: Sites, framework: str, resolve: Any
) -> None:
    site = sites(framework)

    @quickly
    @given(addresses)
    def stays(target: str) -> None:
        response = http.get("/test/redirect", params={"to": target})
        assert response.status_code == 302
        location = response.headers["Location"]
        assert resolve(location, f"{site.url}/callback?code=1") == site.url
        assert len(location) < 10_000

    for target in NASTY:
        stays = example(target)(stays) if "\ud83d" not in target else stays
    with httpx.Client(base_url=site.url) as http:
        stays()


@both_frameworks
@pytest.mark.parametrize(
    "target", ["/profile", "/profile?tab=1&b=%26#part", "/a%3Fb", "/caf\u00e9"]
)
def test_next_leads_back_to_where_somebody_was_going(
    sites: Sites, framework: str, target: str
) -> None:
    browser = sites(framework).browser()
    location = browser.sign_in(f"/sign-in?{urlencode({'next': target})}").headers["Location"]
    assert location == quote(target, safe="/?&=#%")


@both_frameworks
@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https:evil.example"])
def test_next_leads_nowhere_else_through_a_whole_sign_in(
    sites: Sites, framework: str, target: str
) -> None:
    browser = sites(framework).browser()
    assert browser.sign_in(f"/sign-in?{urlencode({'next': target})}").headers["Location"] == "/"


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
def test_no_callback_is_an_error_of_the_app_or_shows_what_it_says(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()

    @quickly
    @given(queries, st.booleans())
    def holds(raw: bytes, started: bool) -> None:
        if started:
            browser.http.cookies.clear()
            raw = raw.replace(b"STATE", query(browser.start())["state"].encode())
        request = httpx.Request("GET", site.url, headers={"Cookie": cookies_of(browser)})
        request.url = httpx.URL(f"{site.url}/callback").copy_with(query=raw)
        response = browser.http.send(request)
        assert response.status_code in (200, 400, 503)
        assert MARKER not in response.text
        assert "Try again" in response.text
        assert response.headers["Cache-Control"] == "no-store"
        assert "bookstore-session=" not in response.headers.get("Set-Cookie", "")

    holds()
    assert not browser.is_signed_in


def cookies_of(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())


@both_frameworks
def test_somebody_elses_callback_signs_nobody_in(sites: Sites, framework: str) -> None:
    site = sites(framework)
    attacker, victim = site.browser(), site.browser()
    callback = attacker.answer(attacker.start())
    assert_says(victim.get(callback), 400, "This sign-in has expired", "/sign-in")
    victim.start()
    assert_says(victim.get(callback), 400, "This sign-in has expired", "/sign-in")
    assert not victim.is_signed_in


@both_frameworks
@both_stores
def test_a_callback_works_once_even_when_it_comes_twice_at_once(
    sites: Sites, framework: str, store: str
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    site = sites(framework, store)
    browser = site.browser()
    callback = browser.answer(browser.start())
    cookies = dict(browser.http.cookies)
    calls = site.logto.calls("/oidc/token")
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda url: httpx.get(f"{url}{callback}", cookies=cookies), site.urls * 3)
        )
    assert sorted(answer.status_code for answer in answers) == [302, 400, 400, 400, 400, 400]
    assert site.logto.calls("/oidc/token") == calls + 1


@both_frameworks
def test_the_back_button_and_tabs_are_harmless(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    first = browser.answer(browser.start("/sign-in?next=/profile"))
    second = browser.answer(browser.start())
    old_tab = browser.start("/sign-in?next=/profile")
    assert browser.get(second).headers["Location"] == "/"
    assert browser.get(first).headers["Location"] == "/profile"
    # Back to the callback, and on from there.
    assert browser.get(first).headers["Location"] == "/"
    assert browser.is_signed_in

    browser.post("/sign-out")
    assert_says(browser.get(first), 400, "This sign-in has expired", "/sign-in")
    assert browser.get(browser.answer(old_tab, user="bob")).headers["Location"] == "/profile"
    page = browser.get("/profile").text
    assert "bob@example.com" in page
    assert "alice" not in page.lower()


# Requests from elsewhere


@both_frameworks
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("headers", "obeyed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OWN"}, False),
        ({"Sec-Fetch-Site": "anything"}, False),
        ({"Origin": "OWN"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://evil.example", "Host": "evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, True),
    ],
)
def test_only_the_apps_own_pages_sign_somebody_out(
    sites: Sites, framework: str, method: str, headers: dict[str, str], obeyed: bool
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    sent = {name: value.replace("OWN", site.url) for name, value in headers.items()}
    response = browser.http.request(method, "/sign-out", headers=sent)
    if obeyed:
        assert response.status_code == 303
        assert response.headers["Location"].startswith(f"{site.logto.endpoint}/oidc/session/end")
    else:
        assert response.status_code == 200
        assert "Sign out of Bookstore?" in response.text
        assert "Set-Cookie" not in response.headers
    assert browser.is_signed_in is not obeyed


@both_frameworks
def test_host_and_forwarded_headers_change_nothing(sites: Sites, framework: str) -> None:
    site = sites(framework)
    elsewhere = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "host=evil.example;proto=https",
    }
    browser = site.browser()
    paths = ("/", "/sign-in", "/profile", "/callback", "/nowhere", "/sign-out")
    for path in (*paths, "//profile", "/static//style.css", "/static"):
        response = browser.get(f"{site.url}{path}", headers=elsewhere)
        assert "evil" not in response.text
        assert "evil" not in str(response.headers)
        assert "Secure" not in response.headers.get("Set-Cookie", "")
        if path == "/sign-in":
            assert query(response.headers["Location"])["redirect_uri"] == site.callback


@both_frameworks
def test_no_page_shows_what_an_address_says(sites: Sites, framework: str) -> None:
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
def test_every_answer_has_the_headers(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    answers = {
        302: [browser.get(callback), browser.get("/sign-in")],
        200: [browser.get("/"), browser.get("/profile"), browser.get("/static/style.css")],
        404: [browser.get("/nowhere"), browser.get("/static/nowhere")],
        405: [browser.post("/profile")],
        500: [browser.get("/test/failure")],
        400: [browser.post("/backchannel-logout")],
    }
    for status, responses in answers.items():
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
            assert "Strict-Transport-Security" not in headers
            if "/static/" not in str(response.url):
                assert headers["Cache-Control"] == "no-store"
                assert "Cookie" in headers["Vary"]
    assert "Traceback" not in answers[500][0].text
    assert "own" not in answers[500][0].text


@both_frameworks
def test_cookies_hold_an_id_and_are_out_of_reach(sites: Sites, framework: str) -> None:
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
def test_with_https_cookies_and_headers_insist_on_it(
    bake: Bake, framework: str, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, url, https=True) as site:
        response = httpx.get(f"{site.url}/test/note?name=n1")
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("__Host-bookstore-session=")
        assert "; Secure; HttpOnly; Path=/; SameSite=Lax" in cookie
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        cookie = httpx.get(f"{site.url}/sign-in").headers["Set-Cookie"]
        assert cookie.startswith("__Host-bookstore-session-sign-in-")
        assert "; Secure;" in cookie


@both_frameworks
def test_a_name_that_no_file_can_have_is_not_found(sites: Sites, framework: str) -> None:
    site = sites(framework)
    with site.log_lines() as lines:
        assert httpx.get(f"{site.url}/static/{'x' * 300}").status_code == 404
    assert "Traceback" not in "\n".join(lines)


@both_frameworks
def test_userinfo_about_somebody_else_is_not_shown(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()

    def of_somebody_else(claims: Any) -> Any:
        return claims | {"sub": "p8d2w5t1z6bo", "email": "mallory@example.com"}

    with site.logto.fault("/oidc/me", changed(of_somebody_else)):
        response = browser.get("/profile")
    assert response.headers["Location"] == "/sign-in?next=/profile"
    assert not browser.is_signed_in


# Back-channel logout


def post(site: Site, token: object) -> httpx.Response:
    return httpx.post(f"{site.urls[-1]}/backchannel-logout", data={"logout_token": token})


@both_frameworks
@both_stores
def test_whoever_signs_out_at_logto_is_signed_out_here(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    here, there = site.browser(), site.browser()
    here.sign_in()
    there.sign_in()
    mine = list(site.logto.local.sessions)[-2]
    with site.log_lines() as lines:
        site.logto.local.end_session(mine)
        deadline = time.monotonic() + 10
        while here.is_signed_in and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not here.is_signed_in
    assert there.is_signed_in
    assert any(f"sub={ALICE}, 1 sessions ended" in line for line in lines)


@both_frameworks
@both_stores
def test_a_logout_token_without_sid_ends_all_sessions_of_the_user(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    laptop, phone, other = site.browser(), site.browser(), site.browser()
    laptop.sign_in()
    phone.sign_in()
    other.sign_in(user="bob")
    token = site.logto.logout_token()
    response = post(site, token)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert not laptop.is_signed_in
    assert not phone.is_signed_in
    assert other.is_signed_in

    # The same token later does not end the next session.
    laptop.sign_in()
    response = post(site, token)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    assert laptop.is_signed_in


Forgery = Callable[[FaultyLogto], object]
KEY = ECKey.generate_key("P-384", auto_kid=True)
FORGED_LOGOUT_TOKENS: dict[str, Forgery] = {
    "nothing": lambda logto: "",
    "text": lambda logto: MARKER,
    "other key": lambda logto: logto.logout_token(key=KEY),
    "unknown key": lambda logto: logto.logout_token({"kid": "unknown"}, KEY),
    "alg none": lambda logto: logto.logout_token({"alg": "none"}),
    "an ID token's typ": lambda logto: logto.logout_token({"typ": "JWT"}),
    "an access token's typ": lambda logto: logto.logout_token({"typ": "at+jwt"}),
    "number as typ": lambda logto: logto.logout_token({"typ": 7}),
    "other issuer": lambda logto: logto.logout_token(iss="https://evil.example/oidc"),
    "other audience": lambda logto: logto.logout_token(aud="other-app"),
    "no audience": lambda logto: logto.logout_token(aud=None),
    "expired": lambda logto: logto.logout_token(exp=int(time.time()) - 60),
    "no expiry": lambda logto: logto.logout_token(exp=None),
    "issued tomorrow": lambda logto: logto.logout_token(iat=int(time.time()) + 86400),
    "no time of issue": lambda logto: logto.logout_token(iat=None),
    "no jti": lambda logto: logto.logout_token(jti=None),
    "no events": lambda logto: logto.logout_token(events=None),
    "other event": lambda logto: logto.logout_token(events={"https://evil.example": {}}),
    "list of events": lambda logto: logto.logout_token(events=["backchannel-logout"]),
    "a nonce": lambda logto: logto.logout_token(nonce="n"),
    "nobody": lambda logto: logto.logout_token(sub=None),
    "empty names": lambda logto: logto.logout_token(sub="", sid=""),
}


@both_frameworks
@pytest.mark.parametrize("forge", FORGED_LOGOUT_TOKENS.values(), ids=FORGED_LOGOUT_TOKENS)
def test_a_logout_token_that_does_not_hold_ends_nothing(
    sites: Sites, framework: str, forge: Forgery
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    with site.log_lines() as lines:
        response = post(site, forge(site.logto))
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert MARKER not in response.text
    assert any("Back-channel logout refused" in line for line in lines)
    assert browser.is_signed_in


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=3,
)
claims = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "iat", "exp", "jti", "events", "sid", "nonce", "nbf"]),
    anything,
    min_size=1,
    max_size=3,
)


@both_frameworks
@both_stores
def test_no_logout_token_is_an_error_of_the_app(sites: Sites, framework: str, store: str) -> None:
    site = sites(framework, store)
    browser = site.browser()
    browser.sign_in(user="bob")

    @quickly
    @given(claims, st.dictionaries(st.sampled_from(["typ", "x"]), anything, max_size=1))
    def holds(changes: dict[str, Any], header: dict[str, Any]) -> None:
        token = site.logto.logout_token(header, **{"sub": "somebody"} | changes)
        response = http.post("/backchannel-logout", data={"logout_token": token})
        assert response.status_code in (200, 400)

    with httpx.Client(base_url=site.url) as http:
        holds()
    assert browser.is_signed_in


@both_frameworks
def test_a_logout_that_cannot_be_stored_is_said_to_have_failed(
    sites: Sites, framework: str
) -> None:
    import sqlite3

    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    token = site.logto.logout_token()
    somebody = sqlite3.connect(site.database, isolation_level=None)
    somebody.execute("BEGIN EXCLUSIVE")
    assert post(site, token).status_code == 400
    somebody.close()
    assert browser.is_signed_in
    assert post(site, token).status_code == 200
    assert not browser.is_signed_in


@both_frameworks
def test_a_logout_that_failed_half_way_may_be_sent_again(sites: Sites, framework: str) -> None:
    site = sites(framework, "redis")
    browser = site.browser()
    browser.sign_in()
    token = site.logto.logout_token()
    server: Any = redis.Redis.from_url(site.variables["SESSION_URL"])
    # The token is noted as used, and then the sessions of its user cannot be looked up.
    server.execute_command("ACL", "SETUSER", "default", "-zrange")
    try:
        assert post(site, token).status_code == 400
    finally:
        server.execute_command("ACL", "SETUSER", "default", "+zrange")
        server.close()
    assert browser.is_signed_in
    assert post(site, token).status_code == 200
    assert not browser.is_signed_in
