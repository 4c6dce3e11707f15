"""The unrendered local Logto, and a client that does what the browser and the app do."""

import base64
import hashlib
import importlib
import secrets
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from answers import TEMPLATE

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
    """Import the module from the template. It contains no Jinja, so it needs no rendering."""
    with pytest.MonkeyPatch.context() as patch:
        # Python must write no `__pycache__` into the template: every bake would contain it.
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(str(TEMPLATE))
        return importlib.import_module("dev.local_logto")


def start(**options: Any) -> Any:
    """Return a local Logto with these options, for a `with` statement."""
    defaults = {
        "app_id": APP,
        "redirect_uris": [CALLBACK],
        "post_logout_redirect_uris": [HOME],
        "resources": {API: ["read:books", "write:books"], OTHER_API: ["read:other"]},
    }
    return stand_in().LocalLogto(**(defaults | options))


@pytest.fixture
def logto() -> Iterator[Any]:
    """Run a local Logto."""
    with start() as logto:
        yield logto


class Browser:
    """Does what the browser and the app do in the protocol, over real HTTP."""

    def __init__(self, logto: Any) -> None:
        self.logto = logto
        self.http = httpx2.Client(base_url=logto.endpoint, timeout=10, verify=False)

    def authorize(self, **parameters: Any) -> httpx2.Response:
        """Request `/oidc/auth`. A parameter that is None is left out."""
        all_parameters = {
            "client_id": APP,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": SCOPE,
            "prompt": "consent",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "the-state",
        } | parameters
        present = {name: value for name, value in all_parameters.items() if value is not None}
        return self.http.get("/oidc/auth", params=present)

    def interaction(self, **parameters: Any) -> str:
        return httpx2.URL(self.authorize(**parameters).headers["Location"]).params["interaction"]

    def choose(self, interaction: str, **choice: str) -> httpx2.Response:
        return self.http.post("/sign-in", data={"interaction": interaction, **choice})

    def code(self, user: str = "alice", **parameters: Any) -> str:
        response = self.choose(self.interaction(**parameters), user=user)
        return query(response)["code"]

    def token(self, **form: str) -> httpx2.Response:
        return self.http.post("/oidc/token", data=SECRET | form)

    def exchange(self, code: str, **form: str) -> httpx2.Response:
        fields = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER} | form
        return self.token(grant_type="authorization_code", **fields)

    def refresh(self, refresh_token: str, **form: str) -> httpx2.Response:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    def sign_in(self, user: str = "alice", **parameters: Any) -> dict[str, Any]:
        """Sign in and return the tokens."""
        response = self.exchange(self.code(user, **parameters))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def userinfo(self, access_token: str) -> httpx2.Response:
        return self.http.get("/oidc/me", headers={"Authorization": f"Bearer {access_token}"})

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Check the signature of a JWT with the published keys, and return its claims."""
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


def query(response: httpx2.Response) -> dict[str, str]:
    """Return the query parameters of a redirect to the app's callback."""
    assert response.is_redirect, response.text
    target = urlsplit(response.headers["Location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == CALLBACK
    return {name: values[0] for name, values in parse_qs(target.query).items()}


def refused(response: httpx2.Response, status: int, error: str) -> bool:
    """Return whether a response is this error in the form that Logto uses."""
    body = response.json()
    assert (response.status_code, body["error"]) == (status, error), response.text
    return bool(body["error_description"] and body["code"] == f"oidc.{error}" and body["message"])
