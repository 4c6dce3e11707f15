"""A user signs in, opens pages and signs out in a browser, on both frameworks."""

from collections.abc import Iterator

import pytest
from answers import Answers
from chromium import (
    SCHEMES,
    WIDTHS,
    NewContext,
    Site,
    accessibility_violations,
    screenshot,
    sign_in,
)
from conftest import FULL, Bake
from playwright.sync_api import Page, expect
from processes import free_port


@pytest.fixture(scope="module", params=FULL)
def site(request: pytest.FixtureRequest, bake: Bake) -> Iterator[Site]:
    answers: Answers = request.param
    port, logto_port = free_port(), free_port()
    command = ["-m", "dev", "--port", str(port), "--logto-port", str(logto_port)]
    with bake(**answers).fork("python", *command) as process:
        process.wait_for(f"http://localhost:{port}/")
        yield Site(
            str(answers["framework"]),
            app=f"http://localhost:{port}",
            logto=f"http://localhost:{logto_port}",
        )


# The pages are the same on both frameworks. These tests depend on nothing else.
on_one_framework = pytest.mark.parametrize("site", FULL[:1], indirect=True)


def test_the_journey_from_sign_in_to_sign_out(page: Page, site: Site) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_text("This is not the real Logto")).to_be_visible()

    page.get_by_role("button", name="Alice Archer").click()
    expect(page).to_have_url(f"{site.app}/")
    expect(page.get_by_text("Alice Archer")).to_be_visible()

    page.get_by_role("link", name="Profile", exact=True).click()
    expect(page).to_have_url(f"{site.app}/profile")
    expect(page.get_by_text("alice@example.com")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{site.app}/")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_after_sign_out_logto_shows_its_sign_in_page_again(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_role("button", name="Bob Baker")).to_be_visible()


@on_one_framework
def test_the_picture_of_the_user_is_shown(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    shown = page.locator(".avatar img")
    expect(shown).to_be_visible()
    page.wait_for_load_state()
    assert shown.evaluate("image => image.complete && image.naturalWidth > 0")


@on_one_framework
def test_a_name_in_another_script_is_shown_as_it_is(page: Page, site: Site) -> None:
    sign_in(page, "山田 美咲")
    expect(page.get_by_role("heading", name="山田 美咲")).to_be_visible()


@on_one_framework
def test_a_user_without_a_picture_and_an_e_mail_signs_in(page: Page, site: Site) -> None:
    page.goto("/")
    page.get_by_role("link", name="Continue with Microsoft").click()
    page.get_by_role("button", name="Mika Salo").click()
    page.get_by_role("link", name="Profile", exact=True).click()
    expect(page.get_by_text("Mika Salo")).to_be_visible()
    expect(page.get_by_text("None")).to_have_count(0)


@on_one_framework
def test_continue_with_microsoft_skips_the_sign_in_page_of_logto(page: Page, site: Site) -> None:
    page.goto("/")
    page.get_by_role("link", name="Continue with Microsoft").click()
    expect(page.get_by_role("heading", name="Microsoft (simulated)")).to_be_visible()


@on_one_framework
def test_create_account_opens_the_registration_form(page: Page, site: Site) -> None:
    page.goto("/")
    page.get_by_role("link", name="Create account").click()
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()


@on_one_framework
def test_a_cancelled_sign_in_offers_to_try_again(page: Page, site: Site) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Sign-in was cancelled")).to_be_visible()
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("button", name="Bob Baker").click()
    expect(page.get_by_text("Bob Baker")).to_be_visible()


def test_a_sign_in_leads_back_to_the_guarded_page(page: Page, site: Site) -> None:
    page.goto("/profile")
    page.get_by_role("button", name="Bob Baker").click()
    expect(page).to_have_url(f"{site.app}/profile")


def test_two_tabs_that_sign_in_at_once_both_end_signed_in(
    new_context: NewContext, site: Site
) -> None:
    context = new_context()
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        tab.goto("/")
        tab.get_by_role("link", name="Sign in").click()
    for tab in tabs:
        tab.get_by_role("button", name="Alice Archer").click()
        expect(tab.get_by_role("heading", name="Alice Archer")).to_be_visible()


@on_one_framework
def test_the_keyboard_alone_is_enough(page: Page, site: Site) -> None:
    page.goto("/")
    press_tab_until(page, "Sign in")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.logto}/**")
    press_tab_until(page, "Bob Baker")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Bob Baker")).to_be_visible()


def press_tab_until(page: Page, name: str) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if name in page.evaluate(
            "document.querySelector('a:focus, button:focus')?.textContent ?? ''"
        ):
            return
    raise AssertionError(f"the Tab key does not lead to {name!r}")


@on_one_framework
def test_every_page_fits_the_screen_and_is_accessible(page_with_axe: Page, site: Site) -> None:
    page = page_with_axe

    def look(name: str) -> None:
        page.wait_for_load_state()
        width = WIDTHS["wide"]
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            seen = f"{site.framework}-{name}-{scheme}-wide"
            screenshot(page, f"{seen}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, seen
            assert accessibility_violations(page) == [], seen
            assert brightness(page) > 200 if scheme == "light" else brightness(page) < 60, seen

    page.goto("/")
    look("home")
    page.get_by_role("link", name="Sign in").click()
    look("logto-sign-in")
    page.get_by_role("button", name="Cancel").click()
    look("cancelled")
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("button", name="Alice Archer").click()
    page.get_by_role("heading", name="Alice Archer").wait_for()
    look("signed-in")
    page.get_by_role("link", name="Profile", exact=True).click()
    look("profile")
    page.goto("/callback?state=gone")
    expect(page).to_have_url(f"{site.app}/")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/sign-up")
    look("logto-register")


def brightness(page: Page) -> float:
    """Return the brightness of the page's background, from 0 to 255."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (float(part) for part in colour[4:-1].split(","))
    return (red + green + blue) / 3
