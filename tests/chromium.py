"""Chromium, started by Playwright once for each test module that needs it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 30_000
"""Milliseconds until what should be on a page is given up, also on a busy machine."""


@pytest.fixture(scope="module")
def chromium_browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium, args=QUIET)
        yield launched
        launched.close()
