"""Signing out at the local Logto, and the logout tokens and webhooks that it sends to the app."""

import hmac
import json
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import httpx2
import jwt
import pytest
from processes import free_port
from stand_in_client import APP, CALLBACK, HOME, Browser, query, refused, stand_in, start


def end_session(browser: Browser, **parameters: str) -> httpx2.Response:
    return browser.http.get("/oidc/session/end", params=parameters)


def test_signing_out_redirects_to_the_registered_url(browser: Browser) -> None:
    browser.sign_in()
    response = end_session(browser, client_id=APP, post_logout_redirect_uri=HOME)
    assert response.headers["Location"] == HOME
    assert browser.interaction(), "the next sign-in must show the sign-in page"


def test_an_unregistered_url_is_refused_and_the_user_stays_signed_in(browser: Browser) -> None:
    browser.sign_in()
    response = end_session(browser, client_id=APP, post_logout_redirect_uri="https://evil.example/")
    assert refused(response, 400, "invalid_request")
    assert "code" in query(browser.authorize())


def test_an_unknown_app_cannot_sign_a_user_out(browser: Browser) -> None:
    browser.sign_in()
    response = end_session(browser, client_id="nobody", post_logout_redirect_uri=HOME)
    assert refused(response, 400, "invalid_client")
    assert "code" in query(browser.authorize())


def test_signing_out_without_a_url_shows_a_page(browser: Browser) -> None:
    browser.sign_in()
    response = end_session(browser, client_id=APP)
    assert (response.status_code, "signed out" in response.text) == (200, True)
    assert browser.interaction()


def test_a_refresh_token_outlives_the_session_at_logto(browser: Browser) -> None:
    offline = browser.sign_in()
    online = browser.sign_in(prompt="login")
    end_session(browser, client_id=APP, post_logout_redirect_uri=HOME)
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
    """A server in place of the app, which records logout tokens and webhooks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Inbox)
        self.url = f"http://localhost:{self.server_port}/backchannel-logout"
        self.received: list[tuple[str, str]] = []
        self.headers: list[Message] = []
        self.arrived = threading.Event()

    def logout_token(self) -> str:
        assert self.arrived.wait(5), "no logout token arrived"
        ((content_type, body),) = self.received
        assert content_type == "application/x-www-form-urlencoded"
        ((name, (token,)),) = parse_qs(body).items()
        assert name == "logout_token"
        return token


class Inbox(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.headers.append(self.headers)
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
def connected(receiver: Receiver) -> Iterator[Browser]:
    """Yield a browser at a local Logto that sends logout tokens to the receiver."""
    with start(backchannel_logout_uri=receiver.url) as logto:
        yield Browser(logto)


def test_signing_out_at_logto_sends_a_logout_token_to_the_app(
    connected: Browser, receiver: Receiver
) -> None:
    id_token = connected.claims(connected.sign_in()["id_token"], APP)
    end_session(connected, client_id=APP, post_logout_redirect_uri=HOME)
    token = receiver.logout_token()
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("ES384", "logout+jwt")
    claims = connected.claims(token, APP)
    assert claims.keys() == {"iss", "sub", "aud", "iat", "exp", "jti", "events", "sid"}
    assert claims["exp"] == claims["iat"] + 120
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert (claims["sub"], claims["sid"]) == (id_token["sub"], id_token["sid"])


def test_without_session_required_there_is_no_sid(connected: Browser, receiver: Receiver) -> None:
    connected.logto.application.backchannel_logout_session_required = False
    assert "sid" not in connected.claims(connected.sign_in()["id_token"], APP)
    end_session(connected, client_id=APP, post_logout_redirect_uri=HOME)
    assert "sid" not in connected.claims(receiver.logout_token(), APP)


def test_ending_a_session_at_the_local_logto_sends_a_logout_token(
    connected: Browser, receiver: Receiver
) -> None:
    connected.sign_in("bob")
    page = connected.http.get("/").text
    assert "Bob Baker" in page
    (key,) = connected.logto.sessions
    connected.http.post("/", data={"key": key})
    claims = connected.claims(receiver.logout_token(), APP)
    assert claims["sub"] == connected.logto.users["bob"].id
    assert connected.interaction()


def test_a_suspension_sends_no_logout_token(connected: Browser, receiver: Receiver) -> None:
    connected.sign_in()
    connected.http.post("/", data={"suspend": "alice"})
    assert connected.logto.users["alice"].suspended
    assert connected.interaction(), "the session at Logto is over"
    assert not receiver.arrived.wait(0.3)
    connected.http.post("/", data={"reinstate": "alice"})
    assert connected.sign_in()


KEY = "the-signing-key"


@pytest.mark.parametrize(("button", "suspended"), [("suspend", True), ("reinstate", False)])
def test_a_suspension_and_its_end_send_a_signed_webhook_to_the_app(
    connected: Browser, receiver: Receiver, button: str, suspended: bool
) -> None:
    logto, event = connected.logto, "User.SuspensionStatus.Updated"
    logto.users["alice"].suspended = not suspended
    url = {"url": receiver.url}
    logto.add_hook("other", name="other event", events=["User.Deleted"], config=url)
    logto.add_hook("off", name="off", events=[event], config=url)["enabled"] = False
    hook = logto.add_hook(KEY, name="ours", events=["User.Deleted", event], config=url)
    connected.http.post("/", data={button: "alice"})
    assert logto.users["alice"].suspended is suspended
    assert receiver.arrived.wait(5), "no webhook arrived"
    ((content_type, body),), (headers,) = receiver.received, receiver.headers
    assert content_type == "application/json"
    expected = hmac.new(KEY.encode(), body.encode(), "sha256").hexdigest()
    assert headers["logto-signature-sha-256"] == expected
    assert (headers["sec-fetch-mode"], headers["sec-fetch-site"]) == ("cors", None)
    sent = json.loads(body)
    assert (sent["hookId"], sent["event"]) == (hook["id"], event)
    assert sent["createdAt"]
    user = logto.users["alice"]
    assert sent["data"]["id"] == user.id
    assert sent["data"]["username"] == "alice"
    assert sent["data"]["isSuspended"] is suspended


def test_python_m_dev_registers_the_webhook_of_the_app() -> None:
    environ = {"LOGTO_CALLBACK_URL": CALLBACK, "LOGTO_WEBHOOK_SIGNING_KEY": KEY}
    for variables, urls in ((environ, [f"{HOME}webhooks/logto"]), ({}, [])):
        with stand_in().LocalLogto.for_app(variables, port=0) as logto:
            assert [hook["config"]["url"] for hook in logto.hooks] == urls
            assert all(hook["signingKey"] == KEY for hook in logto.hooks)
            logto.clear()
            assert logto.hooks == []


def test_an_app_that_is_down_does_not_block_the_sign_out(receiver: Receiver) -> None:
    dead = f"http://localhost:{free_port()}/"
    with start(backchannel_logout_uri=dead) as logto:
        browser = Browser(logto)
        browser.sign_in()
        response = end_session(browser, client_id=APP, post_logout_redirect_uri=HOME)
        assert response.headers["Location"] == HOME
