"""Redis as clouds run it: failovers, closed connections, clusters, and a full memory."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Bake
from processes import free_port, until
from redis_servers import RedisName, connect, make_replica, redis_cluster, redis_name
from sites import Site, assert_says, both_frameworks, redis_server, serving

DOWN = "This page is unavailable"
USERS = ("alice", "bob", "carol")


def fill_the_pool(site: Site, port: int) -> None:
    """Make the app open several connections to Redis."""
    with httpx2.Client(base_url=site.url) as http, ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(http.get, ["/test/note?name=n0&value=x"] * 24))
    assert {page.status_code for page in pages} == {200}
    assert app_clients(port)


def app_clients(port: int) -> list[Any]:
    """Return the connections of the app, without the connection of this call."""
    return [client for client in connect(port).client_list() if client["cmd"] != "client|list"]


@contextmanager
def named_redis(bake: Bake, framework: str, folder: Path) -> Iterator[tuple[Site, RedisName]]:
    """Serve an app that reaches its Redis through a host name, which can be moved."""
    with redis_server(folder) as (port, _), redis_name(port) as name:
        url = f"redis://localhost:{name.port}/0"
        with serving(bake(framework=framework), framework, url) as site:
            yield site, name


@both_frameworks
def test_after_a_failover_everything_works_again(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first, _ = stack.enter_context(redis_server(tmp_path))
        second, _ = stack.enter_context(redis_server(tmp_path))
        make_replica(second, first)
        name = stack.enter_context(redis_name(first))
        url = f"redis://localhost:{name.port}/0"
        site = stack.enter_context(serving(bake(framework=framework), framework, url))
        browser = site.browser()
        browser.sign_in()
        fill_the_pool(site, first)
        connect(first).wait(1, 1000)

        # The open connections stay at the old server, which is a replica from now on.
        connect(second).replicaof("NO", "ONE")
        name.to = second
        make_replica(first, second)
        assert app_clients(first)
        for number in range(20):
            assert browser.get(f"/test/note?name=n{number}&value=kept").status_code == 200
            assert browser.get("/readyz").status_code == 200
        assert site.browser().sign_in().headers["Location"] == "/"
        assert "'n19': 'kept'" in browser.get("/test/note?name=n").text
        assert browser.is_signed_in


@both_frameworks
@pytest.mark.parametrize("closed_by", ["CLIENT KILL", "timeout"])
def test_idle_connections_that_redis_closed_fail_no_request(
    bake: Bake, framework: str, tmp_path: Path, closed_by: str
) -> None:
    with ExitStack() as stack:
        port, _ = stack.enter_context(redis_server(tmp_path))
        url = f"redis://localhost:{port}/0"
        site = stack.enter_context(serving(bake(framework=framework), framework, url))
        browser = site.browser()
        browser.sign_in()
        fill_the_pool(site, port)
        if closed_by == "timeout":
            connect(port).config_set("timeout", 1)
        else:
            connect(port).client_kill_filter(_type="normal", skipme=True)
        until(lambda: not app_clients(port))
        connect(port).config_set("timeout", 0)
        for number in range(20):
            page = browser.get(f"/test/note?name=n&value={number}")
            assert page.status_code == 200, number


@both_frameworks
def test_a_sign_in_continues_if_the_response_to_its_lock_was_lost(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with named_redis(bake, framework, tmp_path) as (site, name):
        browser, other = site.browser(), site.browser()
        callback = browser.answer(browser.start("/sign-in?next=/profile"))
        other.http.cookies.update(browser.http.cookies)
        name.lost = b"taken-sign-in"
        assert browser.get(callback).headers["Location"] == "/profile"
        assert name.lost == b""
        assert browser.is_signed_in
        # The sign-in was used once: the same callback of another browser is refused.
        assert_says(other.get(callback), 400, "This sign-in has expired", "/sign-in?next=/profile")


@both_frameworks
def test_one_of_parallel_callbacks_succeeds_if_the_response_to_the_lock_was_lost(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with named_redis(bake, framework, tmp_path) as (site, name):
        browser = site.browser()
        callback = browser.answer(browser.start())
        cookies = dict(browser.http.cookies)
        name.lost = b"taken-sign-in"

        def request(_: int) -> int:
            return httpx2.get(site.url + callback, cookies=cookies).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(pool.map(request, range(4)))
        assert statuses == [302, 400, 400, 400]


@both_frameworks
def test_a_full_redis_still_ends_sessions(bake: Bake, framework: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        port, _ = stack.enter_context(redis_server(tmp_path))
        url = f"redis://localhost:{port}/0"
        site = stack.enter_context(serving(bake(framework=framework), framework, url))
        browsers = {user: site.browser() for user in USERS}
        for user, browser in browsers.items():
            browser.sign_in(user=user)
        subs = {
            user: browser.get("/test/guarded").text.split()[0] for user, browser in browsers.items()
        }
        connect(port).config_set("maxmemory", 1)
        assert browsers["alice"].get("/readyz").status_code == 503
        for user, sid in (("alice", None), ("bob", "unknown")):
            token = site.logto.logout_token(sub=subs[user], sid=sid)
            response = httpx2.post(f"{site.url}/backchannel-logout", data={"logout_token": token})
            assert response.status_code == 200
        assert not browsers["alice"].is_signed_in
        assert browsers["carol"].is_signed_in
        browsers["carol"].post("/sign-out")
        assert not browsers["carol"].is_signed_in


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a Redis cluster, and yield the port of one of its servers."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield next(iter(servers))


@both_frameworks
def test_a_cluster_holds_all_sessions(bake: Bake, framework: str, cluster: int) -> None:
    url = f"redis+cluster://localhost:{cluster}"
    with serving(bake(framework=framework), framework, url, processes=2) as site:
        browsers = [site.browser() for _ in range(12)]
        for number, browser in enumerate(browsers):
            assert browser.sign_in(user=USERS[number % 3]).headers["Location"] == "/"
            there = f"{site.urls[1]}/test/note?name=n&value={number}"
            assert f"'{number}'" in browser.get(there).text
            assert browser.get("/readyz").status_code == 200
        browsers[0].post("/sign-out")
        assert [browser.is_signed_in for browser in browsers] == [False] + [True] * 11
        # The logout token without `sid` ends all sessions of Bob.
        bob = browsers[1].get("/test/guarded").text.split()[0]
        token = site.logto.logout_token(sub=bob)
        response = httpx2.post(f"{site.url}/backchannel-logout", data={"logout_token": token})
        assert response.status_code == 200
        signed_in = [browser.is_signed_in for browser in browsers[:6]]
        assert signed_in == [False, False, True, True, False, True]


@both_frameworks
@pytest.mark.parametrize("kind", ["one server", "cluster"])
def test_many_requests_at_once_share_few_connections(
    bake: Bake, framework: str, tmp_path: Path, kind: str
) -> None:
    with ExitStack() as stack:
        if kind == "cluster":
            ports = [*stack.enter_context(redis_cluster(tmp_path))]
            url = f"redis+cluster://localhost:{ports[0]}"
        else:
            port, _ = stack.enter_context(redis_server(tmp_path))
            ports, url = [port], f"redis://localhost:{port}/0"
        site = stack.enter_context(serving(bake(framework=framework), framework, url))
        browser = site.browser()
        browser.sign_in()
        http = stack.enter_context(httpx2.Client(base_url=site.url, timeout=60))
        http.cookies.update(browser.http.cookies)
        for port in ports:
            connect(port).client_pause(500)
        with ThreadPoolExecutor(150) as pool:
            pages = list(pool.map(http.get, ["/test/guarded"] * 150))
        assert {page.status_code for page in pages} == {200}
        assert max(len(app_clients(port)) for port in ports) <= 60


@both_frameworks
def test_idle_connections_that_a_cluster_closed_fail_no_request(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with redis_cluster(tmp_path) as servers:
        url = f"redis+cluster://localhost:{min(servers)}"
        with serving(bake(framework=framework), framework, url) as site:
            browser = site.browser()
            browser.sign_in()
            fill_the_pool(site, min(servers))
            for _ in range(3):
                for port in servers:
                    connect(port).client_kill_filter(_type="normal", skipme=True)
                for number in range(6):
                    page = browser.get(f"/test/note?name=n&value={number}")
                    assert page.status_code == 200


@both_frameworks
def test_a_cluster_that_is_down_is_a_503_until_it_starts(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    ports = [free_port() for _ in range(3)]
    url = f"redis+cluster://localhost:{ports[0]}"
    with serving(bake(framework=framework), framework, url) as site, ExitStack() as stack:
        browser = site.browser()
        for _ in range(3):
            assert_says(browser.get("/sign-in"), 503, DOWN, "/sign-in")
            assert browser.get("/readyz").status_code == 503
            assert browser.get("/healthz").status_code == 200
        servers = stack.enter_context(redis_cluster(tmp_path, ports))
        assert browser.sign_in().headers["Location"] == "/"
        assert browser.is_signed_in

        with suspended(servers):
            # redis-py alone waits 3 s for each of the servers. On Flask, the requests wait one
            # after the other.
            start = time.monotonic()
            for _ in range(3):
                assert_says(browser.get("/profile"), 503, DOWN, "/profile")
            assert time.monotonic() - start < 20
            with ThreadPoolExecutor(8) as pool:
                pages = list(pool.map(browser.get, ["/profile"] * 8))
            assert {page.status_code for page in pages} == {503}
            assert time.monotonic() - start < 45
        until(lambda: browser.get("/").status_code == 200)
        assert browser.is_signed_in

        for server in servers.values():
            server.kill()
        assert_says(browser.get("/profile"), 503, DOWN, "/profile")
        assert_says(browser.get("/sign-in"), 503, DOWN, "/sign-in")
        assert "Traceback" not in site.log


@contextmanager
def suspended(servers: dict[int, Any]) -> Iterator[None]:
    """Suspend servers within the block, like a network that drops every packet."""
    for server in servers.values():
        os.kill(server.process_ids[0], signal.SIGSTOP)
    yield
    for server in servers.values():
        os.kill(server.process_ids[0], signal.SIGCONT)


@both_frameworks
def test_the_log_says_that_a_redis_is_a_cluster(bake: Bake, framework: str, cluster: int) -> None:
    url = f"redis://localhost:{cluster}/0"
    with serving(bake(framework=framework), framework, url) as site:
        pages = [site.browser().get("/sign-in") for _ in range(12)]
        assert {page.status_code for page in pages} <= {302, 503}
        assert "begin SESSION_URL with redis+cluster:// or rediss+cluster://" in site.log
        assert "Traceback" not in site.log
