{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""Who may do what: roles, organizations, forms of other sites, and the first sign-in."""

from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from conftest import HOME, Auth, Client, Start
from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}, abort

from app.auth import current_user, logto, sign_in_required, user_signed_in
from dev.local_logto import LocalLogto

ORGANIZATIONS = "urn:logto:scope:organizations urn:logto:scope:organization_roles"
ORDERS = "https://orders.test.example"


@pytest.fixture
def app(app: {{ cookiecutter.__framework }}) -> {{ cookiecutter.__framework }}:
    """Return the app with the pages that these tests open."""

    @app.get("/test/admin")
    @sign_in_required(role="admin")
    async def admin_page() -> str:
        return "For admins"

    @app.post("/test/notes")
    @sign_in_required
    async def save_note() -> str:
        return "Saved"

    return app


async def test_a_page_for_a_role_needs_the_role(admin: Client, reader: Client) -> None:
    response = await admin.get("/test/admin")
    assert response.status_code == 200

    response = await reader.get("/test/admin")
    assert response.status_code == 403
    assert "the role “admin”" in await response.get_data(as_text=True)

    response = await reader.get("/test/admin", headers={"Accept": "application/json"})
    assert response.status_code == 403
    body = await response.get_json()
    assert body["error"] == "role_missing"
    assert "admin" in body["message"]


async def test_a_page_for_a_role_asks_a_signed_out_user_to_sign_in(client: Client) -> None:
    response = await client.get("/test/admin")
    assert response.headers["Location"] == "/sign-in?next=/test/admin"


async def test_a_role_that_was_removed_in_logto_is_gone_at_the_next_refresh(
    client: Client, auth: Auth, local_logto: LocalLogto, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lifetime is so short that the app refreshes the token at each page.
    monkeypatch.setattr(local_logto, "access_token_lifetime", 30)
    await auth.sign_in("alice")
    response = await client.get("/test/admin")
    assert response.status_code == 200

    monkeypatch.setattr(local_logto.users["alice"], "roles", ["reader"])

    response = await client.get("/test/admin")
    assert response.status_code == 403


async def test_the_profile_shows_the_roles(admin: Client) -> None:
    response = await admin.get("/profile")
    assert "admin, reader" in await response.get_data(as_text=True)


async def test_a_page_checks_the_membership_in_an_organization(start: Start) -> None:
    app = await start(LOGTO_SCOPES=ORGANIZATIONS)

    @app.get("/test/organizations/<organization_id>/members")
    @sign_in_required
    async def members(organization_id: str) -> str:
        if "admin" not in current_user.organizations.get(organization_id, ()):
            abort(403)
        return "Members"

    for user, status in (("alice", 200), ("bob", 403)):
        client = app.test_client()
        await Auth(client).sign_in(user)
        response = await client.get("/test/organizations/bookclub0001/members")
        assert response.status_code == status
        response = await client.get("/test/organizations/unknown/members")
        assert response.status_code == 403


async def test_without_the_scopes_a_user_has_no_organizations(start: Start) -> None:
    app = await start(LOGTO_SCOPES="email")

    @app.get("/test/mine")
    @sign_in_required
    async def mine() -> dict[str, int]:
        return {"roles": len(current_user.roles), "organizations": len(current_user.organizations)}

    client = app.test_client()
    await Auth(client).sign_in("alice")
    response = await client.get("/test/mine")
    assert await response.get_json() == {"roles": 0, "organizations": 0}


async def test_the_scopes_of_the_configuration_are_requested(start: Start) -> None:
    app = await start(LOGTO_SCOPES="phone custom_data read:orders", LOGTO_RESOURCES=ORDERS)
    response = await app.test_client().get("/sign-in")
    requested = parse_qs(urlsplit(response.headers["Location"]).query)
    assert {"phone", "custom_data", "read:orders"} <= set(requested["scope"][0].split())
    assert ORDERS in requested["resource"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": HOME.rstrip("/")},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_a_form_of_another_site_is_refused(admin: Client, headers: dict[str, str]) -> None:
    response = await admin.post("/test/notes", headers=headers)
    assert response.status_code == 403
    assert "This form was not sent" in await response.get_data(as_text=True)


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": HOME.rstrip("/")}, {}]
)
async def test_a_form_of_the_app_is_saved(admin: Client, headers: dict[str, str]) -> None:
    response = await admin.post("/test/notes", headers=headers)
    assert await response.get_data(as_text=True) == "Saved"


async def test_each_sign_in_sends_one_signal(app: {{ cookiecutter.__framework }}) -> None:
    seen = []

    async def note(sender: {{ cookiecutter.__framework }}, user: object) -> None:
        seen.append((sender, current_user.sub, user == current_user))

    with user_signed_in.connected_to(note):
        client = app.test_client()
        await client.get("/")
        await Auth(client).sign_in("alice")
        await client.get("/profile")
    assert seen == [(app, "k3v9x0q2m7ae", True)]
{% endfilter %}
{% endfilter %}


{{ cookiecutter.__async }}def test_a_page_calls_another_api_with_a_token_of_the_user(
    start: Start, local_logto: LocalLogto, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = ["read:orders", "write:orders"]
    monkeypatch.setitem(local_logto.resources, ORDERS, scopes)
    app = {{ cookiecutter.__await }}start(LOGTO_SCOPES=" ".join(scopes), LOGTO_RESOURCES=ORDERS)

    @app.get("/test/orders")
    @sign_in_required
    async def orders() -> str:
        # A real page sends the token to the other service. This page returns it.
        return await logto.access_token(ORDERS)

    client = app.test_client()
    {{ cookiecutter.__await }}Auth(client).sign_in("bob")
    response = {{ cookiecutter.__await }}client.get("/test/orders")
    token = {{ cookiecutter.__await }}response.get_data(as_text=True)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == ORDERS
    assert claims["scope"] == "read:orders"
