"""Several copies of the app behind its proxy, with one Redis. A copy may stop at any time."""

import contextlib
import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from conftest import Bake, BakedProject
from processes import Process, free_port
from sites import redis_server
from visitor import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("many machines")]

FRAMEWORKS = ["flask", "quart"]
USERS = 50
PAGES = 200
"""How many pages the users request before and after each event, at least."""
SETTLED = 0.2
"""Seconds of traffic before and after each event."""


@dataclass
class Cluster:
    """Two copies of the app behind a proxy, with one Redis and one Logto."""

    project: BakedProject
    port: int
    logto_port: int
    redis_port: int
    app_ports: list[int]

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    def copy(self, number: int) -> contextlib.AbstractContextManager[Process]:
        """Start one copy of the app."""
        interface = {"flask": "wsgi", "quart": "asgi"}[str(self.project.answers["framework"])]
        command = ["granian", "--interface", interface, "--factory", "app:create_app"]
        return self.project.fork(
            *command,
            GRANIAN_PORT=str(self.app_ports[number]),
            LOGTO_ENDPOINT=f"http://localhost:{self.logto_port}",
            LOGTO_CALLBACK_URL=f"{self.origin}/callback",
            SESSION_URL=f"redis://localhost:{self.redis_port}/0",
        )

    def wait_for_copy(self, number: int, process: Process) -> None:
        process.wait_for(f"http://localhost:{self.app_ports[number]}/healthz")

    def sign_in(self, number: int | None = None) -> httpx2.Client:
        """Sign in as Alice through the proxy. Return a client with her session cookie."""
        with Visitor(f"http://localhost:{self.logto_port}") as visitor:
            page = visitor.visit(f"{self.origin}/sign-in")
            assert "Alice Archer" in page.text
            (cookie,) = [c for c in visitor.http.cookies.jar if c.name.startswith("__Host-")]
            assert cookie.secure
            return httpx2.Client(
                base_url=self.origin,
                headers={"Cookie": f"{cookie.name}={cookie.value}"},
                verify=False,
                timeout=30,
            )


INSECURE = ssl.create_default_context()
INSECURE.check_hostname = False
INSECURE.verify_mode = ssl.CERT_NONE


@contextmanager
def proxy(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Run the proxy of the project with the ports of these copies."""
    text = cluster.project.read("Caddyfile").replace("3443", str(cluster.port))
    copies = " ".join(f"localhost:{port}" for port in cluster.app_ports)
    text, found = re.subn(r"dynamic a app 3000 \{[^}]*\}", f"to {copies}", text)
    assert found == 1
    (folder / "Caddyfile").write_text(text, "utf-8")
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with cluster.project.start(*command, XDG_DATA_HOME=str(folder), HOME=str(folder)) as process:
        process.wait_for_text("serving initial configuration")
        # Caddy creates its certificate only after this message.
        process.wait_for(f"{cluster.origin}/healthz", context=INSECURE)
        assert httpx2.get(f"{cluster.origin}/healthz", verify=INSECURE).status_code == 200
        yield


@pytest.fixture(params=FRAMEWORKS)
def cluster(
    request: pytest.FixtureRequest, bake: Bake, tmp_path: Path
) -> Iterator[tuple[Cluster, ExitStack, list[Process]]]:
    """Start the two copies of the app, the proxy, Redis and the local Logto."""
    project = bake(framework=request.param)
    with ExitStack() as stack:
        redis_port, _ = stack.enter_context(redis_server(tmp_path))
        ports = [free_port() for _ in range(4)]
        cluster = Cluster(project, ports[0], ports[1], redis_port, ports[2:])
        logto = stack.enter_context(
            project.fork(
                "python",
                *("-m", "dev.local_logto", "--port", str(cluster.logto_port)),
                LOGTO_CALLBACK_URL=f"{cluster.origin}/callback",
            )
        )
        logto.wait_for(f"http://localhost:{cluster.logto_port}/oidc/jwks")
        copies = [stack.enter_context(cluster.copy(number)) for number in range(2)]
        for number, process in enumerate(copies):
            cluster.wait_for_copy(number, process)
        stack.enter_context(proxy(cluster, tmp_path))
        yield cluster, stack, copies


class Traffic:
    """Signed-in users who request the home page, one after the other, until the block ends."""

    def __init__(self, users: list[httpx2.Client]) -> None:
        self._users = users
        self._over = threading.Event()
        self.begun: dict[int, float] = {}
        self.responses: list[tuple[float, float, str]] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        users = self._users[number::4]
        while not self._over.is_set():
            for user in users:
                begun = time.monotonic()
                self.responses.append((begun, *self._request(user)))
                # Users read for a moment, and the copies that start need the CPU, too.
                if self._over.wait(0.005):
                    return

    def _request(self, user: httpx2.Client) -> tuple[float, str]:
        try:
            page = user.get("/")
        except httpx2.HTTPError as error:
            return time.monotonic(), f"lost: {error!r}"
        if page.status_code != 200:
            return time.monotonic(), f"lost: {page.status_code}"
        signed_in = "Alice Archer" in page.text
        return time.monotonic(), "signed in" if signed_in else "signed out"

    def not_signed_in(self) -> list[tuple[float, float, str]]:
        return [response for response in self.responses if response[2] != "signed in"]


def signed_in_users(cluster: Cluster) -> list[httpx2.Client]:
    """Sign all users in, and return an HTTP client for each session."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: cluster.sign_in(), range(USERS)))


def wait_for_pages(traffic: Traffic) -> None:
    before = len(traffic.responses)
    deadline = time.monotonic() + 60
    while len(traffic.responses) < before + PAGES and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(SETTLED)


def test_copies_stop_and_start_and_nobody_is_signed_out(
    cluster: tuple[Cluster, ExitStack, list[Process]],
) -> None:
    site, stack, copies = cluster
    direct = [httpx2.Client(base_url=f"http://localhost:{port}") for port in site.app_ports]
    users = signed_in_users(site)
    # Both copies know the session.
    for client in direct:
        assert "Alice Archer" in client.get("/", headers=dict(users[0].headers)).text

    with Traffic(users) as traffic:
        wait_for_pages(traffic)

        # Kill the first copy during its requests. Once it runs again, kill the other copy.
        for number in (0, 1):
            before = time.monotonic()
            copies[number].kill()
            gone = time.monotonic()
            wait_for_pages(traffic)
            for begun, ended, outcome in traffic.not_signed_in():
                assert outcome.startswith("lost"), outcome
                assert begun <= gone, "a request failed that began after the copy was killed"
                assert ended >= before
            traffic.responses.clear()
            copies[number] = stack.enter_context(site.copy(number))
            site.wait_for_copy(number, copies[number])

        # A rolling restart: after SIGTERM, each copy finishes the requests that it has begun.
        traffic.responses.clear()
        for number in (0, 1):
            copies[number].send(signal.SIGTERM)
            assert copies[number].exit_code() == 0
            wait_for_pages(traffic)
            copies[number] = stack.enter_context(site.copy(number))
            site.wait_for_copy(number, copies[number])
            wait_for_pages(traffic)
        assert traffic.not_signed_in() == []
        assert len(traffic.responses) > PAGES

    for user in users:
        assert "Alice Archer" in user.get("/").text
        user.close()


def test_a_sign_in_begun_with_one_copy_ends_with_the_other(
    cluster: tuple[Cluster, ExitStack, list[Process]],
) -> None:
    site, _, _ = cluster
    copies = [f"http://localhost:{port}" for port in site.app_ports]
    with Visitor(f"http://localhost:{site.logto_port}") as visitor:
        begun = httpx2.get(f"{copies[0]}/sign-in")
        # The client would not send Secure cookies over plain HTTP, so the test sends them.
        cookies = "; ".join(header.split(";")[0] for header in begun.headers.get_list("set-cookie"))
        response = visitor.visit(begun.headers["location"], until=site.origin)
        callback = response.headers["location"].replace(site.origin, copies[1])
        ended = httpx2.get(callback, headers={"Cookie": cookies})
        session = next(
            header.split(";")[0]
            for header in ended.headers.get_list("set-cookie")
            if header.startswith("__Host-bookstore-session=")
        )
        page = httpx2.get(copies[0], headers={"Cookie": session})
    assert "Alice Archer" in page.text
    assert os.path.basename(ended.headers["location"]) == ""  # noqa: PTH119
