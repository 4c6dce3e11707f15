"""The back-channel logout: which users it signs out, and which logout tokens it refuses."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from random_requests import quickly
from redis_servers import redis_without
from sites import MARKER, FaultyLogto, Site, assert_says, both_frameworks, both_stores, changed

Sites = Callable[..., Site]
ALICE = "k3v9x0q2m7ae"


def post(site: Site, token: object) -> httpx2.Response:
    return httpx2.post(f"{site.urls[-1]}/backchannel-logout", data={"logout_token": token})


@both_frameworks
@both_stores
def test_a_sign_out_at_logto_ends_the_session_of_the_app(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    here, there = site.browser(), site.browser()
    here.sign_in()
    there.sign_in()
    session = list(site.logto.local.sessions)[-2]
    with site.log_lines() as lines:
        site.logto.local.end_session(session)
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

    # The same token cannot be used again: it does not end the next session.
    laptop.sign_in()
    response = post(site, token)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    assert laptop.is_signed_in


@both_frameworks
@both_stores
def test_a_logout_token_with_sid_also_ends_sessions_of_its_user_without_sid(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    with_sid, without_sid, other = site.browser(), site.browser(), site.browser()
    with_sid.sign_in()
    application = site.logto.local.application
    required = application.backchannel_logout_session_required
    application.backchannel_logout_session_required = False
    try:
        without_sid.sign_in()
        other.sign_in(user="bob")
    finally:
        application.backchannel_logout_session_required = required
    assert post(site, site.logto.logout_token(sid="a-session-of-alice")).status_code == 200
    assert not without_sid.is_signed_in
    assert other.is_signed_in
    # This session has another `sid`.
    assert with_sid.is_signed_in


@both_frameworks
@both_stores
def test_a_logout_during_the_code_exchange_stops_the_sign_in(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser, elsewhere = site.browser(), site.browser()
    elsewhere.sign_in()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    statuses: list[int] = []

    def sign_out_first(tokens: Any) -> Any:
        sid = jwt.decode(tokens["id_token"], options={"verify_signature": False})["sid"]
        statuses.append(post(site, site.logto.logout_token(sid=sid)).status_code)
        return tokens

    with site.logto.fault("/oidc/token", changed(sign_out_first)):
        response = browser.get(callback)
    assert statuses == [200]
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/profile")
    assert browser.session_cookie is None
    assert not browser.is_signed_in
    assert elsewhere.is_signed_in
    assert browser.sign_in().headers["Location"] == "/"
    assert browser.is_signed_in


@both_frameworks
def test_a_logout_token_may_be_valid_for_ten_minutes(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    now = int(time.time())
    assert post(site, site.logto.logout_token(iat=now, exp=now + 600)).status_code == 200
    assert not browser.is_signed_in


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
    "no subject": lambda logto: logto.logout_token(sub=None),
    "empty sub and sid": lambda logto: logto.logout_token(sub="", sid=""),
    "valid for an hour": lambda logto: logto.logout_token(exp=int(time.time()) + 3600),
    "issued an hour ago": lambda logto: logto.logout_token(iat=int(time.time()) - 3600),
    "times as strings": lambda logto: logto.logout_token(exp=str(int(time.time()) + 60)),
    "a lone surrogate as sub": lambda logto: logto.logout_token(sub="\ud800"),
    "a lone surrogate as sid": lambda logto: logto.logout_token(sid="\ud800"),
    "a lone surrogate as jti": lambda logto: logto.logout_token(jti="\udfff"),
    "a lone surrogate elsewhere": lambda logto: logto.logout_token(name="\ud800"),
}


@both_frameworks
@pytest.mark.parametrize("forge", FORGED_LOGOUT_TOKENS.values(), ids=FORGED_LOGOUT_TOKENS)
def test_an_invalid_logout_token_ends_no_session(
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
def test_no_logout_token_causes_an_error_of_the_app(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = site.browser()
    browser.sign_in(user="bob")

    @quickly
    @given(claims, st.dictionaries(st.sampled_from(["typ", "x"]), anything, max_size=1))
    def check(changes: dict[str, Any], header: dict[str, Any]) -> None:
        token = site.logto.logout_token(header, **{"sub": "another-user"} | changes)
        response = http.post("/backchannel-logout", data={"logout_token": token})
        assert response.status_code in (200, 400)

    with httpx2.Client(base_url=site.url) as http:
        check()
    assert browser.is_signed_in


@both_frameworks
def test_a_logout_that_cannot_be_stored_is_a_400(sites: Sites, framework: str) -> None:
    import sqlite3

    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    token = site.logto.logout_token()
    lock_holder = sqlite3.connect(site.database, isolation_level=None)
    lock_holder.execute("BEGIN EXCLUSIVE")
    assert post(site, token).status_code == 400
    lock_holder.close()
    assert browser.is_signed_in
    assert post(site, token).status_code == 200
    assert not browser.is_signed_in


@both_frameworks
def test_a_logout_that_failed_half_way_may_be_sent_again(sites: Sites, framework: str) -> None:
    site = sites(framework, "redis")
    browser = site.browser()
    browser.sign_in()
    token = site.logto.logout_token()
    # The app stores that the token is used, and then cannot look up the sessions of its user.
    with redis_without(site.variables["SESSION_URL"], "zrange"):
        assert post(site, token).status_code == 400
    assert browser.is_signed_in
    assert post(site, token).status_code == 200
    assert not browser.is_signed_in


@pytest.mark.xdist_group("quart sites")
def test_a_logout_whose_client_disconnected_may_be_sent_again(sites: Sites) -> None:
    # Quart cancels the view when the client disconnects. Flask does not.
    site = sites("quart")
    browser = site.browser()
    browser.sign_in()
    token, url = site.logto.logout_token(), f"{site.urls[-1]}/backchannel-logout"
    slow = {"X-Test-Slow": "yes"}
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(url, data={"logout_token": token}, headers=slow, timeout=0.3)
    time.sleep(0.3)
    assert browser.is_signed_in
    assert post(site, token).status_code == 200
    assert not browser.is_signed_in
