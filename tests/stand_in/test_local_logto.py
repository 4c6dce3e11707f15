"""The stand-in behaves as the real Logto was measured to, so what works with it works there."""

import asyncio
import base64
import hashlib
import importlib
import json
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from answers import TEMPLATE
from conftest import Bake, BakedProject, environment
from logto import LogtoClient, LogtoConfig, LogtoException, Storage, UserInfoScope
from processes import free_port, is_taken, running

APP = "bookstore"
CALLBACK = "http://localhost:3000/callback"
HOME = "http://localhost:3000/"
API = "https://api.bookstore.example/"
OTHER_API = "https://other.example/"
ORGANIZATIONS = "urn:logto:resource:organizations"
SCOPE = "openid profile email offline_access"
VERIFIER = secrets.token_urlsafe(32)
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
SECRET = {"client_id": APP, "client_secret": "any-text"}


def stand_in() -> Any:
    """The module as it lies in the template: it holds no Jinja, so it runs unrendered."""
    with pytest.MonkeyPatch.context() as patch:
        # A cache in the template would be baked into every project.
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(str(TEMPLATE))
        return importlib.import_module("dev.local_logto")


def start(**options: Any) -> Any:
    defaults = {
        "app_id": APP,
        "redirect_uris": [CALLBACK],
        "post_logout_redirect_uris": [HOME],
        "resources": {API: ["read:books", "write:books"], OTHER_API: ["read:other"]},
    }
    return stand_in().LocalLogto(**(defaults | options))


@pytest.fixture
def logto() -> Iterator[Any]:
    with start() as logto:
        yield logto


class Browser:
    """A person's browser and the app's side of the protocol, over real HTTP."""

    def __init__(self, logto: Any) -> None:
        self.logto = logto
        self.http = httpx.Client(base_url=logto.endpoint, timeout=10, verify=False)

    def authorize(self, **parameters: Any) -> httpx.Response:
        """Go to `/oidc/auth`; None takes a parameter away."""
        asked = {
            "client_id": APP,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": SCOPE,
            "prompt": "consent",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "the-state",
        } | parameters
        present = {name: value for name, value in asked.items() if value is not None}
        return self.http.get("/oidc/auth", params=present)

    def interaction(self, **parameters: Any) -> str:
        return httpx.URL(self.authorize(**parameters).headers["Location"]).params["interaction"]

    def choose(self, interaction: str, **choice: str) -> httpx.Response:
        return self.http.post("/sign-in", data={"interaction": interaction, **choice})

    def code(self, user: str = "alice", **parameters: Any) -> str:
        answer = self.choose(self.interaction(**parameters), user=user)
        return query(answer)["code"]

    def token(self, **form: str) -> httpx.Response:
        return self.http.post("/oidc/token", data=SECRET | form)

    def exchange(self, code: str, **form: str) -> httpx.Response:
        fields = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER} | form
        return self.token(grant_type="authorization_code", **fields)

    def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    def sign_in(self, user: str = "alice", **parameters: Any) -> dict[str, Any]:
        """The tokens of a finished sign-in."""
        answer = self.exchange(self.code(user, **parameters))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def userinfo(self, access_token: str) -> httpx.Response:
        return self.http.get("/oidc/me", headers={"Authorization": f"Bearer {access_token}"})

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a JWT, once its signature is proven with the published keys."""
        keys = jwt.PyJWKSet.from_dict(self.http.get("/oidc/jwks").json())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        issuer = f"{self.logto.endpoint}/oidc"
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=["ES384"], audience=audience, issuer=issuer
        )
        return claims


@pytest.fixture
def browser(logto: Any) -> Browser:
    return Browser(logto)


def query(answer: httpx.Response) -> dict[str, str]:
    """What an answer sends to the app's callback."""
    assert answer.is_redirect, answer.text
    target = urlsplit(answer.headers["Location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == CALLBACK
    return {name: values[0] for name, values in parse_qs(target.query).items()}


def refused(answer: httpx.Response, status: int, error: str) -> bool:
    """Whether an answer is an error as Logto writes it."""
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, error), answer.text
    return bool(body["error_description"] and body["code"] == f"oidc.{error}" and body["message"])


# What the provider says about itself


def test_discovery_names_the_endpoints_of_logto(browser: Browser) -> None:
    issuer = f"{browser.logto.endpoint}/oidc"
    document = browser.http.get("/oidc/.well-known/openid-configuration").json()
    assert document["issuer"] == issuer
    assert document["authorization_endpoint"] == f"{issuer}/auth"
    assert document["token_endpoint"] == f"{issuer}/token"
    assert document["userinfo_endpoint"] == f"{issuer}/me"
    assert document["jwks_uri"] == f"{issuer}/jwks"
    assert document["end_session_endpoint"] == f"{issuer}/session/end"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["id_token_signing_alg_values_supported"] == ["ES384"]


def test_the_published_key_is_public(browser: Browser) -> None:
    (key,) = browser.http.get("/oidc/jwks").json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-384", "ES384", "sig")
    assert key["kid"]
    assert "d" not in key


def test_the_sign_in_experience_is_public_and_offers_microsoft(browser: Browser) -> None:
    experience = browser.http.get("/api/.well-known/sign-in-exp").json()
    assert experience["socialSignInConnectorTargets"] == ["azuread"]
    assert [connector["target"] for connector in experience["socialConnectors"]] == ["azuread"]
    assert {"signIn", "signUp"} <= experience.keys()


def test_without_the_connector_microsoft_is_not_offered(browser: Browser) -> None:
    browser.logto.sign_in_experience["socialSignInConnectorTargets"] = []
    page = browser.authorize(direct_sign_in="social:azuread").headers["Location"]
    assert urlsplit(page).path == "/sign-in"
    assert "Microsoft" not in browser.http.get(page).text


# Signing in


def test_an_unknown_app_gets_a_400_and_no_redirect(browser: Browser) -> None:
    assert refused(browser.authorize(client_id="nobody"), 400, "invalid_client")


def test_an_unregistered_redirect_uri_gets_a_400_and_no_redirect(browser: Browser) -> None:
    answer = browser.authorize(redirect_uri=f"{CALLBACK}/")
    assert refused(answer, 400, "invalid_redirect_uri")


def test_the_registration_can_change_while_it_runs(browser: Browser) -> None:
    browser.logto.application.redirect_uris.append("http://localhost:3000/other")
    assert browser.authorize(redirect_uri="http://localhost:3000/other").is_redirect


def test_a_person_who_signs_in_comes_back_with_code_state_and_issuer(browser: Browser) -> None:
    answer = browser.choose(browser.interaction(), user="alice")
    came_back = query(answer)
    assert came_back.keys() == {"code", "state", "iss"}
    assert came_back["state"] == "the-state"
    assert came_back["iss"] == f"{browser.logto.endpoint}/oidc"


def test_a_person_who_cancels_comes_back_with_access_denied(browser: Browser) -> None:
    came_back = query(browser.choose(browser.interaction(), cancel="1"))
    assert came_back["error"] == "access_denied"
    assert came_back.keys() == {"error", "error_description", "state", "iss"}


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        pytest.param({"code_challenge": None}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain PKCE"),
        pytest.param({"code_challenge_method": None}, "invalid_request", id="no method"),
        pytest.param({"prompt": "select_account"}, "invalid_request", id="select_account"),
        pytest.param({"prompt": "none"}, "login_required", id="nobody there"),
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"resource": "https://unknown.example"}, "invalid_target", id="resource"),
    ],
)
def test_what_logto_refuses_goes_back_to_the_app(
    browser: Browser, parameters: dict[str, Any], error: str
) -> None:
    came_back = query(browser.authorize(**parameters))
    assert came_back["error"] == error
    assert came_back["state"] == "the-state"


@pytest.mark.parametrize(
    ("parameters", "path", "text"),
    [
        ({}, "/sign-in", "Sign in to"),
        ({"first_screen": "sign_in"}, "/sign-in", "Sign in to"),
        ({"first_screen": "register"}, "/register", "Create an account"),
        ({"direct_sign_in": "social:azuread"}, "/direct/social:azuread", "Microsoft (simulated)"),
        ({"direct_sign_in": "social:unknown"}, "/sign-in", "Sign in to"),
    ],
)
def test_the_first_page_is_the_one_asked_for(
    browser: Browser, parameters: dict[str, str], path: str, text: str
) -> None:
    target = browser.authorize(**parameters).headers["Location"]
    assert urlsplit(target).path == path
    page = browser.http.get(target)
    assert f"{text} " in page.text or f"{text}<" in page.text
    assert "not the real Logto" in page.text


def test_the_page_names_the_app_the_people_and_the_language_asked_for(browser: Browser) -> None:
    browser.logto.application.name = "Tom & Jerry's <Books>"
    page = browser.http.get(browser.authorize(ui_locales="ja fr").headers["Location"]).text
    assert "would speak ja fr," in page
    assert "Tom &amp; Jerry&#39;s &lt;Books&gt;" in page
    assert {"alice", "bob", "carol", "misaki"} < browser.logto.users.keys()
    assert "山田 美咲" in page
    assert 'value="alice"' in page


def test_a_language_cannot_carry_markup(browser: Browser) -> None:
    page = browser.http.get(browser.authorize(ui_locales='"><script>').headers["Location"]).text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_login_hint_brings_the_person_forward(browser: Browser) -> None:
    page = browser.http.get(browser.authorize(login_hint="bob@example.com").headers["Location"])
    assert 'value="bob" autofocus' in page.text
    assert page.text.count("autofocus") == 1


def test_a_new_person_can_register(browser: Browser) -> None:
    interaction = browser.interaction(first_screen="register")
    answer = browser.choose(interaction, new_user="Grace Hopper", email="grace@example.com")
    tokens = browser.exchange(query(answer)["code"]).json()
    claims = browser.claims(tokens["id_token"], APP)
    assert (claims["name"], claims["username"]) == ("Grace Hopper", "grace_hopper")
    assert claims["email"] == "grace@example.com"
    assert browser.logto.users["grace_hopper"].id == claims["sub"]


def test_two_people_of_one_name_get_two_accounts(browser: Browser) -> None:
    for _ in range(2):
        browser.choose(browser.interaction(prompt="login"), new_user="海")
    names = [user.username for user in browser.logto.users.values() if user.name == "海"]
    assert len(set(names)) == 2


def test_microsoft_brings_a_person_without_an_email_and_a_username(browser: Browser) -> None:
    answer = browser.choose(browser.interaction(), connector="azuread")
    claims = browser.claims(browser.exchange(query(answer)["code"]).json()["id_token"], APP)
    assert claims["name"]
    assert claims["email"] is None
    assert claims["email_verified"] is False
    assert claims["username"] is None


def test_two_tabs_sign_in_independently(browser: Browser) -> None:
    first = browser.interaction(state="first", prompt="login")
    second = browser.interaction(state="second", prompt="login")
    assert query(browser.choose(first, user="alice"))["state"] == "first"
    assert query(browser.choose(second, user="bob"))["state"] == "second"


def test_a_finished_sign_in_cannot_be_sent_again(browser: Browser) -> None:
    interaction = browser.interaction()
    browser.choose(interaction, user="alice")
    answer = browser.choose(interaction, user="alice")
    assert answer.status_code == 400
    assert "This sign-in has expired" in answer.text


def test_a_second_sign_in_in_the_browser_goes_straight_through(browser: Browser) -> None:
    browser.sign_in("bob")
    tokens = browser.exchange(query(browser.authorize())["code"]).json()
    assert browser.claims(tokens["id_token"], APP)["username"] == "bob"


def test_another_browser_and_prompt_login_are_asked_who_it_is(browser: Browser) -> None:
    browser.sign_in("bob")
    assert browser.interaction(prompt="login")
    assert Browser(browser.logto).interaction()


# Tokens


def test_the_id_token_is_signed_and_filled_as_logtos_is(browser: Browser) -> None:
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


def test_what_is_not_set_is_null(browser: Browser) -> None:
    claims = browser.claims(browser.sign_in("carol")["id_token"], APP)
    assert claims["email"] is None
    assert claims["email_verified"] is False
    claims = browser.claims(browser.sign_in("bob", prompt="login consent")["id_token"], APP)
    assert claims["picture"] is None


def test_claims_come_only_with_their_scope(browser: Browser) -> None:
    claims = browser.claims(browser.sign_in(scope="openid")["id_token"], APP)
    assert claims.keys() == {"sub", "aud", "iss", "iat", "exp"}


def test_a_nonce_comes_back_if_one_was_sent(browser: Browser) -> None:
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


def test_userinfo_refuses_what_it_does_not_know(browser: Browser) -> None:
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


def test_a_code_used_twice_revokes_what_it_gave(browser: Browser) -> None:
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
        answer = browser.http.post("/oidc/token", data=form, auth=(APP, secret))
        assert refused(answer, 401, "invalid_client")


def test_the_secret_may_come_as_basic_authentication(browser: Browser) -> None:
    form = {
        "grant_type": "authorization_code",
        "code": browser.code(),
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    answer = browser.http.post("/oidc/token", data=form, auth=(APP, "any-text"))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_made_up_code_tells_whether_the_secret_is_right(browser: Browser) -> None:
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


def test_scopes_that_were_not_asked_for_are_not_given(browser: Browser) -> None:
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
        answer = browser.refresh(tokens["refresh_token"], organization_id="bookclub0001")
        claims = browser.claims(
            answer.json()["access_token"], "urn:logto:organization:bookclub0001"
        )
        assert claims["scope"] == granted
        assert browser.claims(tokens["id_token"], APP)["organizations"] == ["bookclub0001"]
    tokens = browser.sign_in("carol", scope=scope, prompt="login consent")
    answer = browser.refresh(tokens["refresh_token"], organization_id="bookclub0001")
    assert refused(answer, 403, "access_denied")


def test_an_organization_token_needs_the_organizations_scope(browser: Browser) -> None:
    answer = browser.refresh(browser.sign_in()["refresh_token"], organization_id="bookclub0001")
    assert refused(answer, 403, "insufficient_scope")


def test_a_resource_token_can_be_for_an_organization(browser: Browser) -> None:
    scope = f"{SCOPE} urn:logto:scope:organizations read:books write:books"
    tokens = browser.sign_in("bob", scope=scope, resource=[ORGANIZATIONS, API])
    answer = browser.refresh(tokens["refresh_token"], resource=API, organization_id="bookclub0001")
    claims = browser.claims(answer.json()["access_token"], API)
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


def test_a_refresh_may_ask_for_less_but_not_for_more(browser: Browser) -> None:
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


def test_after_a_rotation_the_old_token_works_a_moment_more(rotating: Browser) -> None:
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


def test_a_suspended_user_is_out_at_the_next_refresh(browser: Browser) -> None:
    alice, bob = browser.sign_in(), Browser(browser.logto).sign_in("bob")
    browser.logto.suspend("alice")
    assert refused(browser.refresh(alice["refresh_token"]), 400, "invalid_grant")
    assert refused(browser.userinfo(alice["access_token"]), 401, "invalid_token")
    assert browser.refresh(bob["refresh_token"]).status_code == 200
    answer = browser.choose(browser.interaction(), user="alice")
    assert answer.status_code == 422
    assert "suspended" in answer.text


# Signing out


def end(browser: Browser, **parameters: str) -> httpx.Response:
    return browser.http.get("/oidc/session/end", params=parameters)


def test_signing_out_ends_at_the_registered_address(browser: Browser) -> None:
    browser.sign_in()
    answer = end(browser, client_id=APP, post_logout_redirect_uri=HOME)
    assert answer.headers["Location"] == HOME
    assert browser.interaction(), "the next sign-in asks again"


def test_an_unregistered_address_is_refused_and_the_user_stays_signed_in(browser: Browser) -> None:
    browser.sign_in()
    answer = end(browser, client_id=APP, post_logout_redirect_uri="https://evil.example/")
    assert refused(answer, 400, "invalid_request")
    assert "code" in query(browser.authorize())


def test_an_unknown_app_cannot_sign_anybody_out(browser: Browser) -> None:
    browser.sign_in()
    answer = end(browser, client_id="nobody", post_logout_redirect_uri=HOME)
    assert refused(answer, 400, "invalid_client")
    assert "code" in query(browser.authorize())


def test_signing_out_without_an_address_ends_on_a_page(browser: Browser) -> None:
    browser.sign_in()
    answer = end(browser, client_id=APP)
    assert (answer.status_code, "signed out" in answer.text) == (200, True)
    assert browser.interaction()


def test_a_refresh_token_outlives_the_session_at_logto(browser: Browser) -> None:
    offline = browser.sign_in()
    online = browser.sign_in(prompt="login")
    end(browser, client_id=APP, post_logout_redirect_uri=HOME)
    assert browser.refresh(offline["refresh_token"]).status_code == 200
    assert refused(browser.userinfo(online["access_token"]), 401, "invalid_token")


def test_a_browser_has_one_session(browser: Browser) -> None:
    browser.sign_in("alice")
    (session,) = browser.logto.sessions.values()
    browser.sign_in("alice", prompt="login")
    assert list(browser.logto.sessions.values()) == [session]
    browser.sign_in("bob", prompt="login")
    (other,) = browser.logto.sessions.values()
    assert (other.user.username, other.sid != session.sid) == ("bob", True)


class Receiver(HTTPServer):
    """The app's end of the back channel."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Inbox)
        self.address = f"http://localhost:{self.server_port}/backchannel-logout"
        self.received: list[tuple[str, str]] = []
        self.arrived = threading.Event()

    def logout_token(self) -> str:
        assert self.arrived.wait(5), "no logout token came"
        ((content_type, body),) = self.received
        assert content_type == "application/x-www-form-urlencoded"
        ((name, (token,)),) = parse_qs(body).items()
        assert name == "logout_token"
        return token


class Inbox(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.received.append((self.headers["Content-Type"], body))
        self.send_response(200)
        self.end_headers()
        self.server.arrived.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def told(receiver: Receiver) -> Iterator[Browser]:
    """A browser at a Logto that tells the app when somebody signs out."""
    with start(backchannel_logout_uri=receiver.address) as logto:
        yield Browser(logto)


def test_signing_out_at_logto_reaches_the_app(told: Browser, receiver: Receiver) -> None:
    id_token = told.claims(told.sign_in()["id_token"], APP)
    end(told, client_id=APP, post_logout_redirect_uri=HOME)
    token = receiver.logout_token()
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("ES384", "logout+jwt")
    claims = told.claims(token, APP)
    assert claims.keys() == {"iss", "sub", "aud", "iat", "exp", "jti", "events", "sid"}
    assert claims["exp"] == claims["iat"] + 120
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert (claims["sub"], claims["sid"]) == (id_token["sub"], id_token["sid"])


def test_without_session_required_there_is_no_sid(told: Browser, receiver: Receiver) -> None:
    told.logto.application.backchannel_logout_session_required = False
    assert "sid" not in told.claims(told.sign_in()["id_token"], APP)
    end(told, client_id=APP, post_logout_redirect_uri=HOME)
    assert "sid" not in told.claims(receiver.logout_token(), APP)


def test_a_session_ended_on_its_own_page_reaches_the_app(told: Browser, receiver: Receiver) -> None:
    told.sign_in("bob")
    page = told.http.get("/").text
    assert "Bob Baker" in page
    (key,) = told.logto.sessions
    told.http.post("/", data={"key": key})
    claims = told.claims(receiver.logout_token(), APP)
    assert claims["sub"] == told.logto.users["bob"].id
    assert told.interaction()


def test_a_suspension_does_not_reach_the_app(told: Browser, receiver: Receiver) -> None:
    told.sign_in()
    told.http.post("/", data={"suspend": "alice"})
    assert told.logto.users["alice"].suspended
    assert told.interaction(), "the session at Logto is over"
    assert not receiver.arrived.wait(0.3)
    told.http.post("/", data={"lift": "alice"})
    assert told.sign_in()


def test_an_app_that_is_down_does_not_hold_up_the_sign_out(receiver: Receiver) -> None:
    dead = f"http://localhost:{free_port()}/"
    with start(backchannel_logout_uri=dead) as logto:
        browser = Browser(logto)
        browser.sign_in()
        answer = end(browser, client_id=APP, post_logout_redirect_uri=HOME)
        assert answer.headers["Location"] == HOME


# What tests look at, and who may ask


def test_it_remembers_every_secret_and_every_request(browser: Browser) -> None:
    code = browser.code(resource=API)
    tokens = browser.exchange(code).json()
    jwt_token = browser.refresh(tokens["refresh_token"], resource=API).json()["access_token"]
    secrets = [code, tokens["access_token"], tokens["refresh_token"], tokens["id_token"], jwt_token]
    assert set(secrets) < set(browser.logto.issued)
    assert browser.logto.requests.count(("POST", "/oidc/token")) == 2
    assert ("GET", "/oidc/auth") in browser.logto.requests


def test_pictures_come_from_itself(browser: Browser) -> None:
    picture = browser.claims(browser.sign_in()["id_token"], APP)["picture"]
    answer = httpx.get(picture)
    assert answer.headers["Content-Type"].startswith("image/svg+xml")
    assert "<svg" in answer.text
    assert browser.http.get("/avatars/nobody.svg").status_code == 404


def test_users_keep_their_ids_over_a_restart(logto: Any) -> None:
    with start() as another:
        ids = {name: user.id for name, user in logto.users.items()}
        assert ids == {name: user.id for name, user in another.users.items()}
        assert all(len(id) == 12 and id.isalnum() and id.islower() for id in ids.values())


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.7:3001"])
def test_a_foreign_host_header_is_refused(browser: Browser, host: str) -> None:
    answer = browser.http.get("/oidc/jwks", headers={"Host": host})
    assert answer.status_code == 400
    assert "keys" not in answer.text


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_names_of_this_machine_are_answered(logto: Any, name: str) -> None:
    assert httpx.get(f"http://{name}:{logto.port}/oidc/jwks").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.com"])  # noqa: S104
def test_it_listens_on_no_other_address(host: str) -> None:
    with pytest.raises(ValueError, match="localhost only"):
        start(host=host)


def test_its_port_is_free_again_after_it_stopped() -> None:
    with start() as logto:
        assert is_taken(logto.port)
        with pytest.raises(OSError, match="taken"):
            start(port=logto.port)
    assert not is_taken(logto.port)
    start(port=logto.port).stop()


# The SDK


class Memory(Storage):
    """The SDK's storage, as a dictionary of its own."""

    def __init__(self) -> None:
        self.data: dict[str, str | None] = {}

    def get(self, key: str) -> str | None:
        return self.data.get(key)

    def set(self, key: str, value: str | None) -> None:
        self.data[key] = value

    def delete(self, key: str) -> None:
        self.data.pop(key, None)


def test_the_sdk_signs_in_refreshes_and_reads_userinfo(browser: Browser) -> None:
    logto, memory = browser.logto, Memory()
    config = LogtoConfig(
        endpoint=logto.endpoint,
        appId=APP,
        appSecret="any-text",
        resources=[API],
        scopes=[UserInfoScope.email, UserInfoScope.organizations, "read:books", "write:books"],
    )
    client = LogtoClient(config, memory)

    async def journey() -> None:
        page = browser.http.get(await client.signIn(CALLBACK), follow_redirects=True)
        answer = browser.choose(page.url.params["interaction"], user="bob")
        await client.handleSignInCallback(answer.headers["Location"])
        assert client.getIdTokenClaims().name == "Bob Baker"

        info = await client.fetchUserInfo()
        assert (info.username, info.email, info.picture) == ("bob", "bob@example.com", None)

        assert (await client.getAccessTokenClaims(API)).scope == "read:books"
        organization = await client.getOrganizationTokenClaims("bookclub0001")
        assert organization.aud == "urn:logto:organization:bookclub0001"

        first = await client.getAccessToken()
        held = json.loads(str(memory.data["accessTokenMap"]))
        held["x"][""]["expiresAt"] = 0
        memory.set("accessTokenMap", json.dumps(held))
        assert await client.getAccessToken() not in (None, first)

        sign_out = browser.http.get(await client.signOut(HOME))
        assert sign_out.headers["Location"] == HOME

    asyncio.run(journey())
    assert ("GET", "/oidc/me") in logto.requests


def test_the_sdk_sees_a_suspension_when_it_refreshes(browser: Browser) -> None:
    config = LogtoConfig(endpoint=browser.logto.endpoint, appId=APP, appSecret="any-text")
    memory = Memory()
    client = LogtoClient(config, memory)

    async def journey() -> None:
        page = browser.http.get(await client.signIn(CALLBACK), follow_redirects=True)
        answer = browser.choose(page.url.params["interaction"], user="alice")
        await client.handleSignInCallback(answer.headers["Location"])
        browser.logto.suspend("alice")
        memory.delete("accessTokenMap")
        with pytest.raises(LogtoException, match="invalid_grant"):
            await client.getAccessToken()

    asyncio.run(journey())


# The commands

FRAMEWORKS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"{name} processes"))
    for name in ("flask", "quart")
]


@pytest.fixture
def ports() -> list[str]:
    return ["--port", str(free_port()), "--logto-port", str(free_port())]


def sign_in_through(port: str) -> str:
    """The home page of the app on this port, after Alice has signed in there."""
    with httpx.Client(follow_redirects=True, timeout=20) as browser:
        page = browser.get(f"http://localhost:{port}/sign-in")
        form = {"interaction": page.url.params["interaction"], "user": "alice"}
        return browser.post(page.url.join("/sign-in"), data=form).text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_uses_the_local_logto_whatever_env_names(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(
        framework=framework,
        project_name="Tom's Books",
        logto_endpoint="https://books.logto.invalid",
        logto_app_id="realapp",
        callback_url="https://books.example/auth/callback",
    )
    with project.start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        assert f"http://localhost:{ports[1]}" in process.output
        assert "not the real Logto" in process.output
        sign_in = httpx.get(f"http://localhost:{ports[1]}/sign-in", timeout=20)
        page = httpx.get(sign_in.headers["Location"], follow_redirects=True).text
        assert "Sign in to Tom&#39;s Books" in page
        assert "Alice Archer" in sign_in_through(ports[1])
        process.press_ctrl_c()
        assert process.exit_code() == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_python_m_dev_takes_the_ports_that_env_names(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(
        framework=framework,
        callback_url=f"http://127.0.0.1:{ports[1]}/callback",
        logto_endpoint=f"http://localhost:{ports[3]}",
        api_resource=API,
    )
    assert f"Open <http://localhost:{ports[1]}>" in project.read("README.md")
    with project.start("python", "-m", "dev") as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        assert "Alice Archer" in sign_in_through(ports[1])
        token = project.run("python", "-m", "dev.access_token", "--scope", "read:books").stdout
        books = httpx.get(
            f"http://localhost:{ports[1]}/api/books",
            headers={"Authorization": f"Bearer {token.strip()}"},
        )
        assert books.status_code == 200


def test_the_app_and_the_local_logto_cannot_have_one_port(bake: Bake, ports: list[str]) -> None:
    same = ["--port", ports[1], "--logto-port", ports[1]]
    done = bake().attempt("python", "-m", "dev", *same)
    assert done.returncode == 2
    assert ports[1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_python_m_dev_alone_ends_the_app_too(
    bake: Bake, framework: str, ports: list[str], sent: signal.Signals
) -> None:
    with bake(framework=framework).start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        process.send(sent)
        assert process.exit_code() == 0
        assert not is_taken(int(ports[1]))
        assert "Traceback" not in process.output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_exit_code_of_an_app_that_cannot_start_is_passed_on(
    bake: Bake, framework: str, ports: list[str]
) -> None:
    project = bake(framework=framework)
    done = project.attempt("python", "-m", "dev", *ports, SESSION_URL="nonsense")
    assert done.returncode == 1
    assert "SESSION_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_saved_file_starts_the_app_again_also_after_a_mistake(
    bake: Bake, framework: str, ports: list[str], tmp_path: Path
) -> None:
    project = BakedProject(tmp_path / "project", {})
    shutil.copytree(bake(framework=framework).path, project.path)
    pages = project.path / "app/pages.py"
    good = pages.read_text("utf-8")
    with project.start("python", "-m", "dev", *ports) as process:
        process.wait_for(f"http://localhost:{ports[1]}/")
        pages.write_text(f"{good}\ndef broken(:\n", "utf-8")
        process.wait_for_text("SyntaxError")
        # What is held at the local Logto outlives the app.
        assert is_taken(int(ports[3]))
        pages.write_text(
            f"{good}\n\n@pages.get('/new')\ndef new() -> str:\n    return 'new'\n", "utf-8"
        )
        process.wait_for(f"http://localhost:{ports[1]}/new")
        assert httpx.get(f"http://localhost:{ports[1]}/new").text == "new"


def test_the_local_logto_runs_alone(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / ".env").write_text(
        "LOGTO_APP_ID=from-file\nLOGTO_CALLBACK_URL=overridden\n", "utf-8"
    )
    variables = {
        "LOGTO_CALLBACK_URL": CALLBACK,
        "LOGTO_API_RESOURCE": API,
        "PYTHONPATH": str(TEMPLATE),
    }
    command = [sys.executable, "-m", "dev.local_logto", "--port", str(port)]
    with running(command, tmp_path, environment(**variables)) as process:
        endpoint = f"http://localhost:{port}"
        process.wait_for(f"{endpoint}/oidc/jwks")
        asked = {
            "client_id": "from-file",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": API,
        }
        page = httpx.get(f"{endpoint}/oidc/auth", params=asked, follow_redirects=True)
        assert "Sign in to from-file" in page.text
        asked = {"client_id": "from-file", "post_logout_redirect_uri": HOME}
        answer = httpx.get(f"{endpoint}/oidc/session/end", params=asked)
        assert answer.headers["Location"] == HOME
        process.press_ctrl_c()
        assert process.exit_code() == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [(["--port", "{taken}"], "--port"), (["--host", "192.168.0.7"], "localhost")],
)
def test_it_says_in_a_sentence_why_it_does_not_start(
    logto: Any, tmp_path: Path, arguments: list[str], way_out: str
) -> None:
    command = [argument.format(taken=logto.port) for argument in arguments]
    project = BakedProject(tmp_path, {})
    done = project.attempt("python", "-m", "dev.local_logto", *command, PYTHONPATH=str(TEMPLATE))
    assert done.returncode == 1
    assert way_out in done.stderr
    assert done.stderr.count("\n") == 1
