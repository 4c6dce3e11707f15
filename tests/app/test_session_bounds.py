"""Sessions of several apps in one store, the data that stays in it, and idle sessions."""

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
def start_second_app(first: Site) -> Iterator[Site]:
    """Start an app with another ID at the same Logto, on the same store, with an idle limit."""
    port = free_port()
    url = f"http://localhost:{port}"
    variables = first.variables | {
        "LOGTO_APP_ID": "other-app",
        "LOGTO_CALLBACK_URL": f"{url}/callback",
        "SESSION_IDLE_HOURS": "1",
    }
    site = Site(first.project, first.framework, first.logto, [url], variables)
    local = first.logto.local
    local.applications["other-app"] = type(local.application)(
        "other-app", "Other", [f"{url}/callback"], [f"{url}/"]
    )
    with process(site, port) as started:
        site.processes.append(started)
        started.wait_for(f"{url}/healthz")
        yield site


@pytest.fixture(scope="session")
def second_app(sites: Sites) -> Iterator[Callable[..., Site]]:
    """Return a second app on the store of a site. It starts at the first request for it."""
    started: dict[Any, Site] = {}
    with ExitStack() as stack:

        def start(framework: str, store: str, other: str = "another app ID") -> Site:
            if (framework, store, other) not in started:
                first = sites(framework, store)
                starting = (
                    start_second_app(first)
                    if other == "another app ID"
                    else serving(first.project, framework, first.variables["SESSION_URL"])
                )
                started[framework, store, other] = stack.enter_context(starting)
            return started[framework, store, other]

        yield start


def with_the_cookies_of(browser: Browser, site: Site) -> Browser:
    """Return a browser of another site with the cookies of this browser."""
    copy = site.browser()
    copy.http.cookies = httpx2.Cookies(browser.http.cookies)
    return copy


# Two apps on one store


@both_frameworks
@both_stores
@TWO_APPS
def test_an_app_accepts_no_session_of_another_app_on_its_store(
    sites: Sites, second_app: Sites, framework: str, store: str, other: str
) -> None:
    first, second = sites(framework, store), second_app(framework, store, other)
    browser = first.browser()
    browser.sign_in()
    copy = with_the_cookies_of(browser, second)
    assert not copy.is_signed_in
    assert copy.get("/profile").headers["Location"] == "/sign-in?next=/profile"
    copy.post("/sign-out", headers=HERE)
    assert browser.is_signed_in


@both_frameworks
@both_stores
@TWO_APPS
def test_an_app_finishes_no_sign_in_of_another_app_on_its_store(
    sites: Sites, second_app: Sites, framework: str, store: str, other: str
) -> None:
    first, second = sites(framework, store), second_app(framework, store, other)
    browser = first.browser()
    callback = browser.answer(browser.start("/sign-in?next=/profile"))
    copy = with_the_cookies_of(browser, second)
    assert_says(copy.get(callback), 400, "This sign-in has expired", "/sign-in")
    assert browser.get(callback).headers["Location"] == "/profile"


@both_frameworks
@both_stores
@TWO_APPS
def test_a_back_channel_logout_ends_only_sessions_of_its_app(
    sites: Sites, second_app: Sites, framework: str, store: str, other: str
) -> None:
    first, second = sites(framework, store), second_app(framework, store, other)
    browsers = {site.url: site.browser() for site in (first, second)}
    for browser in browsers.values():
        browser.sign_in()
    # Both tokens have the same `jti`: each app stores separately that it was used.
    jti = f"jti-{time.monotonic_ns()}"
    for site, signed_in in ((first, True), (second, False)):
        token = site.logto.logout_token(aud=site.variables["LOGTO_APP_ID"], jti=jti)
        done = httpx2.post(f"{site.url}/backchannel-logout", data={"logout_token": token})
        assert done.status_code == 200
        assert not browsers[site.url].is_signed_in
        assert browsers[second.url].is_signed_in is signed_in


# The content of the store


def entries(site: Site) -> dict[str, str]:
    """Return the content of the session store, by key."""
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
        # Each emoji has 12 characters when it is encoded.
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
    """Return all bytes of the SQLite file, after its write-ahead log was merged into it."""
    with closing(sqlite3.connect(site.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return b"".join(f.read_bytes() for f in site.database.parent.glob(f"{site.database.name}*"))


# Invalid cookies


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


# Idle sessions


def key_of(site: Site, browser: Browser) -> str:
    """Return the key of the browser's session in the store. The session must exist."""
    digest = hashlib.sha256((browser.session_cookie or "").encode()).hexdigest()
    (key,) = (key for key in entries(site) if key.endswith(digest))
    return key


def used_at(site: Site, browser: Browser) -> float | None:
    """Return the time of the last use of the session, as the store has it."""
    key = key_of(site, browser)
    if site.variables["SESSION_URL"].startswith("redis"):
        with closing(server_of(site)) as server:
            value = server.hget(key, "used_at")
    else:
        with closing(sqlite3.connect(site.database)) as connection:
            sql = "SELECT json_extract(data, '$.used_at') FROM sessions WHERE key = ?"
            ((value,),) = connection.execute(sql, [key]).fetchall()
    return None if value is None else float(value)


def set_used(site: Site, browser: Browser, seconds_ago: float) -> None:
    """Store that the session was last used `seconds_ago`."""
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
def test_an_idle_session_ends(second_app: Sites, framework: str, store: str) -> None:
    site = second_app(framework, store)
    browser = site.browser()
    browser.sign_in()
    assert browser.is_signed_in
    key = key_of(site, browser)
    set_used(site, browser, HOUR + 5)
    response = browser.get("/profile")
    assert response.headers["Location"] == "/sign-in?next=/profile"
    assert "bookstore-session=;" in response.headers["Set-Cookie"]
    assert key not in entries(site)
    assert browser.sign_in().headers["Location"] == "/"


@both_frameworks
@both_stores
def test_a_session_in_use_continues_beyond_the_idle_limit(
    second_app: Sites, framework: str, store: str
) -> None:
    site = second_app(framework, store)
    browser = site.browser()
    browser.sign_in()
    for _ in range(3):
        set_used(site, browser, HOUR - 60)
        assert browser.is_signed_in
        stored = used_at(site, browser) or 0
        assert abs(time.time() - stored) < 60
        # The time is not written at each request.
        assert browser.is_signed_in
        assert used_at(site, browser) == stored


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
    set_used(site, browser, 1000 * HOUR)
    assert browser.is_signed_in
