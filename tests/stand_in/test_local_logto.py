"""The local Logto behaves like the real Logto, whose behaviour was measured."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from logto import LogtoClient, LogtoConfig, LogtoException, Storage, UserInfoScope
from processes import is_taken
from stand_in_client import API, APP, CALLBACK, HOME, Browser, start

# Metadata of the provider


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


# Records for tests, and protection against other sites


def test_the_local_logto_records_every_secret_and_every_request(browser: Browser) -> None:
    code = browser.code(resource=API)
    tokens = browser.exchange(code).json()
    jwt_token = browser.refresh(tokens["refresh_token"], resource=API).json()["access_token"]
    secrets = [code, tokens["access_token"], tokens["refresh_token"], tokens["id_token"], jwt_token]
    assert set(secrets) < set(browser.logto.issued)
    assert browser.logto.requests.count(("POST", "/oidc/token")) == 2
    assert ("GET", "/oidc/auth") in browser.logto.requests


def test_pictures_come_from_the_local_logto(browser: Browser) -> None:
    picture = browser.claims(browser.sign_in()["id_token"], APP)["picture"]
    response = httpx2.get(picture)
    assert response.headers["Content-Type"].startswith("image/svg+xml")
    assert "<svg" in response.text
    assert browser.http.get("/avatars/nobody.svg").status_code == 404


def test_users_keep_their_ids_after_a_restart(logto: Any) -> None:
    with start() as another:
        ids = {name: user.id for name, user in logto.users.items()}
        assert ids == {name: user.id for name, user in another.users.items()}
        assert all(len(id) == 12 and id.isalnum() and id.islower() for id in ids.values())


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.7:3001"])
def test_a_foreign_host_header_is_refused(browser: Browser, host: str) -> None:
    response = browser.http.get("/oidc/jwks", headers={"Host": host})
    assert response.status_code == 400
    assert "keys" not in response.text


OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "anything"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "LOGTO"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:1"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
]
SAME_SITE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin", "Origin": "LOGTO"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "LOGTO"},
    # A program, such as the app, sends neither header.
    {},
]


def sent(browser: Browser, headers: dict[str, str]) -> dict[str, str]:
    return {n: value.replace("LOGTO", browser.logto.endpoint) for n, value in headers.items()}


@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
def test_a_form_of_another_site_changes_nothing(browser: Browser, headers: dict[str, str]) -> None:
    browser.sign_in()
    (session,) = browser.logto.sessions
    interaction = browser.interaction(prompt="login")
    known = set(browser.logto.users)
    for path, form in (
        ("/", {"suspend": "alice"}),
        ("/", {"key": session}),
        ("/sign-in", {"interaction": interaction, "user": "bob"}),
        ("/sign-in", {"interaction": interaction, "new_user": "mallory"}),
        ("/sign-in", {"interaction": interaction, "cancel": "1"}),
    ):
        response = browser.http.post(path, data=form, headers=sent(browser, headers))
        assert response.status_code == 403
        assert "another site" in response.text
    assert not browser.logto.users["alice"].suspended
    assert list(browser.logto.sessions) == [session]
    assert set(browser.logto.users) == known
    assert interaction in browser.logto.interactions


@pytest.mark.parametrize("headers", SAME_SITE, ids=str)
def test_forms_of_the_local_logto_work(browser: Browser, headers: dict[str, str]) -> None:
    headers = sent(browser, headers)
    form = {"interaction": browser.interaction(), "user": "alice"}
    assert browser.http.post("/sign-in", data=form, headers=headers).is_redirect
    (session,) = browser.logto.sessions
    assert browser.http.post("/", data={"suspend": "bob"}, headers=headers).is_redirect
    assert browser.logto.users["bob"].suspended
    assert browser.http.post("/", data={"key": session}, headers=headers).is_redirect
    assert not browser.logto.sessions


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_local_logto_responds_to_the_names_of_this_machine(logto: Any, name: str) -> None:
    assert httpx2.get(f"http://{name}:{logto.port}/oidc/jwks").status_code == 200


def test_the_port_is_free_again_after_the_local_logto_stopped() -> None:
    with start() as logto:
        assert is_taken(logto.port)
        with pytest.raises(OSError, match="taken"):
            start(port=logto.port)
    assert not is_taken(logto.port)
    start(port=logto.port).stop()


# The SDK


class Memory(Storage):
    """A storage for the SDK: a dictionary."""

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
        response = browser.choose(page.url.params["interaction"], user="bob")
        await client.handleSignInCallback(response.headers["Location"])
        assert client.getIdTokenClaims().name == "Bob Baker"

        info = await client.fetchUserInfo()
        assert (info.username, info.email, info.picture) == ("bob", "bob@example.com", None)

        assert (await client.getAccessTokenClaims(API)).scope == "read:books"
        organization = await client.getOrganizationTokenClaims("bookclub0001")
        assert organization.aud == "urn:logto:organization:bookclub0001"

        first = await client.getAccessToken()
        stored = json.loads(str(memory.data["accessTokenMap"]))
        stored["x"][""]["expiresAt"] = 0
        memory.set("accessTokenMap", json.dumps(stored))
        assert await client.getAccessToken() not in (None, first)

        sign_out = browser.http.get(await client.signOut(HOME))
        assert sign_out.headers["Location"] == HOME

    asyncio.run(journey())
    assert ("GET", "/oidc/me") in logto.requests


def test_the_sdk_gets_an_invalid_grant_for_a_suspended_user(browser: Browser) -> None:
    config = LogtoConfig(endpoint=browser.logto.endpoint, appId=APP, appSecret="any-text")
    memory = Memory()
    client = LogtoClient(config, memory)

    async def journey() -> None:
        page = browser.http.get(await client.signIn(CALLBACK), follow_redirects=True)
        response = browser.choose(page.url.params["interaction"], user="alice")
        await client.handleSignInCallback(response.headers["Location"])
        browser.logto.suspend("alice")
        memory.delete("accessTokenMap")
        with pytest.raises(LogtoException, match="invalid_grant"):
            await client.getAccessToken()

    asyncio.run(journey())
