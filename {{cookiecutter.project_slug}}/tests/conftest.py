"""The app under test, and the local Logto for it to talk to over real HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
{% if cookiecutter.framework == "quart" %}
from quart import Quart
{% else %}
from flask import Flask
{% endif %}

from app import create_app
{% if cookiecutter.api_resource %}
from app.api import SCOPES
{% endif %}
from app.config import Config
from dev.local_logto import LocalLogto

CALLBACK = "http://localhost:3000/callback"
HOME = "http://localhost:3000/"
{% if cookiecutter.api_resource %}
API = "https://api.test.example"
{% endif %}


@pytest.fixture(scope="session")
def local_logto() -> Iterator[LocalLogto]:
    with LocalLogto(
        app_id="test-app",
        redirect_uris=[CALLBACK],
        post_logout_redirect_uris=[HOME],
        {% if cookiecutter.api_resource %}
        resources={API: list(SCOPES)},
        {% endif %}
    ) as logto:
        yield logto


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
def app(config: Config) -> {{ cookiecutter.framework | capitalize }}:
    app = create_app(config)
    app.testing = True
    return app


@pytest.fixture
def client(app: {{ cookiecutter.framework | capitalize }}) -> Any:
    """A browser that nobody has signed in with."""
    return app.test_client()


@pytest.fixture
{{ cookiecutter.__async }}def signed_in(client: Any) -> Any:
    """A browser in which Alice is signed in."""
    {{ cookiecutter.__await }}sign_in(client)
    return client


{{ cookiecutter.__async }}def sign_in(client: Any, start: str = "/sign-in", **choice: str) -> Any:
    """Sign in as a person does, as `user="alice"` or another choice of the sign-in page."""
    to_logto = {{ cookiecutter.__await }}client.get(start)
    return {{ cookiecutter.__await }}client.get(answer_of_logto(to_logto.headers["Location"], **choice))


def answer_of_logto(address: str, **choice: str) -> str:
    """Choose on the sign-in page at this address; gives the callback with Logto's answer."""
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(address).url
        form = {"interaction": page.params["interaction"], **(choice or {"user": "alice"})}
        answer = browser.post(page.join("/sign-in"), data=form, follow_redirects=False)
    callback = urlsplit(answer.headers["Location"])
    return f"{callback.path}?{callback.query}"
