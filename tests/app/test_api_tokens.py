"""Good, bad and forged access tokens, and the data of a token that a view can read."""

import json
import time
from typing import Any

import pytest
from access_tokens import (
    API,
    ATTACKER_KEY,
    ATTACKER_P256_KEY,
    CLIENT,
    SCOPES,
    USER,
    Token,
    claims,
    encoded,
    forged,
    hmac_with_the_public_key,
    id_token,
    other_scopes,
    raw,
    signature,
    token,
    unsigned,
    with_attacker_key_urls,
    with_claims,
    with_header,
)
from api_client import assert_refused, both_frameworks, call
from sites import Site

TEXTS = ("sub", "client_id", "jti", "name", "scope", "sid")
GOOD: dict[str, Token] = {
    "as Logto gives it": token,
    "the long form of typ": with_header(typ="application/at+jwt"),
    "typ in capitals": with_header(typ="AT+JWT"),
    "two audiences": with_claims(aud=["https://other.example", API]),
    "no scope": with_claims(scope=None),
    "expired within the leeway": with_claims(exp=-20),
    "issued within the leeway": with_claims(iat=20),
    "URLs of other keys in the header": with_header(
        jku="https://evil.example/jwks", x5u="https://evil.example"
    ),
    "a machine": with_claims(sub=CLIENT),
}
BAD: dict[str, Token] = {
    # times
    "expired": with_claims(exp=-40),
    "expired long ago": with_claims(exp=-90000, iat=-93600),
    "issued in the future": with_claims(iat=40),
    "not valid yet": with_claims(nbf=40),
    "exp missing": with_claims(exp=None),
    "exp a text": with_claims(exp="tomorrow"),
    "exp infinite": lambda logto: raw(
        logto, payload=json.dumps(claims(logto, exp="X")).replace('"X"', "1e999")
    ),
    "exp NaN": lambda logto: raw(
        logto, payload=json.dumps(claims(logto, exp="X")).replace('"X"', "NaN")
    ),
    "exp a list": with_claims(exp=[9999999999]),
    "exp a number as text": lambda logto: token(logto, exp=str(int(time.time()) + 3600)),
    "iat a number as text": lambda logto: token(logto, iat=str(int(time.time()))),
    "nbf a number as text": lambda logto: token(logto, nbf=str(int(time.time()))),
    "iat missing": with_claims(iat=None),
    "iat a text": with_claims(iat="now"),
    # issuer, audience, organization, subject and client
    "another issuer": with_claims(iss="https://evil.example/oidc"),
    "the issuer with a slash": lambda logto: token(logto, iss=f"{logto.issuer}/"),
    "the issuer in a list": lambda logto: token(logto, iss=[logto.issuer]),
    "no issuer": with_claims(iss=None),
    "another audience": with_claims(aud="https://other.example"),
    "an audience that begins alike": with_claims(aud=f"{API}.evil.example"),
    "an audience in capitals": with_claims(aud=API.upper()),
    "no audience": with_claims(aud=None),
    "an audience that is no text": with_claims(aud={API: True}),
    "no audience in the list": with_claims(aud=[]),
    "an organization": with_claims(aud="urn:logto:organization:club"),
    "an organization of this API": with_claims(organization_id="club"),
    "an organization that is no text": with_claims(organization_id=["club"]),
    "no subject": with_claims(sub=None),
    "a subject that is no text": with_claims(sub=1),
    "no client": with_claims(client_id=None),
    "a client that is no text": with_claims(client_id=["mobile-app"]),
    "no jti": with_claims(jti=None),
    # another kind of token
    "an ID token": id_token,
    "an ID token for the API": lambda logto: logto.signed({}, claims(logto)),
    "a logout token": lambda logto: logto.logout_token(aud=API),
    "typ JWT": with_header(typ="JWT"),
    "typ a number": with_header(typ=1),
    "an opaque token": lambda logto: "n" * 43,
    # keys
    "no kid": with_header(kid=None),
    "an empty kid": with_header(kid=""),
    "kid a number": with_header(kid=7),
    "kid a list": with_header(kid=["a"]),
    "an unknown kid": forged(kid="unknown"),
    "kid a path": forged(kid="../../../../dev/null"),
    "kid a URL": forged(kid="https://evil.example/key"),
    "kid SQL": forged(kid="' UNION SELECT 'key' --"),
    "the key of an attacker under Logto's kid": lambda logto: token(logto, key=ATTACKER_KEY),
    "the key of an attacker in the header": with_attacker_key_urls,
    # algorithms
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg nOnE": unsigned("nOnE"),
    "no alg": with_header(alg=None),
    "alg a list": with_header(alg=["ES384"]),
    "another alg": with_header(alg="ES512"),
    "HMAC with the public key": hmac_with_the_public_key,
    "another curve": lambda logto: token(logto, {"alg": "ES256"}, ATTACKER_P256_KEY),
    "an extension that is critical": with_header(crit=["exp2"], exp2=1),
    "a payload that is not encoded": with_header(b64=False, crit=["b64"]),
    # signatures
    "no signature": signature(lambda _: ""),
    "a signature of zeros": signature(lambda _: encoded(bytes(96))),
    "half of a signature": signature(lambda signed: signed[:64]),
    "the signature of another token": other_scopes,
    "a signature in another alphabet": signature(lambda signed: "+/" + signed[2:]),
    # form
    "truncated": lambda logto: token(logto)[:-40],
    "two parts": lambda logto: token(logto).rpartition(".")[0],
    "five parts": lambda logto: token(logto) + ".AAAA.AAAA",
    "nothing but dots": lambda logto: "..",
    "a header that is a list": lambda logto: raw(logto, header="[1]"),
    "a header that is nested deeply": lambda logto: raw(logto, header="[" * 4000),
    "a payload that is a list": lambda logto: raw(logto, payload="[1]"),
    "a payload that is nested deeply": lambda logto: raw(logto, payload="[" * 4000),
    "a payload that is no JSON": lambda logto: raw(logto, payload="{"),
    "a payload that is not UTF-8": lambda logto: raw(logto, payload=b'{"sub": "\xff"}'),
    **{f"a lone surrogate in {name}": with_claims(**{name: "\ud800"}) for name in TEXTS},
    "a lone surrogate in a list": with_claims(roles=["admin", "\udfff"]),
    "a lone surrogate in the header": with_header(kid="\ud800"),
    "scopes as a list": with_claims(scope=SCOPES),
    "scopes as a number": with_claims(scope=7),
    "huge": with_claims(filling="x" * 16000),
    "huge and no JWT": lambda logto: "x" * 17000,
}


@both_frameworks
@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_accepted(site: Site, framework: str, name: str) -> None:
    bearer = GOOD[name](site.logto)
    for _ in range(2):
        response = call(site, bearer)
        assert response.status_code == 200, response.text
        assert response.json()["client_id"] == CLIENT


@both_frameworks
@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(site: Site, framework: str, name: str) -> None:
    bearer = BAD[name](site.logto)
    for _ in range(2):
        assert_refused(call(site, bearer), 401, "invalid_token")


@both_frameworks
def test_no_key_is_fetched_from_a_url_in_the_token(site: Site, framework: str) -> None:
    call(site, with_attacker_key_urls(site.logto))
    assert site.logto.calls("/theirs") == 0


@both_frameworks
def test_a_view_can_read_the_claims_of_the_token(site: Site, framework: str) -> None:
    sent = claims(site.logto)
    bearer = site.logto.signed({"typ": "at+jwt"}, sent)
    assert call(site, bearer, "/api/test/token").json() == {
        "true": True,
        "subject": USER,
        "user_id": USER,
        "client_id": CLIENT,
        "scopes": SCOPES,
        "organization": None,
        "claims": sent,
    }


@both_frameworks
@pytest.mark.parametrize(
    "changes",
    [{"aud": "urn:logto:organization:club"}, {"organization_id": "club"}],
    ids=["of the organization", "of the API in the organization"],
)
def test_a_view_can_require_a_token_of_an_organization(
    site: Site, framework: str, changes: dict[str, Any]
) -> None:
    organization_token = token(site.logto, **changes)
    assert call(site, organization_token, "/api/test/organization").json()["organization"] == "club"
    assert_refused(call(site, organization_token, "/api/test/token"), 401, "invalid_token")
    assert_refused(call(site, token(site.logto), "/api/test/organization"), 401, "invalid_token")
    without_id = token(site.logto, aud="urn:logto:organization:")
    assert_refused(call(site, without_id, "/api/test/organization"), 401, "invalid_token")


NO_ORGANIZATION: dict[str, dict[str, Any]] = {
    "an organization without an ID": {"aud": "urn:logto:organization:"},
    "an empty organization ID": {"organization_id": ""},
    "a number as organization ID": {"organization_id": 7},
    "a list as organization ID": {"organization_id": ["club"]},
    "an organization and the API": {"aud": ["urn:logto:organization:club", API]},
    "the API and an organization": {"aud": [API, "urn:logto:organization:club"]},
    "the API and an organization without an ID": {"aud": [API, "urn:logto:organization:"]},
}


@both_frameworks
@pytest.mark.parametrize("changes", NO_ORGANIZATION.values(), ids=NO_ORGANIZATION)
def test_a_token_with_an_unclear_organization_is_refused_by_every_view(
    site: Site, framework: str, changes: dict[str, Any]
) -> None:
    unclear = token(site.logto, **changes)
    for path in ("/api/me", "/api/test/token", "/api/test/organization"):
        assert_refused(call(site, unclear, path), 401, "invalid_token")


@both_frameworks
def test_only_a_space_separates_scopes(site: Site, framework: str) -> None:
    for separator in ("\t", "\n", "\r\n", "\v", "\f", "\x1c", "\xa0", "\u2003", ",", "+"):
        joined = token(site.logto, scope=separator.join(SCOPES))
        assert call(site, joined, "/api/test/token").json()["scopes"] == [separator.join(SCOPES)]
        assert_refused(call(site, joined, "/api/test/both"), 403, "insufficient_scope")
        assert_refused(call(site, joined, "/api/books"), 403, "insufficient_scope")
    spaces = token(site.logto, scope=f" {'  '.join(SCOPES)} ")
    assert call(site, spaces, "/api/test/both").json()["scopes"] == SCOPES


@both_frameworks
def test_a_cached_token_has_only_its_scopes(site: Site, framework: str) -> None:
    weak = token(site.logto, scope="read:books")
    book = {"title": "Kindred", "author": "Octavia E. Butler"}
    for _ in range(2):
        assert call(site, weak, "/api/books").status_code == 200
        response = call(site, weak, "/api/books", method="POST", json=book)
        assert_refused(response, 403, "insufficient_scope")


@both_frameworks
def test_a_cached_token_expires(site: Site, framework: str) -> None:
    # The leeway is 30 seconds.
    short = with_claims(exp=-26)(site.logto)
    assert call(site, short).status_code == 200
    time.sleep(4.2)
    response = call(site, short)
    assert_refused(response, 401, "invalid_token")
    assert response.json()["message"] == "The access token has expired."
