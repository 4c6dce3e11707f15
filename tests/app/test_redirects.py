"""The target of the redirect after a sign-in, for any value of `next`."""

import json
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_requests import quickly
from sites import Site, both_frameworks

Sites = Callable[..., Site]
BROWSER = """
    const {createInterface} = require("node:readline");
    createInterface({input: process.stdin}).on("line", (line) => {
        const [location, base] = JSON.parse(line);
        let origin;
        try { origin = new URL(location, base).origin; } catch { origin = "nowhere"; }
        console.log(JSON.stringify(origin));
    });
"""


@pytest.fixture(scope="session")
def resolve(node: str) -> Any:
    """Return the origin to which a browser goes from `base` (rules of the WHATWG URL standard)."""
    command = [node, "-e", BROWSER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as browser:
        requests, results = browser.stdin, browser.stdout
        assert requests
        assert results

        def resolve(location: str, base: str) -> str:
            requests.write(json.dumps([location, base]).encode() + b"\n")
            requests.flush()
            return str(json.loads(results.readline()))

        yield resolve
        requests.close()


ATTACKS = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: a=b",
    "\x00//evil.example",
    " //evil.example",
    "\u00a0//evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https://evil.example",
    "HTTPS://evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "//user:password@evil.example",
    "/;@evil.example",
    "/@evil.example",
    "@evil.example",
    ".evil.example",
    ":80",
    "?next=//evil.example",
    "#//evil.example",
    "/..//evil.example",
    "/.//evil.example",
    "/./\\evil.example",
    "/%5cevil.example",
    "/%2f/evil.example",
    "/%2e%2e//evil.example",
    "/%09/evil.example",
    "/\uff0f/evil.example",
    "/\u2215evil.example",
    "/\u202eevil",
    "/\ud83d\ude00",
    "//[evil",
    "/[evil",
    "/profile\u0085",
    "/" + "a" * 5000,
    "",
]
PIECES = ["/", "\\", ":", "@", "?", "#", "%2f", "%5c", ".", "..", "\t", "\n", "\r", "\x00", " ", "//",
          "https:", "evil.example", "user", "[", "]", ";", "\uff0f", "\u3002", "a"]  # fmt: skip
targets = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces)),
).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


@both_frameworks
def test_next_stays_in_the_app_for_every_browser(
    sites: Sites, framework: str, resolve: Any
) -> None:
    site = sites(framework)

    @quickly
    @given(targets)
    def stays(target: str) -> None:
        response = http.get("/test/redirect", params={"to": target})
        assert response.status_code == 302
        location = response.headers["Location"]
        assert resolve(location, f"{site.url}/callback?code=1") == site.url
        assert len(location) < 10_000

    for target in ATTACKS:
        stays = example(target)(stays) if "\ud83d" not in target else stays
    with httpx2.Client(base_url=site.url) as http:
        stays()


@both_frameworks
@pytest.mark.parametrize(
    "target", ["/profile", "/profile?tab=1&b=%26#part", "/a%3Fb", "/caf\u00e9"]
)
def test_next_leads_back_to_the_requested_page(sites: Sites, framework: str, target: str) -> None:
    browser = sites(framework).browser()
    location = browser.sign_in(f"/sign-in?{urlencode({'next': target})}").headers["Location"]
    assert location == quote(target, safe="/?&=#%")


@both_frameworks
@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https:evil.example"])
def test_a_whole_sign_in_with_a_foreign_next_leads_to_the_home_page(
    sites: Sites, framework: str, target: str
) -> None:
    browser = sites(framework).browser()
    assert browser.sign_in(f"/sign-in?{urlencode({'next': target})}").headers["Location"] == "/"
