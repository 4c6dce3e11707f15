"""ID tokens of a Logto with another clock, and keys that change or cannot be used."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import jwt
import pytest
from access_tokens import ATTACKER_P256_KEY
from sites import UNAVAILABLE, Handler, Site, assert_says, both_frameworks
from token_faults import (
    ALICE,
    Sites,
    end_pause_after,
    id_token,
    id_token_issued_in,
    oct_entry,
    public,
    publishing,
    rsa_key,
    with_expired_token,
)

CLOCK = "check this machine's clock"
SECRET = b"a shared secret that everybody who reads the key set knows"


@both_frameworks
def test_a_clock_that_is_behind_keeps_the_session_and_the_new_refresh_token(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    with site.logto.rotating():
        browser = with_expired_token(site)
        issued_in_the_future = id_token_issued_in(site.logto, 45)
        # Its access token has expired too, so the next request refreshes again.
        with (
            site.log_lines() as lines,
            site.logto.expired_tokens(),
            site.logto.fault("/oidc/token", issued_in_the_future),
        ):
            assert browser.get("/test/guarded").text.startswith(ALICE)
        assert any("WARNING" in line and CLOCK in line for line in lines)
        before = site.logto.calls("/oidc/token")
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert site.logto.calls("/oidc/token") == before + 1
        assert browser.is_signed_in


@both_frameworks
def test_a_clock_that_is_behind_makes_sign_in_unavailable_and_is_logged(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    with (
        site.log_lines() as lines,
        site.logto.fault("/oidc/token", id_token_issued_in(site.logto, 45)),
    ):
        response = browser.get(callback)
    assert_says(response, 503, "Sign-in is unavailable", retry="/sign-in?next=/")
    assert any("ERROR" in line and CLOCK in line for line in lines)
    assert not browser.is_signed_in


@both_frameworks
def test_a_clock_that_is_a_little_behind_does_no_harm(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    with (
        site.log_lines() as lines,
        site.logto.fault("/oidc/token", id_token_issued_in(site.logto, 20)),
    ):
        assert browser.get(callback).headers["Location"] == "/"
    assert CLOCK not in "\n".join(lines)


@both_frameworks
def test_a_clock_that_is_ahead_keeps_the_session(
    sites: Sites, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites(framework)
    browser = with_expired_token(site)
    server_date = format_datetime(datetime.now(UTC) - timedelta(seconds=120), usegmt=True)
    monkeypatch.setattr(Handler, "date_time_string", lambda *_: server_date)
    expired = id_token_issued_in(site.logto, -120)
    with site.log_lines() as lines, site.logto.fault("/oidc/token", expired):
        assert browser.get("/test/guarded").text.startswith(ALICE)
    assert any("WARNING" in line and CLOCK in line for line in lines)
    assert browser.is_signed_in


def signed_with_rsa(site: Site, key: Any) -> Any:
    """Respond with ID tokens that this key has signed."""
    header = {"alg": "RS256", "kid": key.kid}
    return id_token(lambda claims: site.logto.signed(header, claims, key))


@both_frameworks
def test_another_algorithm_of_logto_needs_no_restart(sites: Sites, framework: str) -> None:
    site = sites(framework)
    older, browser = with_expired_token(site), site.browser()
    callback = browser.answer(browser.start())
    key = rsa_key()
    with (
        publishing(site.logto, public(key), algorithms=["RS256"]),
        site.logto.fault("/oidc/token", signed_with_rsa(site, key)),
    ):
        assert browser.get(callback).headers["Location"] == "/"
        fetched = site.logto.calls("/oidc/jwks")
        before = site.logto.calls("/oidc/token")
        assert older.get("/test/guarded").text.startswith(ALICE)
        assert site.logto.calls("/oidc/token") == before + 1
        assert site.logto.calls("/oidc/jwks") == fetched
    # After the `with` block, Logto uses its first algorithm again.
    assert site.browser().sign_in().headers["Location"] == "/"


@both_frameworks
@pytest.mark.parametrize(
    "name",
    [
        "502 HTML",
        "a list",
        "silent",
    ],
)
def test_a_failed_fetch_of_the_keys_at_a_refresh_keeps_the_new_refresh_token(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    with site.logto.rotating():
        browser = with_expired_token(site)
        site.logto.new_key()
        with (
            end_pause_after(site),
            site.logto.expired_tokens(),
            site.logto.fault("/oidc/jwks", UNAVAILABLE[name]),
        ):
            assert browser.get("/test/guarded").text.startswith(ALICE)
        assert browser.get("/test/guarded").text.startswith(ALICE)
        assert browser.is_signed_in


OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
BROKEN: list[Any] = [
    None,
    {},
    "text",
    7,
    [],
    {"kty": "OKP", "crv": "X448", "x": "AA", "kid": "x448"},
    OKP | {"kid": "ed25519", "alg": "EdDSA", "use": "sig"},
    {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA", "kid": "akp", "use": "sig"},
    {"kty": "oct", "kid": "oct", "k": ""},
    {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "short"},
    {"kty": "EC", "crv": "P-384", "x": 7, "y": None, "kid": "numbers"},
    {"kty": "EC", "crv": ["P-384"], "kid": "curves"},
    {"kty": "RSA", "kid": "empty", "alg": ["RS256"]},
    {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "tiny"},
    {"kty": {"a": 1}},
]


@both_frameworks
def test_a_key_set_with_entries_that_are_broken_or_unknown_yields_its_good_key(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    site.logto.new_key()
    good = public(site.logto.local.key)
    algorithms = ["ES384", "EdDSA", "ML-DSA-65", "HS256", "RS256"]
    with publishing(site.logto, *BROKEN, good, *BROKEN, algorithms=algorithms):
        assert browser.get(callback).headers["Location"] == "/"


@both_frameworks
@pytest.mark.parametrize(
    "change", [{"kid": ["a list"]}, {"alg": "none"}], ids=["a list as kid", "none as alg"]
)
def test_an_entry_whose_id_or_algorithm_is_strange_does_not_hide_the_good_key(
    sites: Sites, framework: str, change: dict[str, Any]
) -> None:
    site = sites(framework)
    browser = site.browser()
    callback = browser.answer(browser.start())
    site.logto.new_key()
    good = public(site.logto.local.key)
    with publishing(site.logto, good | change, good, algorithms=["ES384"]):
        assert browser.get(callback).headers["Location"] == "/"


@both_frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["oct", "RSA 1024", "RSA not announced", "for encryption", "P-256"]
)
def test_a_key_that_must_not_sign_id_tokens_verifies_no_id_token(
    sites: Sites, framework: str, name: str
) -> None:
    site = sites(framework)
    logto, browser = site.logto, site.browser()
    callback = browser.answer(browser.start())
    small, large, p256 = rsa_key(1024), rsa_key(), ATTACKER_P256_KEY
    entry, algorithms, header, key = {
        "oct": (oct_entry(SECRET), ["ES384", "HS256"], {}, None),
        "RSA 1024": (public(small), ["ES384", "RS256"], {"alg": "RS256", "kid": small.kid}, small),
        "RSA not announced": (public(large), ["ES384"], {"alg": "RS256", "kid": large.kid}, large),
        "for encryption": (
            public(large) | {"use": "enc"},
            ["ES384", "RS256"],
            {"alg": "RS256", "kid": large.kid},
            large,
        ),
        "P-256": (public(p256), ["ES384"], {"alg": "ES256", "kid": p256.kid}, p256),
    }[name]

    def sign(claims: dict[str, Any]) -> str:
        if key:
            return logto.signed(header, claims, key)
        return jwt.encode(claims, SECRET, "HS256", headers={"kid": "shared"})

    with (
        publishing(logto, entry, public(logto.local.key), algorithms=algorithms),
        logto.fault("/oidc/token", id_token(sign)),
    ):
        response = browser.get(callback)
    assert_says(response, 400, "This sign-in is not valid", "/sign-in?next=/")
    assert not browser.is_signed_in
