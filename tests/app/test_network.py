"""An app that reaches Logto only through the proxy of a company, with a private CA."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from company_network import ENDPOINT, NAME, PASSWORD, Network, offices_of, proxies
from conftest import Bake
from sites import Browser, Site, assert_says, both_frameworks, serving
from token_faults import ALICE, DISCOVERY, end_pause_after


@dataclass(frozen=True)
class Office:
    """An app and the network that it runs in."""

    site: Site
    network: Network

    def sign_in(self) -> tuple[Browser, httpx2.Response]:
        """Sign a user in, and return the browser and the response of the callback."""
        browser = self.site.browser()
        page = browser.start()
        assert page.startswith(f"{ENDPOINT}/oidc/auth?")
        return browser, browser.get(browser.answer(self.network.local(page)))


Offices = Callable[[str], Office]


@pytest.fixture(scope="module")
def offices(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    """Return the office of a framework. It starts at the first request for it."""

    def build(framework: str, folder: Path, network: Network, stack: ExitStack) -> Office:
        variables: dict[str, Any] = proxies(https=network.proxy.url) | {
            "LOGTO_ENDPOINT": ENDPOINT,
            "SSL_CERT_FILE": str(network.authority),
        }
        url = f"sqlite:///{folder}/sessions.sqlite3"
        started = serving(bake(framework=framework), framework, url, **variables)
        site = stack.enter_context(started)
        site.secrets.add(PASSWORD)
        network.connect(site.logto)
        return Office(site, network)

    with offices_of(build, tmp_path_factory) as office:
        yield office


@both_frameworks
def test_every_call_goes_through_the_proxy(offices: Offices, framework: str) -> None:
    office = offices(framework)
    logto = office.site.logto
    with logto.expired_tokens():
        browser, response = office.sign_in()
    assert response.headers["Location"] == "/"
    profile = browser.get("/profile")
    assert "Alice Archer" in profile.text
    assert "Logto does not respond at the moment" not in profile.text
    signed_out = browser.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
    assert signed_out.headers["Location"].startswith(f"{ENDPOINT}/oidc/session/end?")
    assert logto.local.grants[-1].revoked
    # Only the proxy can resolve the host of Logto.
    assert set(office.network.proxy.requests) == {f"CONNECT {NAME}:443"}
    for path in (DISCOVERY, "/oidc/jwks", "/oidc/token", "/oidc/me", "/oidc/token/revocation"):
        assert logto.calls(path), path


@both_frameworks
def test_a_proxy_that_fails_is_named_in_the_log_and_signs_nobody_out(
    offices: Offices, framework: str
) -> None:
    office = offices(framework)
    site, network = office.site, office.network
    with site.logto.expired_tokens():
        browser, _ = office.sign_in()
    new_browser = site.browser()
    callback = new_browser.answer(network.local(new_browser.start()))
    with end_pause_after(site), site.log_lines() as lines, network.proxy_refusing():
        assert_says(new_browser.get(callback), 503, "Sign-in is unavailable", "/sign-in?next=/")
        assert browser.get("/test/guarded").text.startswith(ALICE)
    assert (
        len([line for line in lines if f"through the proxy {network.proxy.address}" in line]) == 2
    )
    before = site.logto.calls("/oidc/token")
    assert browser.get("/test/guarded").text.startswith(ALICE)
    assert site.logto.calls("/oidc/token") == before + 1


CREATE_AND_CALL = """
import asyncio, sys
from app import create_app
from app.auth import oidc

create_app()
print(asyncio.run(oidc.request("GET", sys.argv[1])).json["issuer"])
"""


@both_frameworks
def test_the_env_file_can_name_the_authority_and_the_proxy(
    offices: Offices, bake: Bake, framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = offices(framework).network
    project = replace(bake(framework=framework), path=tmp_path / "project")
    shutil.copytree(bake(framework=framework).path, project.path)
    lines = [f"SSL_CERT_FILE={network.authority}", f"HTTPS_PROXY={network.proxy.url}", ""]
    with (project.path / ".env").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines))
    for name in ("SSL_CERT_FILE", *proxies()):
        monkeypatch.delenv(name, raising=False)
    url = f"{ENDPOINT}{DISCOVERY}"
    done = project.attempt("python", "-c", CREATE_AND_CALL, url)
    assert done.stdout == f"{ENDPOINT}/oidc\n", done.stderr
