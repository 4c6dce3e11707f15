"""The pages that a user sees when Logto fails, or when its responses are invalid."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from conftest import Bake
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey
from sites import (
    MARKER,
    UNAVAILABLE,
    Fault,
    FaultyLogto,
    Site,
    assert_says,
    both_frameworks,
    changed,
    fixed_response,
    oidc_error,
    query,
    serving,
    silent,
)

Sites = Callable[..., Site]

EACH_FAULT = pytest.mark.parametrize("fault", UNAVAILABLE.values(), ids=UNAVAILABLE)


@both_frameworks
@EACH_FAULT
def test_an_invalid_response_of_the_token_endpoint_makes_sign_in_unavailable(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    with site.logto.fault("/oidc/token", fault):
        response = browser.get(callback)
    assert_says(response, 503, "Sign-in is unavailable", retry="/sign-in?next=/profile")
    assert not browser.is_signed_in
    assert browser.sign_in("/sign-in?next=/profile").headers["Location"] == "/profile"


@both_frameworks
@EACH_FAULT
def test_keys_that_cannot_be_fetched_make_sign_in_unavailable(
    sites: Sites, framework: str, fault: Fault
) -> None:
    site = sites(framework)
    browser = site.browser()
    site.logto.new_key()
    callback = browser.answer(browser.start())
    with site.logto.fault("/oidc/jwks", fault):
        response = browser.get(callback)
    assert_says(response, 503, "Sign-in is unavailable", retry="/sign-in?next=/")
    assert browser.sign_in().status_code == 302


@both_frameworks
def test_without_discovery_sign_in_is_unavailable(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    discovery = "/oidc/.well-known/openid-configuration"
    other_issuer = changed(lambda document: document | {"issuer": "https://evil.example/oidc"})
    session_url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, session_url) as site:
        browser = site.browser()
        with site.logto.unreachable():
            response = browser.get("/sign-up?next=/profile")
            assert_says(response, 503, "Sign-in is unavailable", "/sign-up?next=/profile")
            assert "bookstore-session" not in response.headers.get("Set-Cookie", "")
        # `other_issuer` is there twice, because the app must not cache a refused document.
        for fault in (*UNAVAILABLE.values(), other_issuer, other_issuer):
            with site.logto.fault(discovery, fault):
                assert_says(browser.get("/sign-in"), 503, "Sign-in is unavailable", "/sign-in")
        with site.logto.fault(discovery, fixed_response("502 Bad Gateway", MARKER, "text/html")):
            response = browser.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
            title = "You are signed out here, but maybe not at Logto"
            assert_says(response, 503, title, "/sign-out")
        assert browser.sign_in().headers["Location"] == "/"


@both_frameworks
def test_not_every_client_sends_a_request_to_a_silent_logto(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    discovery = "/oidc/.well-known/openid-configuration"
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with (
        serving(bake(framework=framework), framework, url, TEST_RETRY="30") as site,
        site.logto.fault(discovery, silent),
    ):
        for _ in range(3):
            response = site.browser().get("/sign-in")
            assert_says(response, 503, "Sign-in is unavailable", "/sign-in")
        assert site.logto.calls(discovery) == 1


@both_frameworks
def test_a_wrong_secret_is_an_error_in_the_log(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    refusal = oidc_error("invalid_client", "401 Unauthorized")
    with site.log_lines() as lines, site.logto.fault("/oidc/token", refusal):
        assert_says(browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
    (line,) = [line for line in lines if "invalid_client" in line]
    assert "ERROR" in line
    assert "LOGTO_APP_SECRET" in line


def other_key() -> Any:
    return ECKey.generate_key("P-384", auto_kid=True)


def signed_with_public_key(logto: FaultyLogto, claims: dict[str, Any]) -> str:
    """Sign with the public key as an HMAC secret.

    A verifier that trusts the `alg` of the token accepts this signature.
    """
    header = {"alg": "HS256", "kid": logto.local.key.kid}
    signed = f"{encoded(header)}.{encoded(claims)}"
    signature = hmac.digest(logto.local.key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


Forgery = Callable[[FaultyLogto, dict[str, Any]], Any]

FORGED_ID_TOKENS: dict[str, Forgery] = {
    "other issuer": lambda logto, claims: logto.signed(
        {}, claims | {"iss": "https://evil.example"}
    ),
    "no issuer": lambda logto, claims: logto.signed({}, without(claims, "iss")),
    "other audience": lambda logto, claims: logto.signed({}, claims | {"aud": "other-app"}),
    "other audiences": lambda logto, claims: logto.signed({}, claims | {"aud": ["a", "b"]}),
    "no audience": lambda logto, claims: logto.signed({}, without(claims, "aud")),
    "expired": lambda logto, claims: logto.signed({}, claims | {"exp": time.time() - 60}),
    "no expiry": lambda logto, claims: logto.signed({}, without(claims, "exp")),
    "text as expiry": lambda logto, claims: logto.signed({}, claims | {"exp": "later"}),
    "infinite expiry": lambda logto, claims: logto.signed({}, claims | {"exp": float("inf")}),
    "no time of issue": lambda logto, claims: logto.signed({}, without(claims, "iat")),
    "issued tomorrow": lambda logto, claims: logto.signed(
        {}, claims | {"iat": time.time() + 86400}
    ),
    "no subject": lambda logto, claims: logto.signed({}, without(claims, "sub")),
    "empty subject": lambda logto, claims: logto.signed({}, claims | {"sub": ""}),
    "number as subject": lambda logto, claims: logto.signed({}, claims | {"sub": 7}),
    "other key": lambda logto, claims: logto.signed({}, claims, other_key()),
    "unknown key": lambda logto, claims: logto.signed({"kid": "unknown"}, claims, other_key()),
    "no kid": lambda logto, claims: logto.signed({"kid": ""}, claims),
    "alg none": lambda logto, claims: logto.signed({"alg": "none"}, claims),
    "alg none without kid": lambda logto, claims: logto.signed({"alg": "none", "kid": ""}, claims),
    "public key as secret": signed_with_public_key,
    "other algorithm": lambda logto, claims: jwt.encode(
        claims,
        ec.generate_private_key(ec.SECP256R1()),
        "ES256",
        headers={"kid": logto.local.key.kid},
    ),
    "RSA algorithm": lambda logto, claims: with_header(
        logto.signed({}, claims), {"alg": "RS256", "kid": logto.local.key.kid}
    ),
    "a list": lambda logto, claims: logto.signed({}, [claims]),
    "deep": lambda logto, claims: logto.signed({}, b"[" * 50_000),
    "not a token": lambda logto, claims: MARKER,
    "a number": lambda logto, claims: 7,
    "nothing": lambda logto, claims: None,
}


def without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


def encoded(part: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def with_header(token: str, header: dict[str, Any]) -> str:
    """Replace the header of a token, so that its signature does not match."""
    return ".".join([encoded(header), *token.split(".")[1:]])


@both_frameworks
@pytest.mark.parametrize("forge", FORGED_ID_TOKENS.values(), ids=FORGED_ID_TOKENS)
def test_an_invalid_id_token_signs_nobody_in(sites: Sites, framework: str, forge: Forgery) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    new_browser = site.browser()
    callback = new_browser.answer(new_browser.start("/sign-in?next=/profile"), user="bob")

    def forged(tokens: dict[str, Any]) -> dict[str, Any]:
        claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
        return tokens | {"id_token": forge(site.logto, claims)}

    with site.log_lines() as lines, site.logto.fault("/oidc/token", changed(forged)):
        response = new_browser.get(callback)
    if forge in (FORGED_ID_TOKENS["a number"], FORGED_ID_TOKENS["issued tomorrow"]):
        assert_says(response, 503, "Sign-in is unavailable", "/sign-in?next=/profile")
    else:
        assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/profile")
        assert any("Sign-in refused: " in line for line in lines)
    assert not new_browser.is_signed_in
    assert browser.is_signed_in


@both_frameworks
def test_the_tokens_of_an_incomplete_response_are_not_logged(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    incomplete = changed(lambda tokens: without(tokens, "expires_in"))
    with site.log_lines() as lines, site.logto.fault("/oidc/token", incomplete):
        assert_says(browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
    log = "\n".join(lines)
    assert "expires_in" in log
    assert not [token for token in site.logto.local.issued if token[:6] in log]


@both_frameworks
@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        ("access_denied", 200, "Sign-in was cancelled"),
        ("server_error", 503, "Sign-in is unavailable"),
        ("temporarily_unavailable", 503, "Sign-in is unavailable"),
        (f"{MARKER}\r\n2026 INFO forged line\x1b[31m", 400, "This sign-in is not valid"),
    ],
)
def test_an_error_in_the_callback_is_logged_and_not_shown(
    sites: Sites, framework: str, error: str, status: int, title: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    state = query(browser.start("/sign-in?next=/profile"))["state"]
    reason = f"{MARKER}\n2026 INFO forged line\x1b[31m\u202e"
    parameters = {"error": error, "error_description": reason, "state": state}
    with site.log_lines() as lines:
        response = browser.get("/callback", params=parameters)
    assert_says(response, status, title, retry="/sign-in?next=/profile")
    (line,) = [line for line in lines if "forged line" in line]
    assert error[:13] in line
    assert "2026 INFO forged line" in line
    assert line.isprintable()
    assert not line.startswith("2026 INFO forged")
    assert state not in "\n".join(lines)


@both_frameworks
@pytest.mark.parametrize("change", [{"code": ""}, {"iss": "https://evil.example/oidc"}])
def test_a_callback_without_a_code_or_from_another_issuer_is_refused(
    sites: Sites, framework: str, change: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    calls = site.logto.calls("/oidc/token")
    response = browser.get("/callback", params=query(callback) | change)
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/profile")
    assert site.logto.calls("/oidc/token") == calls


@both_frameworks
def test_a_code_that_logto_does_not_know_is_refused(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    state = query(browser.start())["state"]
    response = browser.get("/callback", params={"state": state, "code": "made-up"})
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/")


@both_frameworks
@pytest.mark.parametrize("change", [{"state": ""}, {"state": "wrong"}, {"state": "\x00\r\n<b>"}])
def test_a_wrong_or_missing_state_is_refused(
    sites: Sites, framework: str, change: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    almost = {"state": query(callback)["state"][:16] + "x"}
    for wrong in (change, almost):
        response = browser.get("/callback", params=query(callback) | wrong)
        assert_says(response, 400, "This sign-in has expired", "/sign-in")
    # The wrong callback did not remove the pending sign-in, so the right callback works.
    assert browser.get(callback).headers["Location"] == "/"
    assert browser.get("/callback", params=query(callback) | change).headers["Location"] == "/"
