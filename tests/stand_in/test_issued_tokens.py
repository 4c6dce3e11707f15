"""The tokens of the local Logto: their content, their lifetime, and the clients that get them."""

import time
from collections.abc import Iterator

import jwt
import pytest
from stand_in_client import (
    API,
    APP,
    CALLBACK,
    HOME,
    ORGANIZATIONS,
    OTHER_API,
    SCOPE,
    VERIFIER,
    Browser,
    refused,
    start,
)

# Tokens


def test_the_id_token_has_the_signature_and_the_claims_of_logto(browser: Browser) -> None:
    before = int(time.time())
    token = browser.sign_in()["id_token"]
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid"}
    assert header["alg"] == "ES384"
    claims = browser.claims(token, APP)
    assert claims == {
        "sub": browser.logto.users["alice"].id,
        "name": "Alice Archer",
        "preferred_username": "alice",
        "username": "alice",
        "picture": f"{browser.logto.endpoint}/avatars/alice.svg",
        "email": "alice@example.com",
        "email_verified": True,
        "updated_at": claims["updated_at"],
        "created_at": claims["created_at"],
        "aud": APP,
        "iss": f"{browser.logto.endpoint}/oidc",
        "iat": claims["iat"],
        "exp": claims["iat"] + 3600,
    }
    assert before <= claims["iat"] <= time.time()
    assert time.time() * 1000 > claims["created_at"] > 1e12, "milliseconds"


def test_claims_without_a_value_are_null(browser: Browser) -> None:
    claims = browser.claims(browser.sign_in("carol")["id_token"], APP)
    assert claims["email"] is None
    assert claims["email_verified"] is False
    claims = browser.claims(browser.sign_in("bob", prompt="login consent")["id_token"], APP)
    assert claims["picture"] is None


def test_claims_come_only_with_their_scope(browser: Browser) -> None:
    claims = browser.claims(browser.sign_in(scope="openid")["id_token"], APP)
    assert claims.keys() == {"sub", "aud", "iss", "iat", "exp"}


def test_a_nonce_that_was_sent_is_in_the_id_token(browser: Browser) -> None:
    claims = browser.claims(browser.sign_in(nonce="once")["id_token"], APP)
    assert claims["nonce"] == "once"


def test_without_openid_there_is_no_id_token(browser: Browser) -> None:
    assert "id_token" not in browser.sign_in(scope="profile")


def test_the_access_token_is_opaque_and_opens_userinfo(browser: Browser) -> None:
    tokens = browser.sign_in("carol")
    assert len(tokens["access_token"]) == 43
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    assert tokens["scope"] == SCOPE
    info = browser.userinfo(tokens["access_token"]).json()
    assert info["sub"] == browser.logto.users["carol"].id
    assert info["name"] == "Carol Chen"
    assert info["email"] is None


def test_userinfo_refuses_an_unknown_or_missing_token(browser: Browser) -> None:
    assert refused(browser.userinfo("made-up"), 401, "invalid_token")
    assert browser.userinfo("made-up").headers["WWW-Authenticate"].startswith("Bearer")
    assert refused(browser.http.get("/oidc/me"), 400, "invalid_request")


def test_an_expired_access_token_is_refused(browser: Browser) -> None:
    token = browser.sign_in()["access_token"]
    browser.logto.access_tokens[token].issued_at -= 3601
    assert refused(browser.userinfo(token), 401, "invalid_token")


def test_the_lifetime_of_access_tokens_can_be_set() -> None:
    with start(access_token_lifetime=7) as logto:
        browser = Browser(logto)
        tokens = browser.sign_in(resource=API)
        assert tokens["expires_in"] == 7
        token = browser.refresh(tokens["refresh_token"], resource=API).json()["access_token"]
        claims = browser.claims(token, API)
        assert claims["exp"] - claims["iat"] == 7


def test_a_code_needs_its_verifier_redirect_uri_and_time(browser: Browser) -> None:
    code = browser.code()
    assert refused(browser.exchange(code, code_verifier="x" * 43), 400, "invalid_grant")
    assert refused(browser.exchange(code, code_verifier=""), 400, "invalid_grant")
    assert refused(browser.exchange(code, redirect_uri=HOME), 400, "invalid_grant")
    browser.logto.codes[code].issued_at -= 61
    assert refused(browser.exchange(code), 400, "invalid_grant")


def test_a_code_used_twice_revokes_its_tokens(browser: Browser) -> None:
    code = browser.code()
    tokens = browser.exchange(code).json()
    assert refused(browser.exchange(code), 400, "invalid_grant")
    assert refused(browser.refresh(tokens["refresh_token"]), 400, "invalid_grant")
    assert refused(browser.userinfo(tokens["access_token"]), 401, "invalid_token")


@pytest.mark.parametrize("secret", ["wrong", "", None])
def test_a_wrong_or_missing_secret_is_refused(browser: Browser, secret: str | None) -> None:
    form = {"client_id": APP, "grant_type": "authorization_code", "code": browser.code()}
    if secret is not None:
        form["client_secret"] = secret
    assert refused(browser.http.post("/oidc/token", data=form), 401, "invalid_client")
    if secret is not None:
        response = browser.http.post("/oidc/token", data=form, auth=(APP, secret))
        assert refused(response, 401, "invalid_client")


def test_the_secret_may_come_as_basic_authentication(browser: Browser) -> None:
    form = {
        "grant_type": "authorization_code",
        "code": browser.code(),
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    response = browser.http.post("/oidc/token", data=form, auth=(APP, "any-text"))
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"


def test_a_made_up_code_shows_whether_the_secret_is_right(browser: Browser) -> None:
    assert refused(browser.exchange("made-up"), 400, "invalid_grant")
    assert refused(browser.exchange("made-up", client_secret="wrong"), 401, "invalid_client")


def test_other_grant_types_are_refused(browser: Browser) -> None:
    assert refused(browser.token(grant_type="password"), 400, "unsupported_grant_type")
    assert refused(browser.token(), 400, "unsupported_grant_type")
    assert refused(browser.token(grant_type="refresh_token"), 400, "invalid_request")


def test_a_token_for_a_resource_is_a_jwt(browser: Browser) -> None:
    scope = f"{SCOPE} read:books write:books"
    code = browser.code(resource=API, scope=scope)
    token = browser.exchange(code, resource=API).json()["access_token"]
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("ES384", "at+jwt")
    claims = browser.claims(token, API)
    assert claims.keys() == {"jti", "sub", "iat", "exp", "scope", "client_id", "iss", "aud"}
    assert (claims["aud"], claims["client_id"]) == (API, APP)
    assert claims["sub"] == browser.logto.users["alice"].id
    assert claims["scope"].split() == ["read:books", "write:books"]
    assert refused(browser.userinfo(token), 401, "invalid_token")


@pytest.mark.parametrize(
    ("user", "granted"),
    [("alice", "read:books write:books"), ("bob", "read:books"), ("misaki", None)],
)
def test_scopes_that_the_user_lacks_are_dropped_silently(
    browser: Browser, user: str, granted: str | None
) -> None:
    scope = f"{SCOPE} read:books write:books delete:books"
    refresh_token = browser.sign_in(user, resource=API, scope=scope)["refresh_token"]
    token = browser.refresh(refresh_token, resource=API).json()["access_token"]
    assert browser.claims(token, API).get("scope") == granted


def test_scopes_that_were_not_requested_are_not_granted(browser: Browser) -> None:
    refresh_token = browser.sign_in(resource=API, scope=f"{SCOPE} write:books")["refresh_token"]
    token = browser.refresh(refresh_token, resource=API).json()["access_token"]
    assert browser.claims(token, API)["scope"] == "write:books"


def test_a_resource_must_have_been_named_at_sign_in(browser: Browser) -> None:
    code = browser.code(resource=API)
    assert refused(browser.exchange(code, resource=OTHER_API), 400, "invalid_target")
    refresh_token = browser.sign_in(resource=API, prompt="login consent")["refresh_token"]
    assert refused(browser.refresh(refresh_token, resource=OTHER_API), 400, "invalid_target")


def test_an_organization_token_is_for_members(browser: Browser) -> None:
    scope = f"{SCOPE} urn:logto:scope:organizations read:books write:books"
    for user, granted in [("alice", "read:books write:books"), ("bob", "read:books")]:
        tokens = browser.sign_in(
            user, scope=scope, resource=[ORGANIZATIONS, API], prompt="login consent"
        )
        response = browser.refresh(tokens["refresh_token"], organization_id="bookclub0001")
        claims = browser.claims(
            response.json()["access_token"], "urn:logto:organization:bookclub0001"
        )
        assert claims["scope"] == granted
        assert browser.claims(tokens["id_token"], APP)["organizations"] == ["bookclub0001"]
    tokens = browser.sign_in("carol", scope=scope, prompt="login consent")
    response = browser.refresh(tokens["refresh_token"], organization_id="bookclub0001")
    assert refused(response, 403, "access_denied")


def test_an_organization_token_needs_the_organizations_scope(browser: Browser) -> None:
    response = browser.refresh(browser.sign_in()["refresh_token"], organization_id="bookclub0001")
    assert refused(response, 403, "insufficient_scope")


def test_a_resource_token_can_be_for_an_organization(browser: Browser) -> None:
    scope = f"{SCOPE} urn:logto:scope:organizations read:books write:books"
    tokens = browser.sign_in("bob", scope=scope, resource=[ORGANIZATIONS, API])
    response = browser.refresh(
        tokens["refresh_token"], resource=API, organization_id="bookclub0001"
    )
    claims = browser.claims(response.json()["access_token"], API)
    assert (claims["organization_id"], claims["scope"]) == ("bookclub0001", "read:books")


# Refreshing


def test_a_refresh_token_needs_offline_access_and_consent(browser: Browser) -> None:
    assert "refresh_token" in browser.sign_in()
    assert "refresh_token" not in browser.sign_in(prompt="login")
    assert "refresh_token" not in browser.sign_in(scope="openid", prompt="login consent")


def test_a_refresh_gives_new_tokens_and_the_same_refresh_token(browser: Browser) -> None:
    tokens = browser.sign_in()
    new = browser.refresh(tokens["refresh_token"]).json()
    assert new["refresh_token"] == tokens["refresh_token"]
    assert new["access_token"] != tokens["access_token"]
    assert browser.claims(new["id_token"], APP)["sub"] == browser.logto.users["alice"].id
    assert browser.userinfo(new["access_token"]).status_code == 200


def test_a_refresh_may_request_fewer_scopes_but_not_more(browser: Browser) -> None:
    refresh_token = browser.sign_in(scope=SCOPE)["refresh_token"]
    fewer = browser.refresh(refresh_token, scope="openid").json()
    assert fewer["scope"] == "openid"
    assert "name" not in browser.userinfo(fewer["access_token"]).json()
    assert refused(browser.refresh(refresh_token, scope="openid phone"), 400, "invalid_scope")


def test_a_refresh_token_is_renewed_late_in_its_life(browser: Browser) -> None:
    refresh_token = browser.sign_in()["refresh_token"]
    day = 86400
    browser.logto.refresh_tokens[refresh_token].issued_at -= 9.7 * day
    assert browser.refresh(refresh_token).json()["refresh_token"] == refresh_token
    browser.logto.refresh_tokens[refresh_token].issued_at -= 0.2 * day
    assert browser.refresh(refresh_token).json()["refresh_token"] != refresh_token


def test_a_refresh_token_ends_after_14_days(browser: Browser) -> None:
    refresh_token = browser.sign_in()["refresh_token"]
    browser.logto.refresh_tokens[refresh_token].issued_at -= 14 * 86400 + 1
    assert refused(browser.refresh(refresh_token), 400, "invalid_grant")


@pytest.fixture
def rotating() -> Iterator[Browser]:
    with start(rotate_refresh_tokens=True) as logto:
        yield Browser(logto)


def test_after_a_rotation_the_old_token_works_for_a_short_time(rotating: Browser) -> None:
    old = rotating.sign_in()["refresh_token"]
    new = rotating.refresh(old).json()["refresh_token"]
    assert new != old
    assert rotating.refresh(old).status_code == 200
    assert rotating.refresh(new).status_code == 200


def test_a_later_use_of_the_old_token_revokes_the_grant(rotating: Browser) -> None:
    old = rotating.sign_in()["refresh_token"]
    new = rotating.refresh(old).json()
    rotating.logto.refresh_tokens[old].used_at -= 3.1
    assert refused(rotating.refresh(old), 400, "invalid_grant")
    assert refused(rotating.refresh(new["refresh_token"]), 400, "invalid_grant")
    assert refused(rotating.userinfo(new["access_token"]), 401, "invalid_token")


def test_a_suspended_user_is_refused_at_the_next_refresh(browser: Browser) -> None:
    alice, bob = browser.sign_in(), Browser(browser.logto).sign_in("bob")
    browser.logto.suspend("alice")
    assert refused(browser.refresh(alice["refresh_token"]), 400, "invalid_grant")
    assert refused(browser.userinfo(alice["access_token"]), 401, "invalid_token")
    assert browser.refresh(bob["refresh_token"]).status_code == 200
    response = browser.choose(browser.interaction(), user="alice")
    assert response.status_code == 422
    assert "suspended" in response.text
