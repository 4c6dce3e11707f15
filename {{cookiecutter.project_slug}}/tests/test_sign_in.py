{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""Sign-in and sign-out, with the local Logto."""

import logging
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import HOME, Auth, Client, callback_for
from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}

from app.auth import sign_in_required
from dev.local_logto import LocalLogto


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def text(client: Client, path: str) -> str:
    response = await client.get(path)
    return str(await response.get_data(as_text=True))


async def test_a_user_signs_in_sees_the_profile_and_signs_out(client: Client, auth: Auth) -> None:
    assert "Sign in" in await text(client, "/")

    response = await auth.sign_in()

    assert response.headers["Location"] == "/"
    assert "Alice Archer" in await text(client, "/")
    assert "alice@example.com" in await text(client, "/profile")

    response = await auth.sign_out()

    assert query(response.headers["Location"])["post_logout_redirect_uri"] == HOME
    assert "Alice Archer" not in await text(client, "/")


async def test_a_guarded_page_is_shown_after_the_sign_in(client: Client, auth: Auth) -> None:
    response = await client.get("/profile?tab=1")
    response = await auth.sign_in(path=response.headers["Location"])
    assert response.headers["Location"] == "/profile?tab=1"


@pytest.mark.parametrize(
    ("header", "value"),
    [("Accept", "application/json"), ("Sec-Fetch-Mode", "cors"), ("HX-Request", "true")],
)
async def test_a_script_gets_a_401_and_no_sign_in(client: Client, header: str, value: str) -> None:
    response = await client.get("/profile", headers={header: value})
    assert response.status_code == 401
    assert "Set-Cookie" not in response.headers
    body = await response.get_json()
    assert body["error"] == "sign_in_required"


async def test_a_form_after_the_end_of_the_session_is_reported_as_not_saved(
    app: {{ cookiecutter.__framework }}, client: Client
) -> None:
    @app.post("/test/notes")
    @sign_in_required
    async def save() -> str:
        return "saved"

    response = await client.post("/test/notes", headers={"Referer": f"{HOME}test/notes?page=2"})

    assert response.status_code == 403
    page = await response.get_data(as_text=True)
    assert "Your text was not saved" in page
    assert "/sign-in?next=/test/notes?page%3D2" in page


async def test_head_and_a_prefetch_do_not_use_up_the_callback(client: Client) -> None:
    to_logto = await client.get("/sign-in?next=/profile")
    callback = callback_for(to_logto.headers["Location"])
    await client.head(callback)
    await client.get(callback, headers={"Sec-Purpose": "prefetch"})
    response = await client.get(callback)
    assert response.headers["Location"] == "/profile"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_next_leads_only_to_a_page_of_this_app(client: Client, target: str) -> None:
    to_logto = await client.get("/sign-in", query_string={"next": target})
    response = await client.get(callback_for(to_logto.headers["Location"]))
    assert response.headers["Location"] == "/"


async def test_a_sign_in_on_another_host_name_starts_on_the_host_of_the_app(client: Client) -> None:
    response = await client.get("/sign-in?next=/profile", headers={"Host": "127.0.0.1:3000"})
    assert response.headers["Location"] == f"{HOME}sign-in?next=/profile"


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("/sign-in?connector=azuread", "direct_sign_in", "social:azuread"),
        ("/sign-up", "first_screen", "register"),
    ],
)
async def test_the_sign_in_starts_on_the_requested_page(
    client: Client, path: str, parameter: str, value: str
) -> None:
    response = await client.get(path, headers={"Accept-Language": "fi, en;q=0.5"})
    requested = query(response.headers["Location"])
    assert requested[parameter] == value
    assert requested["ui_locales"] == "fi en"


async def test_a_user_who_cancels_can_try_again(auth: Auth) -> None:
    response = await auth.sign_in(path="/sign-in?next=/profile", cancel="1")
    page = await response.get_data(as_text=True)
    assert "Sign-in was cancelled" in page
    assert "/sign-in?next=/profile" in page


async def test_a_replayed_callback_asks_to_try_again(client: Client, auth: Auth) -> None:
    to_logto = await client.get("/sign-in")
    callback = callback_for(to_logto.headers["Location"])
    await client.get(callback)
    await auth.sign_out()

    response = await client.get(callback)

    assert response.status_code == 400
    assert "This sign-in has expired" in await response.get_data(as_text=True)


async def test_a_callback_of_another_browser_signs_nobody_in(app: {{ cookiecutter.__framework }}) -> None:
    attacker, victim = app.test_client(), app.test_client()
    to_logto = await attacker.get("/sign-in")
    callback = callback_for(to_logto.headers["Location"])

    response = await victim.get(callback)

    assert response.status_code == 400
    assert "Alice Archer" not in await text(victim, "/")


async def test_two_tabs_that_sign_in_at_once_are_both_signed_in(client: Client) -> None:
    first = await client.get("/sign-in?next=/profile")
    second = await client.get("/sign-in")
    for started, target in ((second, "/"), (first, "/profile")):
        response = await client.get(callback_for(started.headers["Location"]))
        assert response.headers["Location"] == target
    assert "Alice Archer" in await text(client, "/")


async def test_the_next_user_sees_nothing_of_the_last_user(client: Client, auth: Auth) -> None:
    await auth.sign_in("alice")
    await auth.sign_in("bob")
    page = await text(client, "/profile")
    assert "bob@example.com" in page
    assert "alice" not in page.lower()


async def test_a_link_from_another_site_signs_nobody_out(client: Client, auth: Auth) -> None:
    await auth.sign_in()
    response = await client.get("/sign-out", headers={"Sec-Fetch-Site": "cross-site"})
    assert "Sign out of" in await response.get_data(as_text=True)
    assert "Alice Archer" in await text(client, "/")


async def test_no_token_reaches_the_browser_or_the_log(
    client: Client, auth: Auth, local_logto: LocalLogto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    response = await auth.sign_in()
    await client.get("/profile")
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    seen = str(response.headers) + "\n".join(logged)
    assert "Signed in: sub=" in seen
    assert not [secret for secret in local_logto.issued if secret in seen]
{% endfilter %}
{% endfilter %}
