"""The pages of the local Logto, and its redirects to the app after a sign-in."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from stand_in_client import APP, CALLBACK, HOME, Browser, query, refused


def test_an_unknown_app_gets_a_400_and_no_redirect(browser: Browser) -> None:
    assert refused(browser.authorize(client_id="nobody"), 400, "invalid_client")


def test_an_unregistered_redirect_uri_gets_a_400_and_no_redirect(browser: Browser) -> None:
    response = browser.authorize(redirect_uri=f"{CALLBACK}/")
    assert refused(response, 400, "invalid_redirect_uri")


def test_the_registration_can_change_while_it_runs(browser: Browser) -> None:
    browser.logto.application.redirect_uris.append("http://localhost:3000/other")
    assert browser.authorize(redirect_uri="http://localhost:3000/other").is_redirect


def test_a_sign_in_sends_code_state_and_issuer_to_the_app(browser: Browser) -> None:
    response = browser.choose(browser.interaction(), user="alice")
    returned = query(response)
    assert returned.keys() == {"code", "state", "iss"}
    assert returned["state"] == "the-state"
    assert returned["iss"] == f"{browser.logto.endpoint}/oidc"


def test_a_cancelled_sign_in_sends_access_denied_to_the_app(browser: Browser) -> None:
    returned = query(browser.choose(browser.interaction(), cancel="1"))
    assert returned["error"] == "access_denied"
    assert returned.keys() == {"error", "error_description", "state", "iss"}


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        pytest.param({"code_challenge": None}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain PKCE"),
        pytest.param({"code_challenge_method": None}, "invalid_request", id="no method"),
        pytest.param({"prompt": "select_account"}, "invalid_request", id="select_account"),
        pytest.param({"prompt": "none"}, "login_required", id="no session"),
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"resource": "https://unknown.example"}, "invalid_target", id="resource"),
    ],
)
def test_a_refused_request_sends_an_error_to_the_app(
    browser: Browser, parameters: dict[str, Any], error: str
) -> None:
    returned = query(browser.authorize(**parameters))
    assert returned["error"] == error
    assert returned["state"] == "the-state"


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
def test_the_first_page_is_the_requested_page(
    browser: Browser, parameters: dict[str, str], path: str, text: str
) -> None:
    target = browser.authorize(**parameters).headers["Location"]
    assert urlsplit(target).path == path
    page = browser.http.get(target)
    assert f"{text} " in page.text or f"{text}<" in page.text
    assert "not the real Logto" in page.text


def test_the_page_shows_the_app_the_users_and_the_requested_language(browser: Browser) -> None:
    browser.logto.application.name = "Tom & Jerry's <Books>"
    page = browser.http.get(browser.authorize(ui_locales="ja fr").headers["Location"]).text
    assert "would be ja fr," in page
    assert "Tom &amp; Jerry&#39;s &lt;Books&gt;" in page
    assert {"alice", "bob", "carol", "misaki"} < browser.logto.users.keys()
    assert "山田 美咲" in page
    assert 'value="alice"' in page


def test_a_language_cannot_carry_markup(browser: Browser) -> None:
    page = browser.http.get(browser.authorize(ui_locales='"><script>').headers["Location"]).text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_login_hint_focuses_the_user(browser: Browser) -> None:
    page = browser.http.get(browser.authorize(login_hint="bob@example.com").headers["Location"])
    assert 'value="bob" autofocus' in page.text
    assert page.text.count("autofocus") == 1


def test_a_new_user_can_register(browser: Browser) -> None:
    interaction = browser.interaction(first_screen="register")
    response = browser.choose(interaction, new_user="Grace Hopper", email="grace@example.com")
    tokens = browser.exchange(query(response)["code"]).json()
    claims = browser.claims(tokens["id_token"], APP)
    assert (claims["name"], claims["username"]) == ("Grace Hopper", "grace_hopper")
    assert claims["email"] == "grace@example.com"
    assert browser.logto.users["grace_hopper"].id == claims["sub"]


def test_two_users_of_the_same_name_get_two_accounts(browser: Browser) -> None:
    for _ in range(2):
        browser.choose(browser.interaction(prompt="login"), new_user="海")
    names = [user.username for user in browser.logto.users.values() if user.name == "海"]
    assert len(set(names)) == 2


def test_a_user_from_microsoft_has_no_email_and_no_username(browser: Browser) -> None:
    response = browser.choose(browser.interaction(), connector="azuread")
    claims = browser.claims(browser.exchange(query(response)["code"]).json()["id_token"], APP)
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
    response = browser.choose(interaction, user="alice")
    assert response.status_code == 400
    assert "This sign-in has expired" in response.text
    assert f'href="{HOME}"' in response.text


def test_an_expired_sign_in_without_an_app_links_to_the_start_page(browser: Browser) -> None:
    browser.logto.clear()
    assert 'href="/"' in browser.http.get("/sign-in?interaction=gone").text


def test_the_404_page_says_that_the_real_logto_may_have_the_page(browser: Browser) -> None:
    response = browser.http.get("/account")
    assert response.status_code == 404
    assert "There is no such page" in response.text
    assert "not the real Logto" in response.text
    assert f'href="{HOME}"' in response.text


def test_a_second_sign_in_in_the_same_browser_shows_no_page(browser: Browser) -> None:
    browser.sign_in("bob")
    tokens = browser.exchange(query(browser.authorize())["code"]).json()
    assert browser.claims(tokens["id_token"], APP)["username"] == "bob"


def test_another_browser_and_prompt_login_show_the_sign_in_page(browser: Browser) -> None:
    browser.sign_in("bob")
    assert browser.interaction(prompt="login")
    assert Browser(browser.logto).interaction()
