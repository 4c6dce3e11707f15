"""The way in and out, against the local Logto."""

import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import CALLBACK, HOME, answer_of_logto, sign_in

from dev.local_logto import LocalLogto


def query(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


{{ cookiecutter.__async }}def text(client: Any, path: str) -> str:
    answer = {{ cookiecutter.__await }}client.get(path)
    return str({{ cookiecutter.__await }}answer.get_data(as_text=True))


{{ cookiecutter.__async }}def test_a_visitor_signs_in_sees_who_they_are_and_signs_out(client: Any) -> None:
    assert "Sign in" in {{ cookiecutter.__await }}text(client, "/")

    answer = {{ cookiecutter.__await }}sign_in(client)

    assert answer.headers["Location"] == "/"
    assert "Alice Archer" in {{ cookiecutter.__await }}text(client, "/")
    assert "alice@example.com" in {{ cookiecutter.__await }}text(client, "/profile")

    answer = {{ cookiecutter.__await }}client.post("/sign-out")

    assert query(answer.headers["Location"])["post_logout_redirect_uri"] == HOME
    assert "Alice Archer" not in {{ cookiecutter.__await }}text(client, "/")


{{ cookiecutter.__async }}def test_a_guarded_page_is_shown_after_the_sign_in_it_asks_for(client: Any) -> None:
    answer = {{ cookiecutter.__await }}client.get("/profile?tab=1")
    answer = {{ cookiecutter.__await }}sign_in(client, start=answer.headers["Location"])
    assert answer.headers["Location"] == "/profile?tab=1"


{{ cookiecutter.__async }}def test_a_script_is_told_to_sign_in_with_a_401(client: Any) -> None:
    answer = {{ cookiecutter.__await }}client.get("/profile", headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert ({{ cookiecutter.__await }}answer.get_json())["error"] == "sign_in_required"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
{{ cookiecutter.__async }}def test_next_leads_to_a_page_of_this_app_only(client: Any, target: str) -> None:
    to_logto = {{ cookiecutter.__await }}client.get("/sign-in", query_string={"next": target})
    answer = {{ cookiecutter.__await }}client.get(answer_of_logto(to_logto.headers["Location"]))
    assert answer.headers["Location"] == "/"


{{ cookiecutter.__async }}def test_the_host_header_does_not_change_the_redirect_uri(client: Any) -> None:
    answer = {{ cookiecutter.__await }}client.get("/sign-in", headers={"Host": "evil.example"})
    assert query(answer.headers["Location"])["redirect_uri"] == CALLBACK


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("/sign-in?connector=azuread", "direct_sign_in", "social:azuread"),
        ("/sign-up", "first_screen", "register"),
    ],
)
{{ cookiecutter.__async }}def test_logto_is_asked_for_the_right_first_page(
    client: Any, path: str, parameter: str, value: str
) -> None:
    answer = {{ cookiecutter.__await }}client.get(path, headers={"Accept-Language": "fi, en;q=0.5"})
    asked = query(answer.headers["Location"])
    assert asked[parameter] == value
    assert asked["ui_locales"] == "fi en"


{{ cookiecutter.__async }}def test_somebody_who_cancels_reads_that_and_can_try_again(client: Any) -> None:
    answer = {{ cookiecutter.__await }}sign_in(client, start="/sign-in?next=/profile", cancel="1")
    page = {{ cookiecutter.__await }}answer.get_data(as_text=True)
    assert "Sign-in was cancelled" in page
    assert "/sign-in?next=/profile" in page


{{ cookiecutter.__async }}def test_a_replayed_callback_asks_to_try_again(client: Any) -> None:
    to_logto = {{ cookiecutter.__await }}client.get("/sign-in")
    callback = answer_of_logto(to_logto.headers["Location"])
    {{ cookiecutter.__await }}client.get(callback)
    {{ cookiecutter.__await }}client.post("/sign-out")

    answer = {{ cookiecutter.__await }}client.get(callback)

    assert answer.status_code == 400
    assert "This sign-in has expired" in {{ cookiecutter.__await }}answer.get_data(as_text=True)


{{ cookiecutter.__async }}def test_a_callback_that_this_browser_did_not_ask_for_signs_nobody_in(app: Any) -> None:
    attacker, victim = app.test_client(), app.test_client()
    to_logto = {{ cookiecutter.__await }}attacker.get("/sign-in")
    callback = answer_of_logto(to_logto.headers["Location"])

    answer = {{ cookiecutter.__await }}victim.get(callback)

    assert answer.status_code == 400
    assert "Alice Archer" not in {{ cookiecutter.__await }}text(victim, "/")


{{ cookiecutter.__async }}def test_two_tabs_that_sign_in_at_once_both_end_signed_in(client: Any) -> None:
    first = ({{ cookiecutter.__await }}client.get("/sign-in?next=/profile")).headers["Location"]
    second = ({{ cookiecutter.__await }}client.get("/sign-in")).headers["Location"]
    assert ({{ cookiecutter.__await }}client.get(answer_of_logto(second))).headers["Location"] == "/"
    assert ({{ cookiecutter.__await }}client.get(answer_of_logto(first))).headers["Location"] == "/profile"
    assert "Alice Archer" in {{ cookiecutter.__await }}text(client, "/")


{{ cookiecutter.__async }}def test_the_next_user_of_a_browser_gets_nothing_of_the_last(client: Any) -> None:
    {{ cookiecutter.__await }}sign_in(client, user="alice")
    {{ cookiecutter.__await }}sign_in(client, user="bob")
    page = {{ cookiecutter.__await }}text(client, "/profile")
    assert "bob@example.com" in page
    assert "alice" not in page.lower()


{{ cookiecutter.__async }}def test_a_link_from_another_site_does_not_sign_anybody_out(signed_in: Any) -> None:
    answer = {{ cookiecutter.__await }}signed_in.get("/sign-out", headers={"Sec-Fetch-Site": "cross-site"})
    assert "Sign out of" in {{ cookiecutter.__await }}answer.get_data(as_text=True)
    assert "Alice Archer" in {{ cookiecutter.__await }}text(signed_in, "/")


{{ cookiecutter.__async }}def test_no_token_reaches_the_browser_or_the_log(
    client: Any, local_logto: LocalLogto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = {{ cookiecutter.__await }}sign_in(client)
    {{ cookiecutter.__await }}client.get("/profile")
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    seen = str(answer.headers) + "\n".join(logged)
    assert "Signed in: sub=" in seen
    assert not [secret for secret in local_logto.issued if secret in seen]
