"""A team that translates the app edits only `app/templates/`."""

import re
import shutil
import string
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from conftest import Bake, BakedProject
from sites import Site, both_frameworks, serving

STATUSES = (400, 401, 403, 404, 405, 413, 418, 429, 503)
PIECES = re.compile(r"(\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<[^>]*>)", re.DOTALL)
TEXT_ATTRIBUTES = re.compile(r'((?:alt|aria-label|title|placeholder)=")([^"{]+)(?=")')
LITERAL = re.compile(r'"([^"]*)"')
TEXT = re.compile(r"[A-Z].*|.* .*|yes|no")
"""The literals of an expression that are text for users. The other literals are names in code."""
OTHER_LETTERS = str.maketrans(
    string.ascii_letters, "ö" * len(string.ascii_lowercase) + "Ö" * len(string.ascii_uppercase)
)
NAMES = {
    "Bookstore",
    "Alice Archer",
    "alice@example.com",
    "alice",
    "Microsoft",
    "admin",
    "reader",
}
"""Names that are the same in every language."""


def translated(template: str) -> str:
    """Replace the letters of every text of a template, and change nothing else."""
    template = template.replace('"%d %B %Y"', '"%d.%m.%Y"').replace(
        'language = "en"', "language = 'de'"
    )

    def other(text: str) -> str:
        return text.translate(OTHER_LETTERS)

    def literal(found: re.Match[str]) -> str:
        return f'"{other(found[1])}"' if TEXT.fullmatch(found[1]) else found[0]

    pieces = PIECES.split(template)
    for number, piece in enumerate(pieces):
        if piece.startswith("<"):
            pieces[number] = TEXT_ATTRIBUTES.sub(lambda found: found[1] + other(found[2]), piece)
        elif piece.startswith(("{{", "{%")):
            pieces[number] = LITERAL.sub(literal, piece)
        elif not piece.startswith("{#"):
            pieces[number] = other(piece)
    return "".join(pieces)


class Reader(HTMLParser):
    """Collects the texts of a page, and the attributes that a screen reader reads aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.language: str | None = None
        self.texts: list[str] = []
        self._is_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.language = dict(attrs)["lang"]
        self._is_code = tag == "code"
        self.texts += [v for n, v in attrs if v and n in ("alt", "aria-label", "title")]

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        if not self._is_code:
            self.texts.append(data)


def english(page: str) -> list[str]:
    """Return the texts of a page that are not translated."""
    reader = Reader()
    reader.feed(page)
    assert reader.language == "de"
    found = []
    for text in reader.texts:
        rest = text.strip()
        for name in sorted(NAMES, key=len, reverse=True):
            rest = rest.replace(name, "")
        if re.search("[A-Za-z]{2}", rest):
            found.append(text.strip())
    return found


def pages(site: Site) -> Iterator[tuple[str, str]]:
    """Yield a name and the HTML of each page that the app can show."""
    browser = site.browser()
    # This page comes first, because later the app has the metadata of Logto in its cache.
    with site.logto.unreachable():
        yield "sign-in without Logto", browser.get("/sign-in").text
    for path in ("/", "/nowhere", "/test/failure", "/callback?state=gone"):
        yield path, browser.get(path).text
    for status in STATUSES:
        yield f"{status}", browser.get(f"/test/abort/{status}").text
    yield "cancelled", browser.get(browser.answer(browser.start(), cancel="1")).text
    yield "refused", browser.get("/callback?error=invalid_scope").text
    yield "a form too late", browser.post("/test/form").text
    yield "after the sign-in", browser.sign_in().text
    for path in ("/", "/profile", "/test/lost"):
        yield f"signed in, {path}", browser.get(path).text
    question = browser.get("/sign-out", headers={"Sec-Fetch-Site": "cross-site"})
    yield "sign-out?", question.text
    with site.logto.unreachable():
        yield "a profile without Logto", browser.get("/profile").text


@both_frameworks
def test_a_translation_of_the_templates_translates_every_page(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    project = BakedProject(tmp_path / "bookstore", {"framework": framework})
    shutil.copytree(bake(framework=framework).path, project.path)
    for file in (project.path / "app/templates").glob("*.*"):
        file.write_text(translated(file.read_text("utf-8")), "utf-8")
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(project, framework, url, TEST_SAMESITE="Strict") as site:
        seen = [(name, english(page)) for name, page in pages(site)]
    assert [(name, texts) for name, texts in seen if texts] == []
    assert len(seen) > 20
