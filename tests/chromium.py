"""Chromium, started by Playwright once for each test module that needs it.

A module that uses `new_context` or `page` has a fixture `site`, a Site.
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
"""Milliseconds until what should be on a page is given up, also on a busy machine."""

SCREENSHOTS = ROOT / "build/screenshots"
AXE = ROOT / "tests/node/node_modules/axe-core/axe.min.js"
WIDTHS = {"narrow": 320, "tablet": 768, "wide": 1280}
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
RULES = {"target-size": {"enabled": True}, "color-contrast-enhanced": {"enabled": True}}
"""Rules of axe that are off unless somebody asks for them: targets, and a contrast of 7:1."""

NewContext = Callable[..., BrowserContext]


@dataclass(frozen=True)
class Site:
    """An app that `python -m dev` runs, and the local Logto beside it."""

    framework: str
    app: str
    logto: str


@pytest.fixture(scope="module")
def chromium_browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def new_context(chromium_browser: Browser, site: Site) -> Iterator[NewContext]:
    """Make a browser profile. What it complains of and whom it asks is looked at in the end."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    asked: set[str] = set()

    def listen(said: ConsoleMessage) -> None:
        # A page with an error status is a complaint about itself.
        own = said.page and said.location["url"] == said.page.url
        if said.type in ("error", "warning") and not own:
            complaints.append(said.text)

    def make(**options: Any) -> BrowserContext:
        context = chromium_browser.new_context(base_url=site.app, **options)
        context.set_default_timeout(TIMEOUT_MS)
        context.on("weberror", lambda fault: complaints.append(str(fault.error)))
        context.on("console", listen)
        context.on("request", lambda request: asked.add(origin(request.url)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
    assert asked - {"data://"} <= {site.app, site.logto}


@pytest.fixture
def page(new_context: NewContext) -> Page:
    return new_context().new_page()


@pytest.fixture
def page_with_axe(new_context: NewContext) -> Page:
    """A page for `accessibility_violations`."""
    if not AXE.exists():
        missing("npm packages")
    # Only so that axe can be put into the page.
    context = new_context(bypass_csp=True)
    context.add_init_script(path=AXE)
    return context.new_page()


def accessibility_violations(page: Page) -> list[tuple[str, str]]:
    """What axe finds: the rule, and the first element that breaks it."""
    found = page.evaluate("rules => axe.run({rules}).then(found => found.violations)", RULES)
    return [(barrier["help"], barrier["nodes"][0]["html"]) for barrier in found]


def origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def sign_in(page: Page, person: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name=person).click()


def screenshot(page: Page, name: str) -> None:
    """Keep a screenshot. A Chromium that is short of time can refuse the first."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    try:
        page.screenshot(path=SCREENSHOTS / name)
    except Error:
        page.wait_for_timeout(1000)
        page.screenshot(path=SCREENSHOTS / name)
