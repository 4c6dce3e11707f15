"""Baked apps with an API that run as in production, and calls to them."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import httpx2
import pytest
import sites
from access_tokens import API, SCOPES
from conftest import Bake
from sites import Site

PAGE = "https://shop.example"
INTERVAL = 0.5
"""Seconds between two fetches of the keys in the apps of these tests that do not wait for 30."""

HTTP = httpx2.Client(timeout=10)

both_frameworks = pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"{name} api")) for name in sites.FRAMEWORKS],
)


@pytest.fixture(scope="session")
def start(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Start an app with an API, and its Logto."""
    with ExitStack() as stack:

        def start(framework: str, **variables: Any) -> Site:
            project = bake(framework=framework, api_resource=API)
            store = f"sqlite:///{tmp_path_factory.mktemp('sessions')}/sessions.sqlite3"
            site = stack.enter_context(
                sites.serving(
                    project,
                    framework,
                    store,
                    TEST_APP="served_api:create_app",
                    LOGTO_API_RESOURCE=API,
                    API_ALLOWED_ORIGINS=f"{PAGE}, http://localhost:5173/",
                    **variables,
                )
            )
            site.logto.local.resources[API] = SCOPES
            return site

        yield start


@pytest.fixture(scope="session")
def site_of(start: Callable[..., Site]) -> Callable[..., Site]:
    """Give the app of a framework with these variables, started when it is first asked for."""
    return cache(start)


@pytest.fixture
def site(site_of: Callable[..., Site], framework: str) -> Site:
    """An app that runs all the time, under the rules of production."""
    return site_of(framework)


@pytest.fixture
def short_interval_site(site_of: Callable[..., Site], framework: str) -> Site:
    """An app that asks for new keys soon again, and has not done so just now."""
    site = site_of(framework, TEST_KEY_INTERVAL=str(INTERVAL), TEST_RETRY="0.2")
    time.sleep(INTERVAL)
    return site


def call(site: Site, bearer: str | None = None, path: str = "/api/me", **options: Any) -> Any:
    headers = options.pop("headers", {})
    if bearer is not None:
        site.secrets |= {bearer} if len(bearer) > 20 else set()
        headers |= {"Authorization": f"Bearer {bearer}"}
    return HTTP.request(options.pop("method", "GET"), site.url + path, headers=headers, **options)


def challenge(answer: httpx2.Response, realm: str = API) -> dict[str, str]:
    """The parameters of the answer's challenge, each of which is a quoted text."""
    scheme, _, parameters = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    values = dict(re.findall(r'(\w+)="([^"]*)"', parameters))
    assert parameters == ", ".join(f'{name}="{value}"' for name, value in values.items())
    assert values.pop("realm") == realm
    return values


def assert_refused(answer: httpx2.Response, status: int, error: str) -> None:
    """Assert that the answer is as RFC 6750 section 3 has it, with the app's JSON."""
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    said = challenge(answer)
    assert said["error"] == error
    assert answer.json() == {"error": error, "message": said["error_description"]}
