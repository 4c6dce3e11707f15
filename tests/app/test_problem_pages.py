"""The error pages: the app's texts, a link to continue, and an ID that is also in the log."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Bake, BakedProject
from sites import Browser, Site, assert_says, both_frameworks, serving
from werkzeug.exceptions import HTTPException, default_exceptions

Sites = Callable[..., Site]

TITLES = {
    400: "This request is not valid",
    401: "You are not signed in",
    403: "You cannot do this",
    404: "This page does not exist",
    405: "This page cannot be used like this",
    413: "This is too large",
    429: "Too many requests",
    503: "This page is unavailable",
    418: "This did not work",
}
HOME = 'href="/">Go to the home page</a>'
SIGN_OUT = '<button class="quiet">Sign out</button>'
REFERENCE = re.compile(r"<code>([0-9a-f]{8})</code>")
JSON = {"Accept": "application/json"}


def framework_text(status: int) -> str:
    """Return the framework's text for a status."""
    error: type[HTTPException] = default_exceptions[status]
    return str(error.description)


@both_frameworks
@pytest.mark.parametrize("status", TITLES)
def test_an_error_page_has_the_text_of_the_app(sites: Sites, framework: str, status: int) -> None:
    browser = sites(framework).browser()
    response = browser.get(f"/test/abort/{status}")
    assert_says(response, status, TITLES[status])
    assert HOME in response.text
    assert framework_text(status) not in response.text
    message = browser.get(f"/test/abort/{status}", headers=JSON).json()["message"]
    assert message
    assert message != framework_text(status)
    assert message in response.text


@both_frameworks
@pytest.mark.parametrize("status", [status for status in TITLES if status != 500])
def test_the_description_of_a_view_replaces_the_text(
    sites: Sites, framework: str, status: int
) -> None:
    browser = sites(framework).browser()
    path = f"/test/abort/{status}?description=Ask+the+editors."
    assert "<p>Ask the editors.</p>" in browser.get(path).text
    assert browser.get(path, headers=JSON).json()["message"] == "Ask the editors."


@both_frameworks
def test_a_signed_in_user_keeps_the_navigation(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    for path in ("/nowhere", "/test/failure", "/test/abort/403", "/test/abort/503"):
        assert "<nav" not in browser.get(path).text
    browser.sign_in()
    for path in ("/nowhere", "/test/failure", "/test/abort/403", "/test/abort/503"):
        page = browser.get(path).text
        assert SIGN_OUT in page
        assert HOME in page


@both_frameworks
def test_without_the_store_pages_have_no_navigation(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    database = tmp_path / "sessions.sqlite3"
    database.mkdir()
    with serving(bake(framework=framework), framework, f"sqlite:///{database}") as site:
        browser = site.browser()
        browser.http.cookies.set("bookstore-session", "of-an-earlier-file".ljust(43, "x"))
        down, not_found = browser.get("/profile"), browser.get("/nowhere")
        assert_says(down, 503, "This page is unavailable", "/profile")
        assert_says(not_found, 404, "This page does not exist")
        for response in (down, not_found):
            assert "<nav" not in response.text
            assert HOME in response.text


@both_frameworks
def test_a_user_who_is_known_before_the_store_fails_sees_no_navigation(
    sites: Sites, framework: str
) -> None:
    browser = sites(framework).browser()
    browser.sign_in()
    response = browser.get("/test/lost")
    assert_says(response, 503, "This page is unavailable", "/test/lost")
    assert "<nav" not in response.text


@both_frameworks
@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        ("/test/failure", 500, "Something went wrong"),
        ("/test/abort/503", 503, "This page is unavailable"),
    ],
)
def test_a_failure_page_has_a_retry_link_and_an_id_that_is_in_the_log(
    sites: Sites, framework: str, path: str, status: int, title: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    with site.log_lines() as lines:
        responses = [
            browser.get(f"{path}?tab=1", headers={"X-Request-ID": "0badc0de"}) for _ in range(2)
        ]
    shown = []
    for response in responses:
        assert_says(response, status, title, f"{path}?tab=1")
        assert "0badc0de" not in response.text
        [reference] = REFERENCE.findall(response.text)
        shown.append(reference)
        # The same log line has the ID of the request, with which the traceback is found.
        [line] = [line for line in lines if reference in line]
        assert "0badc0de" in line
    assert shown[0] != shown[1]


@both_frameworks
def test_a_404_page_has_no_id_and_no_retry_link(sites: Sites, framework: str) -> None:
    browser = sites(framework).browser()
    assert not REFERENCE.search(browser.get("/nowhere").text)
    assert "Try again" not in browser.get("/nowhere").text


@contextmanager
def app_with_broken_link(bake: Bake, framework: str, folder: Path) -> Iterator[Browser]:
    """Serve an app whose navigation has a link to a view that does not exist."""
    project = BakedProject(folder / "bookstore", {"framework": framework})
    shutil.copytree(bake(framework=framework).path, project.path)
    base = project.path / "app/templates/base.html"
    text = base.read_text("utf-8")
    link = '{{ link("pages.home", "Home") }}'
    assert link in text
    base.write_text(text.replace(link, link + '{{ link("pages.gone", "Gone") }}'), "utf-8")
    url = f"sqlite:///{folder}/sessions.sqlite3"
    with serving(project, framework, url) as site:
        yield site.browser()


@both_frameworks
def test_with_a_mistake_in_the_navigation_the_error_page_is_still_shown(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with app_with_broken_link(bake, framework, tmp_path) as browser:
        browser.sign_in()
        response: Any = browser.get("/")
        assert_says(response, 500, "Something went wrong", "/")
        assert HOME in response.text
