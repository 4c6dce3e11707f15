"""Which ID tokens sign a user in, and which keep a session (OpenID Connect Core, 3.1.3.7, 12.2)."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import jwt
import pytest
from sites import Fault, FaultyLogto, Site, assert_says, both_frameworks, changed, query
from token_faults import ALICE, DISCOVERY, Sites, id_token, with_expired_token

Sign = Callable[[FaultyLogto, dict[str, Any]], str]
SURROGATE = "\ud800"
"""Half of a surrogate pair: JSON can encode it, and UTF-8 cannot."""


def with_claims(**changes: Any) -> Sign:
    """Sign an ID token with these claims. A change to None removes the claim."""

    def sign(logto: FaultyLogto, claims: dict[str, Any]) -> str:
        sent = {name: value for name, value in (claims | changes).items() if value is not None}
        return logto.signed({}, sent)

    return sign


def with_header(**header: Any) -> Sign:
    """Sign the valid claims under this header."""
    return lambda logto, claims: logto.signed(header, claims)


ACCEPTED: dict[str, Sign] = {
    "one audience in a list": with_claims(aud=["test-app"]),
    "the app as authorized party": with_claims(azp="test-app"),
    "typ JWT": with_header(typ="JWT"),
    "no sid": with_claims(sid=None),
    "no name": with_claims(name=None, username=None, email=None, picture=None),
    "null as name": lambda logto, claims: logto.signed({}, claims | {"name": None}),
    "claims of other kinds": with_claims(address={"country": "NZ"}, age=5),
    "roles": with_claims(roles=["admin"], organizations=["a1"], organization_roles=["a1:editor"]),
    "null as roles": lambda logto, claims: logto.signed({}, claims | {"roles": None}),
}
REFUSED: dict[str, Sign] = {
    "two audiences": with_claims(aud=["test-app", "other-app"]),
    "the app twice": with_claims(aud=["test-app", "test-app"]),
    "another authorized party": with_claims(azp="other-app"),
    "an authorized party that is no text": with_claims(azp=["test-app"]),
    "two audiences and the app as authorized party": with_claims(
        aud=["test-app", "other-app"], azp="test-app"
    ),
    "no nonce": with_claims(nonce=None),
    "an empty nonce": with_claims(nonce=""),
    "another nonce": with_claims(nonce="n" * 22),
    "the nonce in a list": lambda logto, claims: logto.signed(
        {}, claims | {"nonce": [claims["nonce"]]}
    ),
    "an access token's typ": with_header(typ="at+jwt"),
    "a logout token's typ": with_header(typ="logout+jwt"),
    "the long form of a typ": with_header(typ="application/at+jwt"),
    "a number as session": with_claims(sid=7),
    "exp as text": lambda logto, claims: logto.signed({}, claims | {"exp": str(claims["exp"])}),
    "iat as text": lambda logto, claims: logto.signed({}, claims | {"iat": str(claims["iat"])}),
    "nbf as text": with_claims(nbf="1"),
    **{f"a number as {name}": with_claims(**{name: 5}) for name in ("name", "username")},
    **{f"a list as {name}": with_claims(**{name: ["a"]}) for name in ("email", "picture")},
    **{
        f"{kind} as {name}": with_claims(**{name: value})
        for name in ("roles", "organizations", "organization_roles")
        for kind, value in (("a text", "admin"), ("an object", {"admin": 1}), ("a list", [["a"]]))
    },
    "an object as name": with_claims(name={"first": "Alice"}),
    "true as picture": with_claims(picture=True),
    **{
        f"a lone surrogate in {name}": with_claims(**{name: SURROGATE})
        for name in ("sub", "sid", "name")
    },
    "a lone surrogate in another claim": with_claims(address={"country": [SURROGATE]}),
}


def fault_of(site: Site, sign: Sign) -> Fault:
    return id_token(lambda claims: sign(site.logto, claims))


@both_frameworks
@pytest.mark.parametrize("sign", ACCEPTED.values(), ids=ACCEPTED)
def test_an_id_token_for_this_app_signs_in(sites: Sites, framework: str, sign: Sign) -> None:
    site = sites(framework)
    browser = site.browser()
    with site.logto.fault("/oidc/token", fault_of(site, sign)):
        assert browser.sign_in().headers["Location"] == "/"
    assert browser.is_signed_in
    browser.post("/sign-out")


@both_frameworks
@pytest.mark.parametrize("sign", REFUSED.values(), ids=REFUSED)
def test_an_id_token_that_breaks_a_rule_signs_nobody_in(
    sites: Sites, framework: str, sign: Sign
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    with site.log_lines() as lines, site.logto.fault("/oidc/token", fault_of(site, sign)):
        assert_says(browser.get(callback), 400, "This sign-in is not valid", "/sign-in?next=/")
    assert any("Sign-in refused" in line for line in lines)
    assert not browser.is_signed_in


@both_frameworks
def test_each_sign_in_has_a_different_nonce(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    nonces = {query(browser.start())["nonce"] for _ in range(3)}
    assert len(nonces) == 3
    assert min(map(len, nonces)) >= 22


def with_at_hash(site: Site, of: Callable[[str], str]) -> Fault:
    """Respond with an ID token whose `at_hash` is the result of `of(access_token)`."""

    def change(tokens: Any) -> Any:
        claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
        hashed = of(tokens["access_token"])
        return tokens | {"id_token": site.logto.signed({}, claims | {"at_hash": hashed})}

    return changed(change)


def at_hash(access_token: str) -> str:
    """Return the left half of the digest that ES384 uses (OpenID Connect Core, 3.1.3.6)."""
    half = hashlib.sha384(access_token.encode()).digest()[:24]
    return urlsafe_b64encode(half).decode().rstrip("=")


@both_frameworks
def test_an_at_hash_must_match_the_access_token(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    wrong: list[Callable[[str], Any]] = [
        lambda _: at_hash("another access token"),
        lambda access_token: at_hash(access_token)[:-1],
        lambda _: "",
        lambda access_token: [at_hash(access_token)],
        lambda _: SURROGATE,
    ]
    for of in wrong:
        with site.logto.fault("/oidc/token", with_at_hash(site, of)):
            assert browser.sign_in().status_code == 400
        assert not browser.is_signed_in
    with site.logto.fault("/oidc/token", with_at_hash(site, at_hash)):
        assert browser.sign_in().headers["Location"] == "/"


# The `iss` of a callback (RFC 9207)


@contextmanager
def announcing(site: Site, iss: bool | None) -> Iterator[None]:
    """Let discovery announce whether callbacks have an `iss`, and let the app read it again."""
    name = "authorization_response_iss_parameter_supported"

    def change(found: Any) -> Any:
        return {k: v for k, v in found.items() if k != name} | ({} if iss is None else {name: iss})

    def read_again() -> None:
        # At a sign-in with an unknown key, the app fetches discovery and the keys again.
        site.logto.new_key()
        assert site.browser().sign_in().headers["Location"] == "/"

    with site.logto.fault(DISCOVERY, changed(change)):
        read_again()
        yield
    read_again()


@both_frameworks
def test_a_callback_without_iss_is_refused_if_logto_announces_one(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = httpx2.URL(browser.answer(browser.start()))
    before = site.logto.calls("/oidc/token")
    response = browser.get(str(callback.copy_remove_param("iss")))
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/")
    assert not browser.is_signed_in
    # The app did not send the code to Logto.
    assert site.logto.calls("/oidc/token") == before


@both_frameworks
@pytest.mark.parametrize("announced", [None, False])
def test_a_callback_needs_no_iss_if_logto_announces_none(
    sites: Sites, framework: str, announced: bool | None
) -> None:
    site = sites(framework)
    with announcing(site, announced):
        browser = site.browser()
        callback = httpx2.URL(browser.answer(browser.start()))
        response = browser.get(str(callback.copy_remove_param("iss")))
        assert response.headers["Location"] == "/"
        callback = httpx2.URL(browser.answer(browser.start()))
        wrong = callback.copy_set_param("iss", "https://evil.example/oidc")
        assert browser.get(str(wrong)).status_code == 400


# Refreshed ID tokens


@both_frameworks
@pytest.mark.parametrize(
    "name",
    [
        "two audiences",
        "another authorized party",
        "another nonce",
        "an access token's typ",
        "a number as name",
        "a lone surrogate in name",
    ],
)
def test_a_refreshed_id_token_that_breaks_a_rule_ends_the_session(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    with site.logto.fault("/oidc/token", fault_of(site, REFUSED[name])):
        response = browser.get("/test/guarded")
    assert response.headers["Location"] == "/sign-in?next=/test/guarded"
    assert not browser.is_signed_in


@both_frameworks
@pytest.mark.parametrize("sign", [with_claims(), with_claims(nonce=None)], ids=["the same", "none"])
def test_a_refreshed_id_token_with_the_same_nonce_or_none_keeps_the_session(
    sites: Sites, framework: str, sign: Sign
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    with site.logto.expired_tokens(), site.logto.fault("/oidc/token", fault_of(site, sign)):
        # The second refresh compares with the first refreshed token, with or without a nonce.
        for _ in range(2):
            assert browser.get("/test/guarded").text.startswith(ALICE)
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert browser.is_signed_in


@both_frameworks
def test_a_claim_that_a_refreshed_id_token_lacks_is_removed(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    assert "<bdi>Alice Archer</bdi>" in browser.get("/").text
    with site.logto.fault("/oidc/token", fault_of(site, with_claims(name=None))):
        assert browser.get("/test/guarded").text.startswith(ALICE)
    assert "<bdi>alice</bdi>" in browser.get("/").text


# Strange values in userinfo and ID tokens


def adding(claims: dict[str, Any]) -> Fault:
    """Respond as Logto does, and replace these claims."""
    return changed(lambda known: known | claims)


@both_frameworks
def test_no_claim_of_userinfo_causes_an_error_of_the_app(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    for changes in (
        {"name": SURROGATE},
        {"sub": SURROGATE},
        {"custom_data": {"a": [SURROGATE]}},
        {"email": 5},
        {"created_at": "yesterday"},
        {"updated_at": SURROGATE},
        {"created_at": 10**30},
        {"updated_at": -1e300},
        {"created_at": [5]},
        {"created_at": True},
    ):
        with site.logto.fault("/oidc/me", adding(changes)):
            response = browser.get("/profile")
        assert response.status_code == 200, changes
        assert "Alice Archer" in response.text
    assert browser.is_signed_in


@both_frameworks
def test_no_time_in_an_id_token_causes_an_error_of_the_app(sites: Sites, framework: str) -> None:
    site = sites(framework)
    sign = with_claims(created_at="yesterday", updated_at=10**30)
    browser = site.browser()
    with site.logto.fault("/oidc/token", fault_of(site, sign)):
        browser.sign_in()
    with site.logto.fault("/oidc/me", adding({"email": 5})):
        response = browser.get("/profile")
    assert response.status_code == 200
    assert "Logto does not respond at the moment" in response.text
