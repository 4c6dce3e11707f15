"""Baked apps with an API that run as in production, and calls to that API."""

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
"""Seconds between two fetches of the keys in `short_interval_site`. A real app waits for 30 s."""

HTTP = httpx2.Client(timeout=10)

both_frameworks = pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"{name} api")) for name in sites.FRAMEWORKS],
)


@pytest.fixture(scope="session")
def start(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Return a function that starts an app with an API, and its Logto."""
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
    """Return a function that gives the app of a framework with these variables.

    The first call for a framework and variables starts the app.
    """
    return cache(start)


@pytest.fixture
def site(site_of: Callable[..., Site], framework: str) -> Site:
    """Return an app that runs during the whole session, with the settings of production."""
    return site_of(framework)


@pytest.fixture
def short_interval_site(site_of: Callable[..., Site], framework: str) -> Site:
    """Return an app that fetches new keys at most every INTERVAL seconds.

    Its last fetch was at least INTERVAL seconds ago.
    """
    site = site_of(framework, TEST_KEY_INTERVAL=str(INTERVAL), TEST_RETRY="0.2")
    time.sleep(INTERVAL)
    return site


def call(site: Site, bearer: str | None = None, path: str = "/api/me", **options: Any) -> Any:
    """Send a request to the API, with this access token if there is one."""
    headers = options.pop("headers", {})
    if bearer is not None:
        site.secrets |= {bearer} if len(bearer) > 20 else set()
        headers |= {"Authorization": f"Bearer {bearer}"}
    return HTTP.request(options.pop("method", "GET"), site.url + path, headers=headers, **options)


def challenge(response: httpx2.Response, realm: str = API) -> dict[str, str]:
    """Return the parameters of `WWW-Authenticate`, and check that each value is quoted."""
    scheme, _, parameters = response.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    values = dict(re.findall(r'(\w+)="([^"]*)"', parameters))
    assert parameters == ", ".join(f'{name}="{value}"' for name, value in values.items())
    assert values.pop("realm") == realm
    return values


def assert_refused(response: httpx2.Response, status: int, error: str) -> None:
    """Check that an error response follows RFC 6750, section 3, and has the app's JSON."""
    assert (response.status_code, response.json()["error"]) == (status, error)
    parameters = challenge(response)
    assert parameters["error"] == error
    assert response.json() == {"error": error, "message": parameters["error_description"]}
