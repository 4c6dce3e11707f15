"""Chromium, which Playwright starts once for each test module.

A module that uses `new_context` or `page` must have a fixture `site` that returns a Site.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from answers import ROOT
from conftest import missing
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    expect,
    sync_playwright,
)

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TIMEOUT_MS = 30_000
"""Milliseconds that Playwright waits for an element. A busy machine needs this much."""

SCREENSHOTS = ROOT / "build/screenshots"
AXE = ROOT / "tests/node/node_modules/axe-core/axe.min.js"
WIDTHS = {"narrow": 320, "tablet": 768, "wide": 1280}
Scheme = Literal["light", "dark"]
SCHEMES: list[Scheme] = ["light", "dark"]
RULES = {"target-size": {"enabled": True}, "color-contrast-enhanced": {"enabled": True}}
"""Rules of axe that are off by default: the size of targets, and a contrast of 7:1."""

NewContext = Callable[..., BrowserContext]


@dataclass(frozen=True)
class Site:
    """The URLs of an app that `python -m dev` runs, and of its local Logto."""

    framework: str
    app: str
    logto: str


@pytest.fixture(scope="module")
def chromium_browser(chromium: str) -> Iterator[Browser]:
    """Start Chromium."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def new_context(chromium_browser: Browser, site: Site) -> Iterator[NewContext]:
    """Return a function that makes a browser context.

    At the end, check that there was no error and no warning in the console, and that all requests
    went to the app or to its Logto.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []
    origins: set[str] = set()

    def listen(message: ConsoleMessage) -> None:
        # Chromium logs an error for each page with an error status. Tests expect such pages.
        about_the_page = message.page and message.location["url"] == message.page.url
        if message.type in ("error", "warning") and not about_the_page:
            problems.append(message.text)

    def make(**options: Any) -> BrowserContext:
        context = chromium_browser.new_context(base_url=site.app, **options)
        context.set_default_timeout(TIMEOUT_MS)
        context.on("weberror", lambda fault: problems.append(str(fault.error)))
        context.on("console", listen)
        context.on("request", lambda request: origins.add(origin(request.url)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert problems == []
    assert origins - {"data://"} <= {site.app, site.logto}


@pytest.fixture
def page(new_context: NewContext) -> Page:
    return new_context().new_page()


@pytest.fixture
def page_with_axe(new_context: NewContext) -> Page:
    """Open a page that has axe, for `accessibility_violations`."""
    if not AXE.exists():
        missing("npm packages")
    # The Content-Security-Policy would block the script of axe.
    context = new_context(bypass_csp=True)
    context.add_init_script(path=AXE)
    return context.new_page()


def accessibility_violations(page: Page) -> list[tuple[str, str]]:
    """Return the violations that axe finds: the rule, and the first element that breaks it."""
    found = page.evaluate("rules => axe.run({rules}).then(found => found.violations)", RULES)
    return [(violation["help"], violation["nodes"][0]["html"]) for violation in found]


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def sign_in(page: Page, person: str) -> None:
    """Sign in as this person of the local Logto."""
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name=person).click()


def screenshot(page: Page, name: str) -> None:
    """Save a screenshot. On a busy machine, the first try can fail, so try twice."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    try:
        page.screenshot(path=SCREENSHOTS / name)
    except Error:
        page.wait_for_timeout(1000)
        page.screenshot(path=SCREENSHOTS / name)
