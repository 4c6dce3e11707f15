"""`logto check` and `logto provision` in the network of a company."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from company_network import (
    ENDPOINT,
    NAME,
    PASSWORD,
    UNREACHABLE_PROXY,
    Network,
    offices_of,
    proxies,
)
from conftest import Bake
from logto_commands import CommandResult, Commands, commands
from sites import both_frameworks
from token_faults import DISCOVERY, recording


class Office:
    """The commands of a bake, with a Logto whose host only the proxy can resolve."""

    def __init__(self, started: Commands, network: Network) -> None:
        self.commands, self.network = started, network
        self.logto = started.logto
        self.trusted = {"SSL_CERT_FILE": str(network.authority)}

    def check(self, endpoint: str = ENDPOINT, **variables: str) -> CommandResult:
        """Run `logto check`. The variables are the whole proxy configuration."""
        done = self.commands.check(LOGTO_ENDPOINT=endpoint, **variables)
        assert PASSWORD not in done.text
        return done

    def at(self, endpoint: str) -> "Office":
        """Move Logto to this endpoint, and forget the earlier requests to the proxy."""
        self.network.connect(self.logto, endpoint)
        self.network.proxy.requests.clear()
        return self


Offices = Callable[[str], Office]


@pytest.fixture(scope="module")
def offices(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    """Return the office of a framework. It starts at the first request for it."""

    def build(framework: str, folder: Path, network: Network, stack: ExitStack) -> Office:
        return Office(stack.enter_context(commands(bake(framework=framework), folder)), network)

    with offices_of(build, tmp_path_factory) as office:
        yield office


@both_frameworks
@pytest.mark.parametrize("with_scheme", [True, False], ids=["URL", "host and port"])
def test_a_check_goes_through_the_proxy(
    offices: Offices, framework: str, with_scheme: bool
) -> None:
    office = offices(framework).at(ENDPOINT)
    proxy = office.network.proxy.url.removeprefix("" if with_scheme else "http://")
    done = office.check(**proxies(https=proxy), **office.trusted)
    assert done.failed == []
    assert done.checks["app_secret"]["found"] == "accepted"
    # The six requests: discovery, keys, authorization, token, sign-out, sign-in page.
    assert office.network.proxy.requests == [f"CONNECT {NAME}:443"] * 6


@both_frameworks
def test_provision_goes_through_the_proxy(offices: Offices, framework: str) -> None:
    office = offices(framework).at(ENDPOINT)
    office.logto.local.clear()
    variables = {"LOGTO_ENDPOINT": ENDPOINT} | proxies(https=office.network.proxy.url)
    done = office.commands("provision", **variables, **office.trusted)
    assert (done.code, done.errors) == (0, "")
    assert set(office.network.proxy.requests) == {f"CONNECT {NAME}:443"}
    assert office.check(**proxies(https=office.network.proxy.url), **office.trusted).failed == []


@both_frameworks
def test_http_goes_through_the_proxy_for_http(offices: Offices, framework: str) -> None:
    office = offices(framework).at(ENDPOINT)
    url = f"http://{NAME}/oidc/token"
    both = proxies(https=office.network.proxy.url, http=office.network.proxy.url)
    variables = {"LOGTO_ENDPOINT": ENDPOINT, "LOGTO_MANAGEMENT_TOKEN_ENDPOINT": url} | both
    done = office.commands("provision", "--dry-run", **variables, **office.trusted)
    assert done.code == 0, done.text
    assert office.network.proxy.requests[:2] == [f"POST {url}", f"CONNECT {NAME}:443"]


@both_frameworks
def test_no_proxy_avoids_the_proxy(offices: Offices, framework: str) -> None:
    direct = offices(framework).network.direct
    office = offices(framework).at(direct)
    for no_proxy in ("0.0.0.0", f"books.example, {direct.removeprefix('https://')}", "*"):  # noqa: S104
        proxy = proxies(https=office.network.proxy.url, no=no_proxy)
        assert office.check(direct, **proxy, **office.trusted).failed == []
    assert office.network.proxy.requests == []
    others = proxies(https=office.network.proxy.url, no="books.example")
    assert office.check(direct, **others, **office.trusted).failed == ["endpoint"]
    assert office.network.proxy.requests == [f"CONNECT {direct.removeprefix('https://')}"]


@both_frameworks
def test_a_logto_on_this_machine_is_requested_without_the_proxy(
    offices: Offices, framework: str
) -> None:
    endpoint = offices(framework).logto.endpoint
    office = offices(framework).at(endpoint)
    dead = proxies(https=UNREACHABLE_PROXY, http=UNREACHABLE_PROXY)
    assert office.check(endpoint, **dead).failed == []
    done = office.commands("provision", **dead)
    assert (done.code, done.errors) == (0, "")
    on_ip = endpoint.replace("localhost", "127.0.0.1")
    row = office.at(on_ip).check(on_ip, **dead).checks["endpoint"]
    assert (row["ok"], row["found"]) == (True, on_ip)


@both_frameworks
@pytest.mark.parametrize("name", ["dead", "wrong password", "unknown host"])
def test_a_check_that_fails_names_the_proxy_and_not_its_password(
    offices: Offices, framework: str, name: str
) -> None:
    office = offices(framework).at(ENDPOINT)
    proxy = office.network.proxy
    url, endpoint, proxy_host = {
        "dead": (f"http://company:{PASSWORD}@127.0.0.1:9", ENDPOINT, "127.0.0.1:9"),
        "wrong password": (
            f"http://company:no-{PASSWORD}@{proxy.address}",
            ENDPOINT,
            proxy.address,
        ),
        "unknown host": (proxy.url, "https://other.example", proxy.address),
    }[name]
    done = office.check(endpoint, **proxies(https=url), **office.trusted)
    assert done.failed == ["endpoint"]
    found = done.checks["endpoint"]["found"]
    assert found.endswith(f", through the proxy {proxy_host}")
    assert "no such host" not in found
    assert ("the proxy cannot be reached" in found) == (name == "dead")
    variables = {"LOGTO_ENDPOINT": endpoint} | proxies(https=url) | office.trusted
    done = office.commands("provision", **variables)
    assert done.code == 1
    assert f"through the proxy {proxy_host}" in done.errors
    assert PASSWORD not in done.text


@both_frameworks
def test_for_an_untrusted_certificate_the_check_names_the_variable(
    offices: Offices, framework: str
) -> None:
    direct = offices(framework).network.direct
    office = offices(framework).at(direct)
    done = office.check(direct, **proxies())
    assert done.failed == ["endpoint"]
    assert "SSL_CERT_FILE" in done.checks["endpoint"]["found"]
    office.at(ENDPOINT)
    done = office.check(**proxies(https=office.network.proxy.url))
    assert "SSL_CERT_FILE" in done.checks["endpoint"]["found"]


@both_frameworks
@pytest.mark.parametrize("name", ["proxy", "certificate"])
def test_for_a_fault_of_the_network_the_check_does_not_suggest_another_endpoint(
    offices: Offices, framework: str, name: str
) -> None:
    direct = offices(framework).network.direct
    office = offices(framework).at(direct)
    dead = proxies(https=UNREACHABLE_PROXY)
    done = office.check(direct, **(dead if name == "proxy" else proxies()))
    assert "LOGTO_ENDPOINT" not in done.checks["endpoint"]["fix"]


@both_frameworks
def test_the_file_of_the_authority_can_be_named_in_the_env_file(
    offices: Offices, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    office = offices(framework).at(ENDPOINT)
    env = office.commands.path / ".env"
    before = env.read_text("utf-8")
    env.write_text(f"{before}\nSSL_CERT_FILE={office.network.authority}\n", "utf-8")
    variables = {"LOGTO_ENDPOINT": ENDPOINT} | proxies(https=office.network.proxy.url)
    try:
        done = office.commands.run_in_new_process("check", "--json", **variables)
    finally:
        env.write_text(before, "utf-8")
    assert (done.code, done.failed) == (0, [])


@both_frameworks
def test_the_commands_name_the_app_as_their_user_agent(offices: Offices, framework: str) -> None:
    endpoint = offices(framework).logto.endpoint
    office = offices(framework).at(endpoint)
    seen: list[Any] = []
    paths = [DISCOVERY, "/oidc/jwks", "/oidc/auth", "/oidc/token", "/oidc/session/end"]
    paths += ["/api/.well-known/sign-in-exp", "/api/connectors", "/api/applications/test-app"]
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(office.logto.fault(path, recording(seen)))
        assert office.check(endpoint, **proxies()).failed == []
        assert office.commands("provision", "--dry-run").code == 0
    assert {environ["PATH_INFO"] for environ in seen} == set(paths)
    assert {environ["HTTP_USER_AGENT"] for environ in seen} == {"bookstore/1.0"}
