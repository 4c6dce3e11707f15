"""Sessions in SQLite and in Redis: they are shared, they expire, and they survive faults."""

import contextlib
import os
import re
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from conftest import Bake
from processes import running
from sites import (
    Browser,
    Site,
    assert_says,
    both_frameworks,
    both_stores,
    process,
    redis_server,
    serving,
)

Sites = Callable[..., Site]
DOWN = "This page is unavailable"
HOUR = 3600


@contextmanager
def sql(site: Site) -> Iterator[sqlite3.Connection]:
    """Connect to the app's SQLite file from the test process."""
    connection = sqlite3.connect(site.database, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def redis_of(site: Site) -> Any:
    return redis.Redis.from_url(site.variables["SESSION_URL"], decode_responses=True)


def remaining(site: Site) -> dict[str, float]:
    """Return the keys of the session store, and the remaining lifetime of each in seconds."""
    if site.variables["SESSION_URL"].startswith("redis"):
        server = redis_of(site)
        return {key: server.pttl(key) / 1000 for key in server.keys("bookstore:session:*")}
    with sql(site) as connection:
        rows = connection.execute("SELECT key, expires_at FROM sessions").fetchall()
    return {key: expires_at - time.time() for key, expires_at in rows}


def let_expire(site: Site, key: str) -> None:
    if site.variables["SESSION_URL"].startswith("redis"):
        redis_of(site).pexpire(key, 1)
        time.sleep(0.01)
    else:
        with sql(site) as connection:
            connection.execute("UPDATE sessions SET expires_at = 1 WHERE key = ?", [key])


@both_frameworks
@both_stores
def test_two_processes_share_sessions(sites: Sites, framework: str, store: str) -> None:
    site = sites(framework, store)
    browser = site.browser()
    page = browser.start(f"{site.urls[1]}/sign-in?next=/profile")
    assert browser.get(browser.answer(page)).headers["Location"] == "/profile"
    assert "Alice Archer" in browser.get(f"{site.urls[1]}/profile").text
    browser.post(f"{site.urls[1]}/sign-out")
    assert not browser.is_signed_in


@both_frameworks
@both_stores
def test_use_does_not_extend_the_lifetime_of_a_session(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = site.browser()
    before = remaining(site)
    response = browser.sign_in()
    assert f"Max-Age={12 * HOUR}" in response.headers["Set-Cookie"]
    (key,) = (k for k in set(remaining(site)) - set(before) if "sign-in" not in k)
    at_first = remaining(site)[key]
    assert 12 * HOUR - 30 < at_first <= 12 * HOUR

    time.sleep(1.1)
    assert "Set-Cookie" not in browser.get("/test/note?name=n1&value=1").headers
    assert remaining(site)[key] < at_first - 1

    let_expire(site, key)
    assert not browser.is_signed_in


@both_frameworks
@both_stores
def test_an_unfinished_sign_in_expires(sites: Sites, framework: str, store: str) -> None:
    site = sites(framework, store)
    browser = site.browser()
    before = remaining(site)
    response = browser.get("/sign-in?next=/profile")
    assert "Max-Age=900" in response.headers["Set-Cookie"]
    (key,) = set(remaining(site)) - set(before)
    assert 15 * 60 - 30 < remaining(site)[key] <= 15 * 60
    callback = browser.answer(response.headers["Location"])
    let_expire(site, key)
    assert_says(browser.get(callback), 400, "This sign-in has expired", "/sign-in")


@both_frameworks
def test_expired_rows_are_deleted_while_the_app_runs(sites: Sites, framework: str) -> None:
    site = sites(framework)
    with sql(site) as connection:
        rows = [[f"old-{number}"] for number in range(250)]
        connection.executemany("INSERT INTO sessions VALUES (?, '{}', 1, NULL, NULL)", rows)
        for _ in range(3):
            site.browser().start()
        assert not connection.execute("SELECT 1 FROM sessions WHERE expires_at < 2").fetchall()


@both_frameworks
def test_other_users_of_the_machine_cannot_read_the_file(sites: Sites, framework: str) -> None:
    site = sites(framework)
    site.browser().start()
    files = list(site.database.parent.glob("sessions.sqlite3*"))
    assert len(files) == 3
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    # The mode was right before SQLite opened the file, too.
    opened = re.findall(r"SQLite opens a file with the mode (\w+)", site.log)
    assert set(opened) == {"0o600"}


@both_frameworks
@both_stores
def test_a_session_id_that_the_app_did_not_issue_is_never_adopted(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    chosen = {"bookstore-session": "chosen-by-the-client"}
    response = httpx2.get(f"{site.url}/test/note?name=n1&value=before", cookies=chosen)
    issued = response.cookies["bookstore-session"]
    assert issued != "chosen-by-the-client"

    # The sign-in creates a new ID, and keeps no data of the earlier session.
    browser = site.browser()
    browser.http.cookies = response.cookies
    assert "before" in browser.get("/test/note?name=n2").text
    browser.sign_in()
    assert browser.session_cookie != issued
    assert "before" not in browser.get("/test/note?name=n2").text
    assert (
        "n1"
        not in httpx2.get(
            f"{site.url}/test/note?name=n3", cookies={"bookstore-session": issued}
        ).text
    )


@both_frameworks
@both_stores
def test_session_and_sign_in_cookies_cannot_be_swapped(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = site.browser()
    callback = browser.answer(browser.start())
    ((name, pending),) = [item for item in browser.http.cookies.items() if "sign-in" in item[0]]
    browser.get("/test/note?name=n1&value=1")
    session = browser.session_cookie or ""
    swapped = {name: session, "bookstore-session": pending}
    response = httpx2.get(f"{site.url}{callback}", cookies=swapped)
    assert_says(response, 400, "This sign-in has expired", "/sign-in")
    assert browser.get(callback).headers["Location"] == "/"


@pytest.mark.slow
@both_frameworks
def test_a_locked_file_is_a_503_and_loses_nothing(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    pauses: list[float] = []
    with sql(site) as lock_holder, pauses_of(site, pauses), site.log_lines() as lines:
        lock_holder.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            responses = list(pool.map(browser.get, ["/sign-in", callback, "/test/note?name=n1"]))
        # They waited in parallel, not one after the other.
        assert time.monotonic() - start < 9
        assert [response.status_code for response in responses] == [503, 503, 503]
        assert_says(responses[0], 503, DOWN, "/sign-in")
        assert_says(responses[2], 503, DOWN, "/test/note?name=n1")
        assert not [response for response in responses if "Set-Cookie" in response.headers]
        assert browser.get("/readyz").status_code == 503
        # Requests that only read are not delayed.
        assert browser.is_signed_in
    assert "Traceback" not in "\n".join(lines)
    assert max(pauses) < 2
    assert browser.get("/readyz").status_code == 200
    # The pending sign-in was not lost.
    assert browser.get(callback).headers["Location"] == "/profile"


@pytest.mark.xdist_group("quart sites")
def test_writers_that_wait_for_a_locked_file_do_not_block_readers(sites: Sites) -> None:
    # On Flask, each request that waits occupies a thread of granian, so this is a test for Quart.
    site = sites("quart")
    browser = site.browser()
    browser.sign_in()
    client = httpx2.Client(base_url=site.url, timeout=60, verify=False)
    with sql(site) as lock_holder, client, ThreadPoolExecutor(40) as pool:
        lock_holder.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        writers = [pool.submit(client.get, "/sign-in") for _ in range(40)]
        time.sleep(0.5)
        # Requests that only read do not queue behind the writers.
        assert browser.is_signed_in
        assert not any(writer.done() for writer in writers)
        assert {writer.result().status_code for writer in writers} == {503}
        assert time.monotonic() - start < 15


@contextmanager
def pauses_of(site: Site, pauses: list[float]) -> Iterator[None]:
    """Collect the response times of `/healthz` within the block, in seconds.

    `/healthz` needs no store.
    """
    over = threading.Event()

    def measure() -> None:
        with httpx2.Client(base_url=site.url) as http:
            while not over.wait(0.02):
                start = time.monotonic()
                assert http.get("/healthz").status_code == 200
                pauses.append(time.monotonic() - start)

    measuring = threading.Thread(target=measure)
    measuring.start()
    try:
        yield
    finally:
        over.set()
        measuring.join()


@both_frameworks
def test_a_full_disk_is_a_503(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    pids = [pid for started in site.processes for pid in started.process_ids]
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for pid in pids:
        # Each write after the first 16 bytes of a file fails.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))
    try:
        assert_says(browser.get("/sign-in"), 503, DOWN, "/sign-in")
        assert browser.get("/readyz").status_code == 503
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    assert browser.is_signed_in
    assert browser.sign_in().headers["Location"] == "/"
    assert browser.get("/readyz").status_code == 200


@both_frameworks
@pytest.mark.parametrize("what", ["garbage", "a folder"])
def test_a_file_that_is_no_database_is_a_503(
    bake: Bake, framework: str, what: str, tmp_path: Path
) -> None:
    database = tmp_path / "sessions.sqlite3"
    if what == "garbage":
        database.write_bytes(b"this is no database " * 1000)
    else:
        database.mkdir()
    with serving(bake(framework=framework), framework, f"sqlite:///{database}") as site:
        browser = site.browser()
        browser.http.cookies.set("bookstore-session", "of-an-earlier-file".ljust(43, "x"))
        assert_says(browser.get("/profile?tab=1"), 503, DOWN, "/profile?tab=1")
        assert_says(browser.get("/sign-in"), 503, DOWN, "/sign-in")
        assert browser.get("/readyz").status_code == 503
        assert browser.get("/static/style.css").status_code == 200
        assert browser.get("/healthz").status_code == 200
        database.rmdir() if what == "a folder" else database.unlink()
        again = site.browser()
        again.sign_in()
        assert again.is_signed_in


@both_frameworks
def test_a_killed_process_loses_no_finished_sign_in(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    session_url = f"sqlite:///{tmp_path}/new/sessions.sqlite3"
    with serving(bake(framework=framework), framework, session_url, processes=2) as site:
        over = threading.Event()
        finished: list[Browser] = []

        def keep_signing_in(url: str) -> None:
            while not over.is_set():
                browser = site.browser()
                with contextlib.suppress(httpx2.TransportError):
                    response = browser.get(browser.answer(browser.start(f"{url}/sign-in")))
                    assert response.headers["Location"] == "/"
                    browser.get(f"{url}/test/note?name=n1&value=kept")
                    finished.append(browser)

        # The file does not exist yet, so both processes create it in parallel.
        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(keep_signing_in, url) for url in site.urls * 2]
            deadline = time.monotonic() + 20
            while len(finished) < 10 and time.monotonic() < deadline:
                time.sleep(0.05)
            for started in site.processes:
                started.kill()
            over.set()
            for work in working:
                work.result()
        assert len(finished) >= 10
        assert oct((tmp_path / "new").stat().st_mode & 0o777) == "0o700"
        with process(site, httpx2.URL(site.url).port or 0) as again:
            again.wait_for(f"{site.url}/healthz")
            for browser in finished:
                assert "Hello," in browser.get(f"{site.url}/").text
                assert "'n1': 'kept'" in browser.get(f"{site.url}/test/note?name=n2").text


@pytest.mark.slow
@both_frameworks
def test_a_redis_that_hangs_stops_or_is_full_is_a_503(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    with (
        redis_server(tmp_path) as (port, server),
        serving(bake(framework=framework), framework, f"redis://localhost:{port}/0") as site,
    ):
        browser = site.browser()
        browser.sign_in()

        os.kill(server.process_ids[0], signal.SIGSTOP)
        pauses: list[float] = []
        with pauses_of(site, pauses):
            start = time.monotonic()
            assert_says(browser.get("/profile"), 503, DOWN, "/profile")
            assert_says(site.browser().get("/sign-in"), 503, DOWN, "/sign-in")
            assert time.monotonic() - start < 20
        assert max(pauses) < 2
        os.kill(server.process_ids[0], signal.SIGCONT)
        assert browser.is_signed_in

        redis_of(site).config_set("maxmemory", "1")
        assert_says(browser.get("/test/note?name=n1"), 503, DOWN, "/test/note?name=n1")
        assert_says(browser.get("/sign-in"), 503, DOWN, "/sign-in")
        assert browser.get("/readyz").status_code == 503
        assert browser.is_signed_in
        redis_of(site).config_set("maxmemory", "0")
        assert browser.get("/readyz").status_code == 200

        server.kill()
        with site.log_lines() as lines:
            assert_says(browser.get("/profile"), 503, DOWN, "/profile")
            assert browser.get("/readyz").status_code == 503
            assert browser.get("/healthz").status_code == 200
        assert "Traceback" not in "\n".join(lines)
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
        with running(command, tmp_path, dict(os.environ)) as again:
            again.wait_for_text("Ready to accept connections")
            assert not browser.is_signed_in
            assert browser.sign_in().headers["Location"] == "/"
            assert browser.is_signed_in


@both_frameworks
def test_clients_that_disconnect_early_do_not_mix_up_the_responses_of_redis(
    sites: Sites, framework: str
) -> None:
    site = sites(framework, "redis")
    browsers = {}
    for user in ("alice", "bob", "carol"):
        browsers[user] = site.browser()
        browsers[user].sign_in(user=user)
    over = threading.Event()

    def disconnect_early() -> None:
        with httpx2.Client(base_url=site.url) as http:
            http.cookies.update(browsers["alice"].http.cookies)
            while not over.is_set():
                for seconds in (0.001, 0.002, 0.004, 0.008):
                    with contextlib.suppress(httpx2.TransportError):
                        http.get("/test/guarded", timeout=seconds)
                    time.sleep(0.02)

    disconnecting = [threading.Thread(target=disconnect_early) for _ in range(2)]
    for thread in disconnecting:
        thread.start()
    names = {"alice": "Alice Archer", "bob": "Bob Baker", "carol": "Carol Chen"}
    try:
        for _ in range(20):
            for user, name in names.items():
                assert name in browsers[user].get("/").text
    finally:
        over.set()
        for thread in disconnecting:
            thread.join()
