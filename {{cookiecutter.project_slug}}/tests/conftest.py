"""The app under test, and the local Logto, which the app calls over real HTTP."""

import os
{% if cookiecutter.__async %}
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
{% else %}
from collections.abc import Callable, Iterator
{% endif %}
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
{% if cookiecutter.__async %}
from quart import Quart, Response
from quart.typing import TestClientProtocol as Client
{% else %}
from flask import Flask
from flask.testing import FlaskClient as Client
from werkzeug.test import TestResponse as Response
{% endif %}

from app import create_app
{% if cookiecutter.api_resource %}
from app.api import SCOPES
{% endif %}
from app.config import Config
from dev.local_logto import LocalLogto

__all__ = ["CALLBACK", "HOME", "Auth", "Client", "Response", "Start", "callback_for"]

CALLBACK = "http://localhost:3000/callback"
HOME = "http://localhost:3000/"
{% if cookiecutter.api_resource %}
API = "https://api.test.example"
{% endif %}

{% if cookiecutter.__async %}
Start = Callable[..., Awaitable[Quart]]
{% else %}
Start = Callable[..., Flask]
{% endif %}
"""Takes settings that differ from the fixture `config`, and returns a new app."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the app from the environment, so that no test depends on yours."""
    settings = {field.name for field in fields(Config)}
    for name in list(os.environ):
        if name in settings or name.startswith(("AZURE_", "FLASK_", "LOGTO_"{{ ', "QUART_"' if cookiecutter.__async }})):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def local_logto() -> Iterator[LocalLogto]:
    with LocalLogto(
        app_id="test-app",
        redirect_uris=[CALLBACK],
        post_logout_redirect_uris=[HOME],
        {% if cookiecutter.api_resource %}
        resources={API: list(SCOPES)},
        {% endif %}
    ) as stand_in:
        yield stand_in


@pytest.fixture
def config(local_logto: LocalLogto, tmp_path: Path) -> Config:
    return Config(
        LOGTO_ENDPOINT=local_logto.endpoint,
        LOGTO_APP_ID="test-app",
        LOGTO_APP_SECRET="test-secret",
        LOGTO_CALLBACK_URL=CALLBACK,
        {% if cookiecutter.api_resource %}
        LOGTO_API_RESOURCE=API,
        {% endif %}
        SESSION_URL=os.environ.get("TEST_SESSION_URL")
        or f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    )


@pytest.fixture
{% if cookiecutter.__async %}
async def start(config: Config) -> AsyncIterator[Start]:
    """Start an app with other settings: `await start(LOG_FORMAT="json")`."""
    started: list[Quart] = []

    async def start_app(**changes: Any) -> Quart:
        app = create_app(replace(config, **changes))
        app.testing = True
        await app.startup()
        started.append(app)
        return app

    yield start_app
    for app in started:
        await app.shutdown()


@pytest.fixture
async def app(start: Start) -> Quart:
    return await start()


@pytest.fixture
def client(app: Quart) -> Client:
    """Return a browser in which nobody is signed in."""
    return app.test_client()
{% else %}
def start(config: Config) -> Start:
    """Build an app with other settings: `start(LOG_FORMAT="json")`."""

    def start_app(**changes: Any) -> Flask:
        app = create_app(replace(config, **changes))
        app.testing = True
        return app

    return start_app


@pytest.fixture
def app(start: Start) -> Flask:
    return start()


@pytest.fixture
def client(app: Flask) -> Client:
    """Return a browser in which nobody is signed in."""
    return app.test_client()
{% endif %}


class Auth:
    """Signs users in and out in one browser, with the local Logto."""

    def __init__(self, client: Client) -> None:
        self.client = client

    {{ cookiecutter.__async }}def sign_in(self, user: str = "alice", path: str = "/sign-in", **form: str) -> Response:
        """Sign in as this user of the local Logto, and return the response of the callback.

        Takes the path where the sign-in starts, and more fields of the form on the sign-in page.
        """
        redirect = {{ cookiecutter.__await }}self.client.get(path)
        callback = callback_for(redirect.headers["Location"], user=user, **form)
        return {{ cookiecutter.__await }}self.client.get(callback)

    {{ cookiecutter.__async }}def sign_out(self) -> Response:
        return {{ cookiecutter.__await }}self.client.post("/sign-out")


@pytest.fixture
def auth(client: Client) -> Auth:
    return Auth(client)


@pytest.fixture
{{ cookiecutter.__async }}def admin(app: {{ cookiecutter.__framework }}) -> Client:
    """Return a browser in which Alice is signed in, who has the role `admin`."""
    client = app.test_client()
    {{ cookiecutter.__await }}Auth(client).sign_in("alice")
    return client


@pytest.fixture
{{ cookiecutter.__async }}def reader(app: {{ cookiecutter.__framework }}) -> Client:
    """Return a browser in which Bob is signed in, who has the role `reader` only."""
    client = app.test_client()
    {{ cookiecutter.__await }}Auth(client).sign_in("bob")
    return client


def callback_for(sign_in_page: str, **form: str) -> str:
    """Send the form of the sign-in page at this URL, and return the callback for the app."""
    # Without `verify=False`, httpx2 would load all trusted certificates, which nothing here needs.
    with httpx2.Client(follow_redirects=True, trust_env=False, verify=False) as browser:
        page = browser.get(sign_in_page).url
        sent = {"interaction": page.params["interaction"], "user": "alice", **form}
        response = browser.post(page.join("/sign-in"), data=sent, follow_redirects=False)
    callback = urlsplit(response.headers["Location"])
    return f"{callback.path}?{callback.query}"
