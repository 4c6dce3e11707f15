"""The local Logto compared with the engine of the real Logto, the npm package oidc-provider.

First, the generated app signs users in with the engine instead of the local Logto. Then the
same requests are sent to both, and both must give the same responses. So a test of a bake that
passes with the local Logto is true for the real Logto, too.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from answers import ROOT, Answers, everything
from conftest import FULL, Bake, environment
from processes import Process, free_port, running
from visitor import Visitor

RESOURCE = "https://api.bookstore.example/"
# Seconds. The SDK subtracts a minute from the lifetime of an access token. So with this lifetime
# it refreshes the token at every use.
EXPIRED_AT_ONCE = 30


@dataclass(frozen=True)
class Engine:
    """The engine of Logto, at `http://localhost:<port>`, with one registered application."""

    endpoint: str
    process: Process

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events that the engine reported under this name, in order."""
        lines = [line for line in self.process.output.splitlines() if line.startswith("{")]
        return [event for line in lines if (event := json.loads(line))["event"] == name]


@contextmanager
def engine_for(node: str, app_origin: str, **options: object) -> Iterator[Engine]:
    port = free_port()
    options |= {
        "port": port,
        "redirectUri": f"{app_origin}/callback",
        "postLogoutRedirectUri": f"{app_origin}/",
        "resource": RESOURCE,
    }
    command = [node, "provider.mjs", json.dumps(options)]
    with running(command, ROOT / "tests/node", environment()) as process:
        process.wait_for_text('"listening"')
        yield Engine(f"http://localhost:{port}", process)


# The generated app with the engine


@dataclass(frozen=True)
class AppWithEngine:
    """A generated app and the engine with which its users sign in."""

    app: str
    engine: Engine


@pytest.fixture(scope="module", params=FULL)
def app_with_engine(
    request: pytest.FixtureRequest, bake: Bake, node: str
) -> Iterator[AppWithEngine]:
    answers: Answers = request.param
    port = free_port()
    app = f"http://localhost:{port}"
    with engine_for(node, app, accessTokenSeconds=EXPIRED_AT_ONCE) as engine:
        settings = {
            "LOGTO_ENDPOINT": engine.endpoint,
            "LOGTO_APP_ID": "bookstore",
            "LOGTO_APP_SECRET": "secret",
            "LOGTO_CALLBACK_URL": f"{app}/callback",
            "LOGTO_API_RESOURCE": RESOURCE,
        }
        command = [str(answers["framework"]), "run", "--port", str(port)]
        with bake(**answers).start(*command, **settings) as process:
            process.wait_for(app)
            yield AppWithEngine(app, engine)


def test_the_app_signs_a_user_in(app_with_engine: AppWithEngine) -> None:
    with Visitor(app_with_engine.engine.endpoint) as visitor:
        home = visitor.visit(f"{app_with_engine.app}/sign-in")
        assert home.url == f"{app_with_engine.app}/"
        assert "Ada Lovelace" in home.text


def test_the_app_refreshes_and_reads_userinfo(app_with_engine: AppWithEngine) -> None:
    with Visitor(app_with_engine.engine.endpoint) as visitor:
        visitor.visit(f"{app_with_engine.app}/sign-in")
        before = app_with_engine.engine.events("grant").count(
            {"event": "grant", "type": "refresh_token"}
        )
        profile = visitor.visit(f"{app_with_engine.app}/profile")
        after = app_with_engine.engine.events("grant").count(
            {"event": "grant", "type": "refresh_token"}
        )
        assert profile.url == f"{app_with_engine.app}/profile"
        assert "ada@bookstore.example" in profile.text
        assert after > before
        assert app_with_engine.engine.events("userinfo refused") == []


def test_the_app_signs_a_user_out_at_the_engine_too(app_with_engine: AppWithEngine) -> None:
    with Visitor(app_with_engine.engine.endpoint) as visitor:
        visitor.visit(f"{app_with_engine.app}/sign-in")
        signed_out = len(app_with_engine.engine.events("signed out"))
        home = visitor.visit(f"{app_with_engine.app}/sign-out")
        assert home.url == f"{app_with_engine.app}/"
        assert "Ada Lovelace" not in home.text
        assert len(app_with_engine.engine.events("signed out")) == signed_out + 1


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("/sign-in?connector=azuread", "directSignIn", "social:azuread"),
        ("/sign-up", "firstScreen", "register"),
    ],
)
def test_the_engine_gets_the_page_that_the_app_requests(
    app_with_engine: AppWithEngine, path: str, parameter: str, value: str
) -> None:
    with Visitor(app_with_engine.engine.endpoint) as visitor:
        visitor.visit(f"{app_with_engine.app}{path}")
    assert app_with_engine.engine.events("interaction")[-1][parameter] == value


# The same requests to the local Logto and to the engine

APP = "http://localhost:3000"
VERIFIER = secrets.token_urlsafe(32)
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().strip("=")


@dataclass(frozen=True)
class Provider:
    """The engine or the local Logto, with a separate HTTP client."""

    endpoint: str
    visitor: Visitor

    def discovery(self) -> dict[str, Any]:
        found: dict[str, Any] = self.visitor.http.get(
            f"{self.endpoint}/oidc/.well-known/openid-configuration"
        ).json()
        return found

    def authorize(self, **changes: str | None) -> httpx2.Response:
        """Send an authorization request, and follow redirects until the redirect to the app."""
        wanted = {
            "client_id": "bookstore",
            "redirect_uri": f"{APP}/callback",
            "response_type": "code",
            "scope": "openid offline_access profile email read:books",
            "prompt": "consent",
            "state": "a state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
        }
        query = {name: value for name, value in (wanted | changes).items() if value is not None}
        return self.visitor.visit(f"{self.endpoint}/oidc/auth", query, until=APP)

    def code(self, **changes: str | None) -> str:
        return callback_query(self.authorize(**changes))["code"]

    def token(self, **fields: str) -> httpx2.Response:
        sent = {"client_id": "bookstore", "client_secret": "secret", **fields}
        return self.visitor.http.post(f"{self.endpoint}/oidc/token", data=sent)

    def exchange(self, code: str, **fields: str) -> httpx2.Response:
        sent = {"code": code, "redirect_uri": f"{APP}/callback", "code_verifier": VERIFIER}
        return self.token(grant_type="authorization_code", **(sent | fields))

    def sign_in(self, **changes: str | None) -> dict[str, Any]:
        response = self.exchange(self.code(**changes))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def userinfo(self, access_token: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {access_token}"}
        return self.visitor.http.get(f"{self.endpoint}/oidc/me", headers=headers)

    def end_session(self, **query: str) -> httpx2.Response:
        sent = {"client_id": "bookstore", "post_logout_redirect_uri": f"{APP}/", **query}
        return self.visitor.visit(f"{self.endpoint}/oidc/session/end", sent, until=APP)

    def is_signed_out(self) -> bool:
        """Return whether no user is signed in, so that a new sign-in needs the sign-in page."""
        response = self.authorize(prompt="none", scope="openid")
        return callback_query(response).get("error") == "login_required"


def callback_query(response: httpx2.Response) -> dict[str, str]:
    assert response.has_redirect_location, f"{response.status_code}: {response.text}"
    url = httpx2.URL(response.headers["location"])
    assert str(url).startswith(f"{APP}/callback")
    return dict(url.params)


def part(token: str, number: int) -> dict[str, Any]:
    """Return the header (0) or the claims (1) of a signed token."""
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[number] + "=="))
    return found


def refusal(response: httpx2.Response) -> tuple[int, str, str]:
    body = response.json()
    return response.status_code, body["error"], body["error_description"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("engine", "stand-in")
    ],
)
def endpoint(request: pytest.FixtureRequest, bake: Bake, node: str) -> Iterator[str]:
    if request.param == "engine":
        with engine_for(node, APP) as engine:
            yield engine.endpoint
        return
    port = free_port()
    settings = {
        "LOGTO_APP_ID": "bookstore",
        "LOGTO_CALLBACK_URL": f"{APP}/callback",
        "LOGTO_API_RESOURCE": RESOURCE,
    }
    command = ["python", "-m", "dev.local_logto", "--port", str(port)]
    with bake(**everything(on=True)[0]).start(*command, **settings) as process:
        process.wait_for(f"http://localhost:{port}/oidc/jwks")
        yield f"http://localhost:{port}"


@pytest.fixture
def provider(endpoint: str) -> Iterator[Provider]:
    with Visitor(endpoint) as visitor:
        yield Provider(endpoint, visitor)


def test_discovery_names_the_urls_of_logto(provider: Provider) -> None:
    found = provider.discovery()
    issuer = f"{provider.endpoint}/oidc"
    expected = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/me",
        "jwks_uri": f"{issuer}/jwks",
        "end_session_endpoint": f"{issuer}/session/end",
        "code_challenge_methods_supported": ["S256"],
        "id_token_signing_alg_values_supported": ["ES384"],
        "authorization_response_iss_parameter_supported": True,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_key_is_public_and_for_es384(provider: Provider) -> None:
    (key,) = provider.visitor.http.get(f"{provider.endpoint}/oidc/jwks").json()["keys"]
    assert {name: key[name] for name in ("kty", "crv", "alg", "use")} == {
        "kty": "EC",
        "crv": "P-384",
        "alg": "ES384",
        "use": "sig",
    }
    assert key.keys() == {"kty", "crv", "alg", "use", "kid", "x", "y"}


def test_an_unknown_client_gets_no_redirect(provider: Provider) -> None:
    response = provider.authorize(client_id="another-app")
    assert refusal(response) == (400, "invalid_client", "client is invalid")


def test_an_unregistered_redirect_uri_gets_no_redirect(provider: Provider) -> None:
    response = provider.authorize(redirect_uri=f"{APP}/elsewhere")
    assert refusal(response) == (
        400,
        "invalid_redirect_uri",
        "redirect_uri did not match any of the client's registered redirect_uris",
    )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"resource": "https://unknown.example/"}, "invalid_target"),
        ({"prompt": "select_account"}, "invalid_request"),
        ({"response_type": "nonsense"}, "unsupported_response_type"),
    ],
    ids=["no PKCE", "plain PKCE", "unknown resource", "unknown prompt", "nonsense"],
)
def test_a_wrong_request_sends_an_error_to_the_app(
    provider: Provider, changes: dict[str, str | None], error: str
) -> None:
    query = callback_query(provider.authorize(**changes))
    assert query["error"] == error
    assert query["state"] == "a state"
    assert query["iss"] == f"{provider.endpoint}/oidc"


def test_a_sign_in_ends_with_a_code_the_state_and_the_issuer(provider: Provider) -> None:
    query = callback_query(provider.authorize())
    assert query.keys() == {"code", "state", "iss"}
    assert query["state"] == "a state"
    assert query["iss"] == f"{provider.endpoint}/oidc"


def test_the_token_response_has_the_same_members(provider: Provider) -> None:
    tokens = provider.sign_in()
    names = {"access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type"}
    assert tokens.keys() == names
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600


def test_the_id_token_has_the_claims_of_logto(provider: Provider) -> None:
    token = provider.sign_in()["id_token"]
    assert part(token, 0).keys() == {"alg", "kid"}
    assert part(token, 0)["alg"] == "ES384"
    claims = part(token, 1)
    # Only an application that requires a session for back-channel logout gets `sid`.
    assert claims.keys() - {"sid"} == {
        *{"sub", "name", "username", "preferred_username", "picture", "email", "email_verified"},
        *{"created_at", "updated_at", "aud", "exp", "iat", "iss"},
    }
    assert claims["aud"] == "bookstore"
    assert claims["created_at"] > 10**12, "milliseconds"


def test_an_access_token_for_no_resource_is_opaque(provider: Provider) -> None:
    assert len(provider.sign_in()["access_token"]) == 43


def test_offline_access_needs_the_consent_prompt(provider: Provider) -> None:
    assert "refresh_token" not in provider.sign_in(prompt=None)


def test_a_code_works_once(provider: Provider) -> None:
    code = provider.code()
    provider.exchange(code)
    expected = (400, "invalid_grant", "grant request is invalid")
    assert refusal(provider.exchange(code)) == expected


def test_a_code_that_is_used_again_revokes_the_tokens(provider: Provider) -> None:
    code = provider.code()
    access_token = provider.exchange(code).json()["access_token"]
    provider.exchange(code)
    assert provider.userinfo(access_token).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "x" * 43}, {"redirect_uri": f"{APP}/elsewhere"}, {"code": "made-up"}],
)
def test_a_code_works_only_for_its_request(provider: Provider, changes: dict[str, str]) -> None:
    response = provider.exchange(**{"code": provider.code(), **changes})
    assert refusal(response) == (400, "invalid_grant", "grant request is invalid")


def test_a_wrong_secret_is_refused_before_the_code_is_checked(provider: Provider) -> None:
    response = provider.exchange("made-up", client_secret="wrong")
    assert refusal(response) == (401, "invalid_client", "client authentication failed")


def test_the_secret_may_come_in_the_header(provider: Provider) -> None:
    response = provider.visitor.http.post(
        f"{provider.endpoint}/oidc/token",
        auth=("bookstore", "secret"),
        data={
            "grant_type": "authorization_code",
            "code": provider.code(),
            "redirect_uri": f"{APP}/callback",
            "code_verifier": VERIFIER,
        },
    )
    assert response.status_code == 200


def test_a_refresh_with_a_resource_gives_a_signed_token_for_it(provider: Provider) -> None:
    refresh_token = provider.sign_in()["refresh_token"]
    fields = {"refresh_token": refresh_token, "resource": RESOURCE}
    response = provider.token(grant_type="refresh_token", **fields).json()
    assert part(response["access_token"], 0).keys() == {"alg", "typ", "kid"}
    assert part(response["access_token"], 0)["typ"] == "at+jwt"
    claims = part(response["access_token"], 1)
    assert claims.keys() == {"jti", "sub", "iat", "exp", "scope", "client_id", "iss", "aud"}
    assert claims["aud"] == RESOURCE
    assert claims["scope"] == "read:books"


def test_a_refresh_token_is_not_rotated_while_it_is_young(provider: Provider) -> None:
    refresh_token = provider.sign_in()["refresh_token"]
    response = provider.token(grant_type="refresh_token", refresh_token=refresh_token).json()
    assert response["refresh_token"] == refresh_token


def test_a_resource_that_was_not_requested_at_the_sign_in_is_refused(provider: Provider) -> None:
    refresh_token = provider.sign_in(resource=None)["refresh_token"]
    fields = {"refresh_token": refresh_token, "resource": RESOURCE}
    response = provider.token(grant_type="refresh_token", **fields)
    assert refusal(response)[:2] == (400, "invalid_target")


def test_a_made_up_refresh_token_is_refused(provider: Provider) -> None:
    response = provider.token(grant_type="refresh_token", refresh_token="made-up")
    assert refusal(response) == (400, "invalid_grant", "grant request is invalid")


def test_userinfo_has_the_same_claims_as_the_id_token(provider: Provider) -> None:
    tokens = provider.sign_in()
    protocol = {"aud", "exp", "iat", "iss", "sid"}
    claims = {name: v for name, v in part(tokens["id_token"], 1).items() if name not in protocol}
    assert provider.userinfo(tokens["access_token"]).json() == claims


def test_userinfo_refuses_a_made_up_token(provider: Provider) -> None:
    response = provider.userinfo("made-up")
    assert refusal(response) == (401, "invalid_token", "invalid token provided")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_sign_out_leads_back_to_the_app(provider: Provider) -> None:
    provider.sign_in()
    assert provider.end_session().headers["location"] == f"{APP}/"
    assert provider.is_signed_out()


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"post_logout_redirect_uri": f"{APP}/elsewhere"}, "invalid_request"),
        ({"client_id": "another-app"}, "invalid_client"),
    ],
)
def test_a_refused_sign_out_leaves_the_user_signed_in(
    provider: Provider, query: dict[str, str], error: str
) -> None:
    provider.sign_in()
    assert refusal(provider.end_session(**query))[:2] == (400, error)
    assert not provider.is_signed_out()
