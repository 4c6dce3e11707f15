"""The API, called with good, bad and forged access tokens."""

import hashlib
import hmac
import json
import re
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import sites
from conftest import Bake, environment, program
from joserfc.jwk import ECKey
from sites import FaultyLogto, Site, silent

API = "https://api.bookstore.example"
SCOPES = ["read:books", "write:books"]
USER = "k3v9x0q2m7ae"
CLIENT = "mobile-app"
PAGE = "https://shop.example"
INTERVAL = 0.5
"""Seconds between two fetches of the keys in the apps of these tests that do not wait for 30."""

HTTP = httpx.Client(timeout=10)
Logto = FaultyLogto
Token = Callable[[Logto], str]
both_frameworks = pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"{name} api")) for name in sites.FRAMEWORKS],
)


@pytest.fixture(scope="session")
def start(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Start an app with an API, and its Logto."""
    with ExitStack() as stack:

        def start(framework: str, **variables: Any) -> Site:
            project = bake(framework=framework, api_resource=API)
            store = f"sqlite:///{tmp_path_factory.mktemp('sessions')}/sessions.sqlite3"
            site = stack.enter_context(
                sites.serving(
                    project,
                    framework,
                    store,
                    TEST_APP="served_api:create_app",
                    LOGTO_API_RESOURCE=API,
                    API_ALLOWED_ORIGINS=f"{PAGE}, http://localhost:5173/",
                    **variables,
                )
            )
            site.logto.local.resources[API] = SCOPES
            return site

        yield start


@pytest.fixture(scope="session")
def site_of(start: Callable[..., Site]) -> Callable[..., Site]:
    """Give the app of a framework with these variables, started when it is first asked for."""
    return cache(start)


@pytest.fixture
def site(site_of: Callable[..., Site], framework: str) -> Site:
    """An app that runs all the time, under the rules of production."""
    return site_of(framework)


@pytest.fixture
def impatient(site_of: Callable[..., Site], framework: str) -> Site:
    """An app that asks for new keys soon again, and has not done so just now."""
    site = site_of(framework, TEST_KEY_INTERVAL=str(INTERVAL))
    time.sleep(INTERVAL)
    return site


def claims(logto: Logto, **changes: Any) -> dict[str, Any]:
    """The claims of an access token of Logto; a change to None leaves the claim out."""
    now = int(time.time())
    standard = {
        "jti": f"jti-{time.monotonic_ns()}",
        "sub": USER,
        "iat": now,
        "exp": now + 3600,
        "scope": " ".join(SCOPES),
        "client_id": CLIENT,
        "iss": logto.issuer,
        "aud": API,
    }
    return {name: value for name, value in (standard | changes).items() if value is not None}


def token(
    logto: Logto, header: dict[str, Any] | None = None, key: Any = None, **changes: Any
) -> str:
    """An access token of Logto, but for the changes."""
    return logto.signed({"typ": "at+jwt"} | (header or {}), claims(logto, **changes), key)


def with_(**changes: Any) -> Token:
    """A token with these claims; times in seconds from now."""

    def build(logto: Logto) -> str:
        now = int(time.time())
        times = {n: now + v for n, v in changes.items() if n in TIMES and type(v) is int}
        return token(logto, **(changes | times))

    return build


TIMES = ("iat", "nbf", "exp")


def headed(**header: Any) -> Token:
    """A token under this header, signed with Logto's key."""
    return lambda logto: raw(logto, header=json.dumps(whole_header(logto) | header))


def whole_header(logto: Logto) -> dict[str, Any]:
    return {"alg": "ES384", "kid": logto.local.key.kid, "typ": "at+jwt"}


def raw(logto: Logto, header: str | None = None, payload: str | bytes | None = None) -> str:
    """A token of these very texts, rightly signed with Logto's key."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA384

    payload = json.dumps(claims(logto)) if payload is None else payload
    payload = payload.encode() if isinstance(payload, str) else payload
    text = f"{encoded((header or json.dumps(whole_header(logto))).encode())}.{encoded(payload)}"
    key = logto.local.key.get_op_key("sign")
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA384())))
    return f"{text}.{encoded(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def forged(**header: Any) -> Token:
    """A token that somebody else has signed with a key of their own."""
    return lambda logto: token(logto, header, THEIR_KEY)


THEIR_KEY = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
THEIR_P256 = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def with_their_key(logto: Logto) -> str:
    """The header says where their key is; the app must not look there."""
    place = f"{logto.endpoint}/theirs"
    public = THEIR_KEY.as_dict(private=False)
    where = {"jku": place, "x5u": place, "jwk": public, "kid": THEIR_KEY.kid}
    # joserfc knows what these are for, and would not have them otherwise.
    return token(logto, where, THEIR_KEY)


def hmac_with_the_public_key(logto: Logto) -> str:
    """Algorithm confusion: the public key as if it were a shared secret."""
    secret = logto.local.key.as_pem(private=False)
    header = whole_header(logto) | {"alg": "HS256"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims(logto)))
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def unsigned(name: str) -> Token:
    def build(logto: Logto) -> str:
        header = whole_header(logto) | {"alg": name}
        return ".".join(encoded(json.dumps(p).encode()) for p in (header, claims(logto))) + "."

    return build


def signature(change: Callable[[str], str]) -> Token:
    def build(logto: Logto) -> str:
        text, _, signed = token(logto).rpartition(".")
        return f"{text}.{change(signed)}"

    return build


def other_scopes(logto: Logto) -> str:
    """The signature of one token under the claims of another."""
    weak, strong = token(logto, scope="read:books").split("."), token(logto).split(".")
    return ".".join([strong[0], strong[1], weak[2]])


def payload_with(text: str) -> Token:
    """The claims with this text put in front."""
    return lambda logto: raw(logto, payload="{" + text + "," + json.dumps(claims(logto))[1:])


def header_with(text: str) -> Token:
    """The header with this text put in front."""
    return lambda logto: raw(logto, header="{" + text + "," + json.dumps(whole_header(logto))[1:])


def id_token(logto: Logto) -> str:
    """As `/oidc/token` gives it to the web app."""
    given = {"aud": "test-app", "name": "Alice Archer", "scope": None, "client_id": None}
    return logto.signed({}, claims(logto, **given))


GOOD: dict[str, Token] = {
    "as Logto gives it": token,
    "the long form of typ": headed(typ="application/at+jwt"),
    "typ in capitals": headed(typ="AT+JWT"),
    "two audiences": with_(aud=["https://other.example", API]),
    "no scope": with_(scope=None),
    "expired within the leeway": with_(exp=-20),
    "issued within the leeway": with_(iat=20),
    "a key that is elsewhere too": headed(
        jku="https://evil.example/jwks", x5u="https://evil.example"
    ),
    "a machine": with_(sub=CLIENT),
}
BAD: dict[str, Token] = {
    # times
    "expired": with_(exp=-40),
    "expired long ago": with_(exp=-90000, iat=-93600),
    "issued in the future": with_(iat=40),
    "not valid yet": with_(nbf=40),
    "exp missing": with_(exp=None),
    "exp a text": with_(exp="tomorrow"),
    "exp infinite": lambda logto: raw(
        logto, payload=json.dumps(claims(logto, exp="X")).replace('"X"', "1e999")
    ),
    "exp no number": lambda logto: raw(
        logto, payload=json.dumps(claims(logto, exp="X")).replace('"X"', "NaN")
    ),
    "exp a list": with_(exp=[9999999999]),
    "iat missing": with_(iat=None),
    "iat a text": with_(iat="now"),
    # who it is from, who it is for
    "another issuer": with_(iss="https://evil.example/oidc"),
    "the issuer with a slash": lambda logto: token(logto, iss=f"{logto.issuer}/"),
    "the issuer in a list": lambda logto: token(logto, iss=[logto.issuer]),
    "no issuer": with_(iss=None),
    "another audience": with_(aud="https://other.example"),
    "an audience that begins alike": with_(aud=f"{API}.evil.example"),
    "an audience in capitals": with_(aud=API.upper()),
    "no audience": with_(aud=None),
    "an audience that is no text": with_(aud={API: True}),
    "no audience in the list": with_(aud=[]),
    "an organization": with_(aud="urn:logto:organization:club"),
    "an organization of this API": with_(organization_id="club"),
    "an organization that is no text": with_(organization_id=["club"]),
    "no subject": with_(sub=None),
    "a subject that is no text": with_(sub=1),
    "no client": with_(client_id=None),
    "a client that is no text": with_(client_id=["mobile-app"]),
    "no jti": with_(jti=None),
    # another kind of token
    "an ID token": id_token,
    "an ID token for the API": lambda logto: logto.signed({}, claims(logto)),
    "a logout token": lambda logto: logto.logout_token(aud=API),
    "typ JWT": headed(typ="JWT"),
    "typ a number": headed(typ=1),
    "an opaque token": lambda logto: "n" * 43,
    # keys
    "no kid": headed(kid=None),
    "an empty kid": headed(kid=""),
    "kid a number": headed(kid=7),
    "kid a list": headed(kid=["a"]),
    "an unknown kid": forged(kid="unknown"),
    "kid a path": forged(kid="../../../../dev/null"),
    "kid an address": forged(kid="https://evil.example/key"),
    "kid SQL": forged(kid="' UNION SELECT 'key' --"),
    "another's key under Logto's kid": lambda logto: token(logto, key=THEIR_KEY),
    "another's key in the header": with_their_key,
    # algorithms
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg nOnE": unsigned("nOnE"),
    "no alg": headed(alg=None),
    "alg a list": headed(alg=["ES384"]),
    "another alg": headed(alg="ES512"),
    "HMAC with the public key": hmac_with_the_public_key,
    "a curve of their own": lambda logto: token(logto, {"alg": "ES256"}, THEIR_P256),
    "an extension that is critical": headed(crit=["exp2"], exp2=1),
    "a payload that is not encoded": headed(b64=False, crit=["b64"]),
    # signatures
    "no signature": signature(lambda _: ""),
    "a signature of zeros": signature(lambda _: encoded(bytes(96))),
    "half of a signature": signature(lambda signed: signed[:64]),
    "another's signature": other_scopes,
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
    "a claim twice": payload_with('"scope": "read:books"'),
    "a claim twice, within": payload_with('"x": {"y": 1, "y": 2}'),
    "a header twice": header_with('"alg": "none"'),
    "scopes as a list": with_(scope=SCOPES),
    "scopes as a number": with_(scope=7),
    "huge": with_(filling="x" * 8000),
    "huge and of no meaning": lambda logto: "x" * 9000,
}


def call(site: Site, bearer: str | None = None, path: str = "/api/me", **options: Any) -> Any:
    headers = options.pop("headers", {})
    if bearer is not None:
        site.secrets |= {bearer} if len(bearer) > 20 else set()
        headers |= {"Authorization": f"Bearer {bearer}"}
    return HTTP.request(options.pop("method", "GET"), site.url + path, headers=headers, **options)


def challenge(answer: httpx.Response, realm: str = API) -> dict[str, str]:
    """The parameters of the answer's challenge, each of which is a quoted text."""
    scheme, _, parameters = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    values = dict(re.findall(r'(\w+)="([^"]*)"', parameters))
    assert parameters == ", ".join(f'{name}="{value}"' for name, value in values.items())
    assert values.pop("realm") == realm
    return values


def assert_refused(answer: httpx.Response, status: int, error: str) -> None:
    """Assert that the answer is as RFC 6750 section 3 has it, with the app's JSON."""
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    said = challenge(answer)
    assert said["error"] == error
    assert answer.json() == {"error": error, "message": said["error_description"]}


# Tokens


@both_frameworks
@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_accepted(site: Site, framework: str, name: str) -> None:
    bearer = GOOD[name](site.logto)
    for _ in range(2):
        answer = call(site, bearer)
        assert answer.status_code == 200, answer.text
        assert answer.json()["client_id"] == CLIENT


@both_frameworks
@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(site: Site, framework: str, name: str) -> None:
    bearer = BAD[name](site.logto)
    for _ in range(2):
        assert_refused(call(site, bearer), 401, "invalid_token")


@both_frameworks
def test_no_key_is_taken_from_where_the_token_says(site: Site, framework: str) -> None:
    call(site, with_their_key(site.logto))
    assert site.logto.calls("/theirs") == 0


@both_frameworks
def test_the_view_knows_what_the_token_says(site: Site, framework: str) -> None:
    said = claims(site.logto)
    bearer = site.logto.signed({"typ": "at+jwt"}, said)
    assert call(site, bearer, "/api/test/token").json() == {
        "true": True,
        "subject": USER,
        "user_id": USER,
        "client_id": CLIENT,
        "scopes": SCOPES,
        "organization": None,
        "claims": said,
    }


@both_frameworks
@pytest.mark.parametrize(
    "changes",
    [{"aud": "urn:logto:organization:club"}, {"organization_id": "club"}],
    ids=["of the organization", "of the API in the organization"],
)
def test_a_view_can_ask_for_a_token_of_an_organization(
    site: Site, framework: str, changes: dict[str, Any]
) -> None:
    theirs = token(site.logto, **changes)
    assert call(site, theirs, "/api/test/organization").json()["organization"] == "club"
    assert_refused(call(site, theirs, "/api/test/token"), 401, "invalid_token")
    assert_refused(call(site, token(site.logto), "/api/test/organization"), 401, "invalid_token")
    nameless = token(site.logto, aud="urn:logto:organization:")
    assert_refused(call(site, nameless, "/api/test/organization"), 401, "invalid_token")


@both_frameworks
def test_a_token_that_is_remembered_has_the_rights_of_its_own(site: Site, framework: str) -> None:
    weak = token(site.logto, scope="read:books")
    book = {"title": "Kindred", "author": "Octavia E. Butler"}
    for _ in range(2):
        assert call(site, weak, "/api/books").status_code == 200
        answer = call(site, weak, "/api/books", method="POST", json=book)
        assert_refused(answer, 403, "insufficient_scope")


@both_frameworks
def test_a_remembered_token_expires(site: Site, framework: str) -> None:
    # The leeway is 30 seconds.
    short = with_(exp=-26)(site.logto)
    assert call(site, short).status_code == 200
    time.sleep(4.2)
    answer = call(site, short)
    assert_refused(answer, 401, "invalid_token")
    assert answer.json()["message"] == "The access token has expired."


@both_frameworks
@pytest.mark.parametrize(
    ("path", "status"), [("/api/books", 401), ("/api/me", 405), ("/nowhere", 404), ("/", 405)]
)
def test_a_body_that_comes_after_the_answer_keeps_its_connection(
    site: Site, framework: str, path: str, status: int
) -> None:
    # Else the server hangs up and says so to nobody; behind a proxy, on other people as well.
    address = httpx.URL(site.url)
    connection = HTTPConnection(address.host, address.port, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    time.sleep(0.2)
    connection.send(b"{}")
    answer = connection.getresponse()
    assert answer.status == status
    answer.read()
    # It would open another one by itself.
    connection.auto_open = 0
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


@both_frameworks
def test_a_key_that_logto_has_withdrawn_is_not_trusted_for_long(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework, TEST_KEY_INTERVAL="0", TEST_KEY_AGE="1")
    logto = site.logto
    withdrawn = logto.local.key
    assert call(site, token(logto)).status_code == 200
    logto.new_key()
    time.sleep(1.1)
    assert_refused(
        call(site, token(logto, key=withdrawn, header={"kid": withdrawn.kid})), 401, "invalid_token"
    )
    assert call(site, token(logto)).status_code == 200
    # While Logto is away, what was published last is good.
    with logto.away():
        time.sleep(1.1)
        assert call(site, token(logto)).status_code == 200


# RFC 6750, section 3


@both_frameworks
@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Digest a=b, c=d"])
def test_a_call_without_a_token_gets_a_bare_challenge(
    site: Site, framework: str, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = call(site, headers=headers)
    assert answer.status_code == 401
    assert challenge(answer) == {}
    assert set(answer.json()) == {"error", "message"}


@both_frameworks
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_as_http_has_it(site: Site, framework: str, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {token(site.logto)}"}
    assert call(site, headers=headers).status_code == 200


@both_frameworks
def test_one_token_in_the_header_is_enough(site: Site, framework: str) -> None:
    good = token(site.logto)
    for answer in (
        call(site, params={"access_token": good}),
        call(site, good, params={"access_token": good}),
        call(site, f"{good} {good}"),
        call(site, f"{good}, Bearer {good}"),
        HTTP.get(f"{site.url}/api/me", headers=[("Authorization", f"Bearer {good}")] * 2),
    ):
        assert_refused(answer, 400, "invalid_request")


@both_frameworks
def test_all_scopes_that_are_needed_are_named(site: Site, framework: str) -> None:
    answer = call(site, token(site.logto, scope="read:books read"), "/api/test/both")
    assert_refused_for_scope(answer, "read:books write:books")
    answer = call(site, token(site.logto, scope=None), "/api/books")
    assert_refused_for_scope(answer, "read:books")


def assert_refused_for_scope(answer: httpx.Response, scope: str) -> None:
    assert_refused(answer, 403, "insufficient_scope")
    assert challenge(answer)["scope"] == scope


@both_frameworks
@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/api/nowhere", 404, "not_found"),
        ("DELETE", "/api/me", 405, "method_not_allowed"),
        ("GET", "/api/test/failure", 500, "internal_server_error"),
    ],
)
def test_every_error_is_json_whatever_is_accepted(
    site: Site, framework: str, method: str, path: str, status: int, error: str
) -> None:
    answer = call(site, path=path, method=method, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "message"}
    assert "fault of the app" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert ("Allow" in answer.headers) == (status == 405)


@both_frameworks
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"title": "Kindred"', 400),
        (b"\xff", 400),
        (b"[" * 50_000, 400),
        (b'{"title": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_a_body_that_is_no_book_is_refused(
    site: Site, framework: str, content: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = call(
        site, token(site.logto), "/api/books", method="POST", content=content, headers=headers
    )
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}


# Keys


@both_frameworks
def test_forged_key_names_cause_one_fetch(start: Callable[..., Site], framework: str) -> None:
    site = start(framework)
    tokens = [token(site.logto, {"kid": f"forged-{n}"}, THEIR_KEY) for n in range(60)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda bearer: call(site, bearer), tokens))
    for answer in answers:
        assert_refused(answer, 401, "invalid_token")
    assert site.logto.calls("/oidc/jwks") == 1
    # They came first, and people still get in.
    assert call(site, token(site.logto)).status_code == 200
    assert site.logto.calls("/oidc/jwks") == 1


@both_frameworks
def test_what_names_no_key_causes_no_fetch(impatient: Site, framework: str) -> None:
    before = impatient.logto.calls("/oidc/jwks")
    for bearer in ("nonsense", headed(kid=None)(impatient.logto), "x" * 9000):
        assert_refused(call(impatient, bearer), 401, "invalid_token")
    assert impatient.logto.calls("/oidc/jwks") == before


@both_frameworks
def test_a_new_key_of_logto_is_learnt(impatient: Site, framework: str) -> None:
    before = token(impatient.logto)
    assert call(impatient, before).status_code == 200
    time.sleep(INTERVAL)
    impatient.logto.new_key()
    assert call(impatient, token(impatient.logto)).status_code == 200


@both_frameworks
def test_without_logto_known_keys_go_on_and_others_are_not_called_invalid(
    impatient: Site, framework: str
) -> None:
    logto = impatient.logto
    assert call(impatient, token(logto)).status_code == 200
    with logto.away():
        time.sleep(INTERVAL)
        for _ in range(3):
            answer = call(impatient, token(logto, {"kid": "new"}, THEIR_KEY))
            assert (answer.status_code, answer.json()["error"]) == (503, "service_unavailable")
            assert answer.headers["Retry-After"] == "30"
            assert "WWW-Authenticate" not in answer.headers
            assert call(impatient, token(logto)).status_code == 200
    time.sleep(INTERVAL)
    logto.new_key()
    assert call(impatient, token(logto)).status_code == 200


@both_frameworks
def test_an_app_that_starts_without_logto_recovers(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework, TEST_KEY_INTERVAL=str(INTERVAL))
    with site.logto.away():
        assert call(site, token(site.logto)).status_code == 503
    time.sleep(INTERVAL)
    assert call(site, token(site.logto)).status_code == 200


@both_frameworks
def test_a_silent_logto_holds_up_nobody_else(impatient: Site, framework: str) -> None:
    logto = impatient.logto
    known = token(logto)
    assert call(impatient, known).status_code == 200
    time.sleep(INTERVAL)
    asked = []

    def no_answer(app: Any, environ: Any, start: Any, over: threading.Event) -> Any:
        asked.append(environ)
        return silent(app, environ, start, over)

    with logto.fault("/oidc/jwks", no_answer), ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(call, impatient, token(logto, {"kid": name}, THEIR_KEY))
            for name in ("one", "two")
        ]
        time.sleep(0.2)
        for bearer in (known, token(logto)):
            assert call(impatient, bearer).status_code == 200
        assert not any(each.done() for each in waiting)
        assert [each.result().status_code for each in waiting] == [503, 503]
    assert len(asked) == 1


@both_frameworks
def test_who_leaves_half_way_does_not_take_the_keys_along(impatient: Site, framework: str) -> None:
    asked = []

    def late(app: Any, environ: Any, start: Any, over: Any) -> Any:
        asked.append(environ)
        time.sleep(0.4)
        return app(environ, start)

    impatient.logto.new_key()
    bearer = token(impatient.logto)
    headers = {"Authorization": f"Bearer {bearer}"}
    with impatient.logto.fault("/oidc/jwks", late):
        with pytest.raises(httpx.ReadTimeout):
            HTTP.get(f"{impatient.url}/api/me", headers=headers, timeout=0.15)
        assert call(impatient, bearer).status_code == 200
    assert len(asked) == 1


# Other web pages


@both_frameworks
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
def test_pages_that_are_allowed_may_call(site: Site, framework: str, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = call(site, path="/api/books", method="OPTIONS", headers=asked)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert int(preflight.headers["Access-Control-Max-Age"]) > 0
    refused = call(site, headers={"Origin": origin})
    assert "WWW-Authenticate" in refused.headers["Access-Control-Expose-Headers"]
    found = call(site, token(site.logto), headers={"Origin": origin})
    for answer in (preflight, refused, found):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@both_frameworks
@pytest.mark.parametrize("origin", ["https://evil.example", f"{PAGE}.evil.example", "null", "*"])
def test_other_pages_may_not_call(site: Site, framework: str, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    for answer in (
        call(site, path="/api/me", method="OPTIONS", headers=headers),
        call(site, token(site.logto), headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "Origin" in answer.headers["Vary"]


@both_frameworks
def test_pages_of_the_app_are_for_nobody_else(site: Site, framework: str) -> None:
    for path in ("/", "/profile", "/apis", "/healthz"):
        answer = call(site, path=path, headers={"Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# The description


@both_frameworks
def test_schemathesis_finds_nothing(site: Site, framework: str, tmp_path: Path) -> None:
    bearer = token(site.logto)
    env = environment()
    command = [
        *[program("schemathesis", env), "run", str(site.project.path / "openapi.json")],
        *["--url", site.url, "--header", f"Authorization: Bearer {bearer}"],
        *["--max-examples", "25", "--seed", "1", "--checks", "all", "--no-color"],
        *["--generation-database", "none"],
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# A token for curl


@both_frameworks
def test_a_token_for_curl_comes_from_the_running_stand_in(site: Site, framework: str) -> None:
    def printed(*options: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "dev.access_token", *options)
        return site.project.attempt(*command, **site.variables)

    given = printed("--user", "bob", "--scope", "read:books", "--scope", "write:books")
    answer = call(site, given.stdout.strip(), "/api/test/token").json()
    assert (answer["user_id"], answer["scopes"]) == ("p8d2w5t1z6bo", ["read:books"])
    assert given.stderr == "bob is not granted write:books.\n"

    given = printed("--scope", "read:books", "--organization", "bookclub0001")
    answer = call(site, given.stdout.strip(), "/api/test/organization").json()
    assert (answer["organization"], answer["scopes"]) == ("bookclub0001", ["read:books"])

    for options, reason in {
        ("--user", "nobody"): "Nobody can sign in as nobody",
        ("--organization", "none"): "user is not a member of the organization",
        ("--logto-port", "1"): "No local Logto answers at http://localhost:1",
        ("--port", "1"): "redirect_uri did not match",
    }.items():
        given = printed(*options)
        assert (given.returncode, given.stdout) == (1, "")
        assert reason in given.stderr
        assert "Traceback" not in given.stderr
