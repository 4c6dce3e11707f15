"""Whose sessions a store holds, what is left of them, and when nobody uses one any more."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import redis
from processes import free_port
from sites import Browser, Site, assert_says, both_frameworks, both_stores, process, query, serving

Sites = Callable[..., Site]
HOUR = 3600
HERE = {"Sec-Fetch-Site": "same-origin"}
TWO_APPS = pytest.mark.parametrize("other", ["another app ID", "another Logto"])


@contextmanager
def another_app(own: Site) -> Iterator[Site]:
    """Start an app with another ID at the same Logto, on the same store, with an idle limit."""
    port = free_port()
    url = f"http://localhost:{port}"
    variables = own.variables | {
        "LOGTO_APP_ID": "other-app",
        "LOGTO_CALLBACK_URL": f"{url}/callback",
        "SESSION_IDLE_HOURS": "1",
    }
    site = Site(own.project, own.framework, own.logto, [url], variables)
    local = own.logto.local
    local.applications["other-app"] = type(local.application)(
        "other-app", "Other", [f"{url}/callback"], [f"{url}/"]
    )
    with process(site, port) as started:
        site.processes.append(started)
        started.wait_for(f"{url}/healthz")
        yield site


@pytest.fixture(scope="session")
def neighbour(sites: Sites) -> Iterator[Callable[..., Site]]:
    """Give another app on the store of a site, started when it is first asked for."""
    started: dict[Any, Site] = {}
    with ExitStack() as stack:

        def neighbour_of(framework: str, store: str, other: str = "another app ID") -> Site:
            if (framework, store, other) not in started:
                own = sites(framework, store)
                starting = (
                    another_app(own)
                    if other == "another app ID"
                    else serving(own.project, framework, own.variables["SESSION_URL"])
                )
                started[framework, store, other] = stack.enter_context(starting)
            return started[framework, store, other]

        yield neighbour_of


def with_the_cookies_of(browser: Browser, site: Site) -> Browser:
    """Take a browser's cookies to another site."""
    visitor = site.browser()
    visitor.http.cookies = httpx2.Cookies(browser.http.cookies)
    return visitor


# Two apps on one store


@both_frameworks
@both_stores
@TWO_APPS
def test_an_app_accepts_no_session_of_another_app_on_its_store(
    sites: Sites, neighbour: Sites, framework: str, store: str, other: str
) -> None:
    own, theirs = sites(framework, store), neighbour(framework, store, other)
    browser = own.browser()
    browser.sign_in()
    visitor = with_the_cookies_of(browser, theirs)
    assert not visitor.is_signed_in
    assert visitor.get("/profile").headers["Location"] == "/sign-in?next=/profile"
    visitor.post("/sign-out", headers=HERE)
    assert browser.is_signed_in


@both_frameworks
@both_stores
@TWO_APPS
def test_an_app_finishes_no_sign_in_of_another_app_on_its_store(
    sites: Sites, neighbour: Sites, framework: str, store: str, other: str
) -> None:
    own, theirs = sites(framework, store), neighbour(framework, store, other)
    browser = own.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    visitor = with_the_cookies_of(browser, theirs)
    assert_says(visitor.get(callback), 400, "This sign-in has expired", "/sign-in")
    assert browser.get(callback).headers["Location"] == "/profile"


@both_frameworks
@both_stores
@TWO_APPS
def test_a_back_channel_logout_ends_only_sessions_of_its_app(
    sites: Sites, neighbour: Sites, framework: str, store: str, other: str
) -> None:
    own, theirs = sites(framework, store), neighbour(framework, store, other)
    browsers = {site.url: site.browser() for site in (own, theirs)}
    for browser in browsers.values():
        browser.sign_in()
    # One `jti` for both: the note that it was used is each app's own, too.
    jti = f"jti-{time.monotonic_ns()}"
    for site, signed_in in ((own, True), (theirs, False)):
        token = site.logto.logout_token(aud=site.variables["LOGTO_APP_ID"], jti=jti)
        done = httpx2.post(f"{site.url}/backchannel-logout", data={"logout_token": token})
        assert done.status_code == 200
        assert not browsers[site.url].is_signed_in
        assert browsers[theirs.url].is_signed_in is signed_in


# What is in the store


def entries(site: Site) -> dict[str, str]:
    """The content of the session store, by key."""
    if site.variables["SESSION_URL"].startswith("redis"):
        with closing(server_of(site)) as server:
            kept = {key: server.type(key) for key in server.keys("bookstore:session:*")}
            return {k: str(server.hgetall(k)) for k, kind in kept.items() if kind == "hash"}
    with closing(sqlite3.connect(site.database)) as connection:
        return dict(connection.execute("SELECT key, data FROM sessions").fetchall())


def server_of(site: Site) -> Any:
    return redis.Redis.from_url(site.variables["SESSION_URL"], decode_responses=True)


@both_frameworks
@both_stores
def test_no_unfinished_sign_in_takes_more_than_four_kilobytes(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    languages = ", ".join(f"x-{'y' * 30}{number:03}" for number in range(100))
    nexts = ["/" + "\U0001f600" * 1999, "/" + "\U0001f600" * 166, "/" + "x" * 1999, "/?" + "%" * 90]
    for target in nexts:
        before = entries(site)
        path = f"/sign-in?prompt=login&connector=azuread&next={quote(target)}"
        response = site.browser().get(path, headers={"Accept-Language": languages})
        assert response.status_code == 302
        (key,) = entries(site).keys() - before.keys()
        assert 0 < len(key) + len(entries(site)[key].encode()) <= 4096
        assert len(query(response.headers["Location"])["ui_locales"]) < 200


@both_frameworks
@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/" + "x" * 1999, True),
        ("/" + "x" * 2000, False),
        # 12 characters each once they are encoded.
        ("/" + "\U0001f600" * 166, True),
        ("/" + "\U0001f600" * 167, False),
    ],
    ids=["2000", "2001", "1993 when encoded", "2005 when encoded"],
)
def test_next_has_at_most_2000_characters_when_it_is_encoded(
    sites: Sites, framework: str, target: str, kept: bool
) -> None:
    site = sites(framework)
    response = site.browser().sign_in(f"/sign-in?next={quote(target)}")
    assert response.headers["Location"] == (quote(target) if kept else "/")


@both_frameworks
def test_no_data_of_an_ended_session_stays_in_the_file(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    token = list(site.logto.local.refresh_tokens)[-1].encode()
    assert token in content_of(site)
    browser.post("/sign-out", headers=HERE)
    assert token not in content_of(site)


def content_of(site: Site) -> bytes:
    """All bytes of the SQLite file, once what is in its log is in it."""
    with closing(sqlite3.connect(site.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return b"".join(f.read_bytes() for f in site.database.parent.glob(f"{site.database.name}*"))


# Cookies of another form


@both_frameworks
@both_stores
def test_an_invalid_cookie_reads_and_deletes_no_entry(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = site.browser()
    callback = browser.answer(browser.start())
    ((_, pending),) = [item for item in browser.http.cookies.items() if "sign-in" in item[0]]
    (key,) = (k for k in entries(site) if k.endswith(hashlib.sha256(pending.encode()).hexdigest()))
    forms = [
        pending,
        f"sign-in {pending}",
        f"sign-in:{pending}",
        key,
        key.partition(":")[2],
        f"{pending}\x20",
        f'"{pending}"',
    ]
    before = entries(site)[key]
    for form in forms:
        for path in ("/sign-out", "/test/note?name=n1", "/"):
            headers = {"Cookie": f'bookstore-session="{form}"', **HERE}
            response = httpx2.get(f"{site.url}{path}", headers=headers)
            assert pending not in response.headers.get("Set-Cookie", "")
            assert "Hello," not in response.text
    assert entries(site)[key] == before
    assert browser.get(callback).headers["Location"] == "/"


# Sessions that nobody uses


def key_of(site: Site, browser: Browser) -> str:
    """The key of the browser's session, which must be there."""
    digest = hashlib.sha256((browser.session_cookie or "").encode()).hexdigest()
    (key,) = (key for key in entries(site) if key.endswith(digest))
    return key


def used_at(site: Site, browser: Browser) -> float | None:
    """When the store says that the session was used."""
    key = key_of(site, browser)
    if site.variables["SESSION_URL"].startswith("redis"):
        with closing(server_of(site)) as server:
            value = server.hget(key, "used_at")
    else:
        with closing(sqlite3.connect(site.database)) as connection:
            sql = "SELECT json_extract(data, '$.used_at') FROM sessions WHERE key = ?"
            ((value,),) = connection.execute(sql, [key]).fetchall()
    return None if value is None else float(value)


def was_used(site: Site, browser: Browser, seconds_ago: float) -> None:
    """Let the store say that the session was last used that many seconds ago."""
    key, moment = key_of(site, browser), time.time() - seconds_ago
    if site.variables["SESSION_URL"].startswith("redis"):
        with closing(server_of(site)) as server:
            server.hset(key, "used_at", json.dumps(moment))
    else:
        with closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
            sql = "UPDATE sessions SET data = json_set(data, '$.used_at', ?) WHERE key = ?"
            connection.execute(sql, [moment, key])


@both_frameworks
@both_stores
def test_an_idle_session_ends(neighbour: Sites, framework: str, store: str) -> None:
    site = neighbour(framework, store)
    browser = site.browser()
    browser.sign_in()
    assert browser.is_signed_in
    key = key_of(site, browser)
    was_used(site, browser, HOUR + 5)
    response = browser.get("/profile")
    assert response.headers["Location"] == "/sign-in?next=/profile"
    assert "bookstore-session=;" in response.headers["Set-Cookie"]
    assert key not in entries(site)
    assert browser.sign_in().headers["Location"] == "/"


@both_frameworks
@both_stores
def test_a_session_in_use_continues_beyond_the_idle_limit(
    neighbour: Sites, framework: str, store: str
) -> None:
    site = neighbour(framework, store)
    browser = site.browser()
    browser.sign_in()
    for _ in range(3):
        was_used(site, browser, HOUR - 60)
        assert browser.is_signed_in
        noted = used_at(site, browser) or 0
        assert abs(time.time() - noted) < 60
        # It is not written at each request.
        assert browser.is_signed_in
        assert used_at(site, browser) == noted


@both_frameworks
@both_stores
def test_without_an_idle_limit_no_use_is_stored_and_no_session_ends(
    sites: Sites, framework: str, store: str
) -> None:
    site = sites(framework, store)
    browser = site.browser()
    browser.sign_in()
    assert browser.is_signed_in
    assert used_at(site, browser) is None
    was_used(site, browser, 1000 * HOUR)
    assert browser.is_signed_in
