"""Layout and accessibility of all pages, and of the first page that a team adds.

Pages and style sheet are the same on both frameworks, so Quart shows them all.
"""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from answers import Answers, everything
from chromium import (
    WIDTHS,
    NewContext,
    Scheme,
    Site,
    accessibility_violations,
    screenshot,
    sign_in,
)
from conftest import FULL, Bake, BakedProject
from playwright.sync_api import Page, Route, expect
from processes import free_port
from sites import SERVED

APP = "متجر الكتب"
LONG = "Bartholomew".ljust(60, "x")
STYLE_LIMIT = 7000  # Bytes.

PAGES = """

@bp.get("/orders")
@sign_in_required
{async}def orders() -> str:
    return {await}render_template("orders.html")


@bp.get("/abort/<int:status>")
{async}def stop(status: int) -> None:
    __import__("{framework}").abort(status)
"""
LINK = """{{ link("pages.orders", "Orders") }}
      {# Add a line like"""
CHANGES = {
    "app/templates/base.html": ("{# Add a line like", LINK),
    "app/config.py": (
        '    "azuread": ("Microsoft", "social:azuread"),\n',
        '    "azuread": ("Microsoft", "social:azuread"),\n'
        '    "google": ("Google", "social:google"),\n',
    ),
}
"""The lines that a team writes to add a page to the navigation, and a sign-in button."""

# The colours depend on the scheme, and the layout depends on the width.
LOOKS: list[tuple[Scheme, str]] = [("light", "narrow"), ("dark", "tablet"), ("dark", "wide")]
PUBLIC = ["/", "/nowhere", "/abort/503"]
PRIVATE = ["/", "/profile", "/orders", "/nowhere", "/abort/429"]


@pytest.fixture(scope="module", params=FULL[1:])
def project(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> BakedProject:
    """Return a project with an Arabic name, to which a team has added a page."""
    answers: Answers = {**request.param, "project_name": APP, "project_slug": "bookstore"}
    folder = tmp_path_factory.mktemp("team") / "bookstore"
    shutil.copytree(bake(**answers).path, folder)
    shutil.copy(SERVED / "orders.html", folder / "app/templates")
    is_quart = answers["framework"] == "quart"
    words = {"framework": answers["framework"], "async": "async " if is_quart else ""}
    words["await"] = "await " if is_quart else ""
    with (folder / "app/pages.py").open("a", encoding="utf-8") as pages:
        pages.write(PAGES.format(**words))
    changes = {
        **CHANGES,
        "app/config.py ": ("ACCOUNT_PAGE = False", "ACCOUNT_PAGE = True"),
    }
    for name, (before, after) in changes.items():
        file = folder / name.strip()
        text = file.read_text("utf-8")
        assert before in text
        file.write_text(text.replace(before, after), "utf-8")
    return BakedProject(folder, answers)


@pytest.fixture(scope="module")
def site(project: BakedProject) -> Iterator[Site]:
    port, logto_port = free_port(), free_port()
    command = ["-m", "dev", "--port", str(port), "--logto-port", str(logto_port)]
    with project.fork("python", *command) as process:
        process.wait_for(f"http://localhost:{port}/")
        yield Site(
            str(project.answers["framework"]),
            app=f"http://localhost:{port}",
            logto=f"http://localhost:{logto_port}",
        )


def everywhere(page: Page, site: Site, user: str = "Rosalind") -> Iterator[str]:
    """Open all pages of the app and of the local Logto, and yield a name for each page."""
    for path in PUBLIC:
        page.goto(path)
        yield f"signed out, {path}"
    page.goto("/sign-in")
    yield "sign-in at Logto"
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Sign-in was cancelled")).to_be_visible()
    # A heading is visible before the style sheet has loaded.
    page.wait_for_load_state()
    yield "cancelled"
    page.goto("/sign-in?connector=azuread")
    yield "Microsoft"
    page.goto("/sign-up")
    yield "sign-up at Logto"
    page.get_by_label("Name").fill(user)
    page.get_by_role("button", name="Create account").click()
    for path in PRIVATE:
        page.goto(path)
        yield f"signed in, {path}"
    for path in ("/", "/nowhere", "/sign-in?interaction=gone"):
        page.goto(f"{site.logto}{path}")
        yield f"Logto, {path}"
    # The user follows a link on another origin: the port differs.
    page.evaluate("url => { location.href = url }", f"{site.app}/sign-out")
    expect(page.get_by_role("heading", name="Sign out of")).to_be_visible()
    page.wait_for_load_state()
    yield "sign-out"


def file_name(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the screen."""
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return max(width, 0)


def boxes(page: Page, selector: str) -> list[dict[str, Any]]:
    """Return the position, the size and the HTML of each visible element."""
    found: list[dict[str, Any]] = page.locator(selector).evaluate_all(
        """elements => elements.filter(e => e.checkVisibility()).map(e => {
            const {left, right, top, bottom, width, height} = e.getBoundingClientRect()
            return {left, right, top, bottom, width, height, html: e.outerHTML.slice(0, 120)}
        })"""
    )
    return found


def style(page: Page, selector: str, name: str) -> str:
    value: str = page.locator(selector).evaluate(
        "(element, name) => getComputedStyle(element)[name]", name
    )
    return value


def test_a_new_page_is_one_column_below_the_header(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    for width, height in ((1280, 2000), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto("/orders")
        sizes = [style(page, f"{tag} >> nth=0", "fontSize") for tag in ("h1", "h2", "p.lead", "p")]
        assert sizes[:2] == ["28px", "20px"]
        parts = boxes(page, "main > *")
        assert len({part["left"] for part in parts}) == 1
        assert max(part["right"] for part in parts) - parts[0]["left"] <= 64 * 16
        (header,) = boxes(page, "header")
        assert parts[0]["top"] - header["bottom"] <= 48
        # The brand and the text have the same left edge.
        assert boxes(page, ".brand")[0]["left"] == parts[0]["left"]


def test_the_elements_of_a_new_page_have_the_style_of_the_app(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    page.goto("/orders")
    elements = {"button", "select", "input", "textarea"}
    family = style(page, "body", "fontFamily")
    for tag in elements:
        assert style(page, f"main {tag} >> nth=0", "fontFamily") == family, tag
        assert style(page, f"main {tag} >> nth=0", "borderRadius") == "8px", tag
    assert style(page, "main td >> nth=0", "borderBottomStyle") == "solid"
    assert style(page, "main td.number >> nth=0", "textAlign") in ("end", "right")
    assert "mono" in style(page, "main p code", "fontFamily")
    colour = style(page, "main button", "backgroundColor")
    assert colour == style(page, ".skip", "backgroundColor")


@pytest.mark.parametrize(
    ("path", "name"), [("/", "Home"), ("/orders", "Orders"), ("/profile", "Profile")]
)
def test_the_navigation_marks_the_page_that_the_user_is_on(
    page: Page, site: Site, path: str, name: str
) -> None:
    sign_in(page, "Alice Archer")
    page.goto(path)
    expect(page.locator("[aria-current=page]")).to_have_text([name])
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
        ["Home", "Orders", "Profile"]
    )


def test_the_title_shows_whether_a_user_is_signed_in(page: Page, site: Site) -> None:
    page.goto("/")
    signed_out = page.title()
    sign_in(page, "Alice Archer")
    expect(page.get_by_role("heading", name="Alice Archer")).to_be_visible()
    assert APP in page.title()
    assert page.title() != signed_out


def test_the_home_page_names_the_files_to_change(
    page: Page, site: Site, project: BakedProject
) -> None:
    sign_in(page, "Alice Archer")
    expect(page.locator("main code")).to_have_count(2)
    files = page.locator("main code").all_text_contents()
    assert len(files) == 2
    assert all((project.path / file).is_file() for file in files)


def test_the_profile_begins_with_the_user_and_ends_with_the_user_id(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    page.goto("/profile")
    (first, *_) = page.locator("main > *").all()
    assert first.inner_text().split() == ["A", "Alice", "Archer", "alice@example.com"]
    expect(page.locator("dt")).to_have_text(
        ["E-mail verified", "Username", "Roles", "Member since", "Last changed", "User ID"]
    )
    assert "mono" in style(page, "dd:last-child >> nth=-1 >> code", "fontFamily")
    account = page.get_by_role("link", name="Manage your account")
    expect(account).to_have_attribute("href", f"{site.logto}/account")


def test_without_an_e_mail_the_profile_does_not_say_that_it_is_verified(
    page: Page, site: Site
) -> None:
    sign_in(page, "Carol Chen")
    page.goto("/profile")
    expect(page.locator("dt")).to_have_text(
        ["Username", "Roles", "Member since", "Last changed", "User ID"]
    )


def test_one_line_adds_a_sign_in_button(page: Page, site: Site) -> None:
    page.goto("/")
    buttons = page.get_by_role("link", name="Continue with")
    expect(buttons).to_have_text(["Continue with Microsoft", "Continue with Google"])
    with page.expect_request(lambda sent: "/oidc/auth" in sent.url) as sent:
        buttons.nth(1).click()
    assert "direct_sign_in=social%3Agoogle" in sent.value.url


def test_the_skip_link_covers_nothing_and_can_be_read(page: Page, site: Site) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    (link,) = boxes(page, ".skip:focus")
    (brand,) = boxes(page, ".brand")
    assert link["bottom"] <= brand["top"]
    assert link["left"] >= 0
    assert link["height"] >= 44
    assert style(page, ".skip", "backgroundColor") != "rgba(0, 0, 0, 0)"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Sign in")).to_be_focused()


def test_if_a_picture_does_not_load_the_avatar_shows_the_letter(page: Page, site: Site) -> None:
    def broken(route: Route) -> None:
        route.fulfill(content_type="image/svg+xml", body="not a picture")

    page.route("**/avatars/*", broken)
    sign_in(page, "Alice Archer")
    page.goto("/profile")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    for position in (0, 1):
        avatar = page.locator(".avatar").nth(position)
        expect(avatar).to_have_text("A")
        with_picture = avatar.screenshot()
        avatar.locator("img").evaluate("image => image.remove()")
        assert avatar.screenshot() == with_picture


def test_text_of_twice_the_size_and_long_names_fit_small_screens(page: Page, site: Site) -> None:
    for name in everywhere(page, site, LONG):
        for size, width in (("200%", 320), ("200%", 360), ("200%", 390), ("100%", 320)):
            page.set_viewport_size({"width": width, "height": 800})
            page.evaluate("size => { document.documentElement.style.fontSize = size }", size)
            assert overflow(page) == 0, (name, size, width)
        screenshot(page, f"{site.framework}-small-{file_name(name)}.png")


def test_the_logo_of_microsoft_does_not_shrink(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 320, "height": 800})
    page.goto("/")
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    (logo,) = boxes(page, "main svg")
    assert (logo["width"], logo["height"]) == (21, 21)


def test_names_cannot_change_the_direction_of_the_text_around_them(page: Page, site: Site) -> None:
    user = "ليلى"
    names_outside_bdi = """names => {
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = []
        while (texts.nextNode()) {
            const {data, parentElement} = texts.currentNode
            if (names.some(name => data.includes(name)) && !parentElement.closest("bdi"))
                found.push(data.trim())
        }
        return found
    }"""
    seen = []
    for name in everywhere(page, site, user):
        assert page.evaluate(names_outside_bdi, [APP, user]) == [], name
        seen += [text for text in (APP, user) if page.get_by_text(text).count()]
    assert {APP, user} <= set(seen)


def test_touch_targets_are_large_enough_for_a_finger(new_context: NewContext, site: Site) -> None:
    page = new_context(has_touch=True, is_mobile=True).new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    targets = "a, button, label:has(> input), input, select, textarea"
    # A link in a sentence is as high as its line, and a checkbox is part of its label.
    exempt = "main p:not(.card p) a, label > input, input[type=hidden], .skip"
    for name in everywhere(page, site):
        sizes = boxes(page, f":is({targets}):not({exempt})")
        small = [box for box in sizes if box["height"] < 44 or box["width"] < 44]
        assert sizes
        assert small == [], name


def test_every_page_is_accessible(page_with_axe: Page, site: Site) -> None:
    page = page_with_axe
    for name in everywhere(page, site):
        for scheme, screen in LOOKS:
            width = WIDTHS[screen]
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            seen = f"{site.framework}-page-{file_name(name)}-{scheme}-{screen}"
            screenshot(page, f"{seen}.png")
            assert accessibility_violations(page) == [], seen
            assert overflow(page) == 0, seen


def test_a_printed_page_has_the_text_and_no_navigation(page: Page, site: Site) -> None:
    sign_in(page, "Alice Archer")
    page.goto("/orders")
    page.emulate_media(media="print", color_scheme="dark")
    assert boxes(page, "nav, .skip") == []
    expect(page.get_by_role("heading", name="This week")).to_be_visible()
    # Black text on white paper, even with a dark colour scheme.
    assert style(page, "body", "color") == "rgb(28, 27, 34)"


def test_both_frameworks_have_the_same_pages(bake: Bake) -> None:
    flask, quart = (
        {
            name: content
            for name, content in bake(**answers).contents.items()
            if name.startswith(("app/static/", "app/templates/", "dev/templates/"))
        }
        for answers in everything(on=True)
    )
    assert len(flask) > 10
    assert flask == quart


def test_the_style_sheet_is_small_and_no_page_has_a_script(
    page: Page, site: Site, project: BakedProject
) -> None:
    assert (project.path / "app/static/style.css").stat().st_size <= STYLE_LIMIT
    for file in (project.path / "app/templates").rglob("*"):
        text = file.read_text("utf-8") if file.is_file() else ""
        assert "<script" not in text
        assert "style=" not in text
