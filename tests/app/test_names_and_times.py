"""Unusual names of users and invalid times: every page can still be shown."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx2
import pytest
from sites import Site, both_frameworks

Sites = Callable[..., Site]

RIGHT_TO_LEFT, ZERO_WIDTH, JOINER = "\u202e", "\u200b", "\u200d"
GERMANY, ACUTE = "\U0001f1e9\U0001f1ea", "\u0301"
PROGRAMMER = f"\U0001f469{JOINER}\U0001f4bb"

# The name, the text that the page shows (None: the username), and the letter of the avatar.
NAMES = [
    ("Bob Baker", "Bob Baker", "B"),
    ("bob baker", "bob baker", "B"),
    ("", None, "B"),
    ("   ", None, "B"),
    ("\u00a0\u3000\t", None, "B"),
    (f"{RIGHT_TO_LEFT}{ZERO_WIDTH} ", None, "B"),
    (f"{RIGHT_TO_LEFT}evil", f"{RIGHT_TO_LEFT}evil", "E"),
    (f"{ZERO_WIDTH} {JOINER}ada", f"{ZERO_WIDTH} {JOINER}ada", "A"),
    (f"{GERMANY} Anna", f"{GERMANY} Anna", GERMANY),
    (f"{PROGRAMMER} Ada", f"{PROGRAMMER} Ada", "\U0001f469"),
    ("\u00dfeta", "\u00dfeta", "\u00df"),
    ("\ufb01ona", "\ufb01ona", "\ufb01"),
    (f"e{ACUTE}lodie", f"e{ACUTE}lodie", "\u00c9"),
    ("\u5c71\u7530", "\u5c71\u7530", "\u5c71"),
    ("\u0915\u093f\u0930\u0928", "\u0915\u093f\u0930\u0928", "\u0915"),
    ("<b>&amp;", "<b>&amp;", "<"),
]
NAN, INFINITE = float("nan"), float("inf")
TIMES: list[Any] = [
    *(10**20, -(10**20), 10**400, 1e300, NAN, INFINITE, -INFINITE),
    *("yesterday", "1767225600000", [], [1767225600000], {}, None),
]


@pytest.fixture
def bob(sites: Sites, framework: str) -> Iterator[Any]:
    """Return a user without a picture, whose data the test may change."""
    user = sites(framework).logto.local.users["bob"]
    before = vars(user).copy()
    yield user
    vars(user).update(before)


@both_frameworks
def test_the_avatar_shows_the_first_visible_letter(sites: Sites, framework: str, bob: Any) -> None:
    site = sites(framework)
    browser = site.browser()
    for name, shown, letter in NAMES:
        bob.name = name
        browser.sign_in(user="bob")
        page = browser.get("/").text
        found = re.search(r'<span class="avatar" aria-hidden="true">(.*?)</span>', page)
        assert found, name
        assert unescape(found[1]) == letter, name
        assert f"<h1>Hello, <bdi>{shown or 'bob'}</bdi></h1>" == unescape(
            "".join(re.findall(r"<h1>.*</h1>", page))
        )
        assert browser.get("/profile").status_code == 200
        browser.post("/sign-out")


@both_frameworks
def test_the_picture_of_the_local_logto_shows_a_letter_too(
    sites: Sites, framework: str, bob: Any
) -> None:
    site = sites(framework)
    for name, shown, letter in NAMES:
        bob.name = name
        picture = httpx2.get(f"{site.logto.endpoint}/avatars/bob.svg")
        found = re.search(r"<text[^>]*>(.*)</text>", picture.text)
        assert found
        # The picture does not change the case of a letter, and drops a combining accent.
        expected = {"\u00c9": "E"}.get(letter, letter) if shown else "?"
        assert unescape(found[1]).lower() == expected.lower(), name


@both_frameworks
def test_an_invalid_time_is_not_shown(sites: Sites, framework: str, bob: Any) -> None:
    browser = sites(framework).browser()
    browser.sign_in(user="bob")
    assert "<dt>Member since</dt>" in browser.get("/profile").text
    for value in TIMES:
        bob.created_at = value
        assert browser.sign_in(user="bob").status_code == 302, value
        response = browser.get("/profile")
        assert response.status_code == 200, value
        assert "<dt>Last changed</dt>" in response.text
        assert "<dt>Member since</dt>" not in response.text, value
