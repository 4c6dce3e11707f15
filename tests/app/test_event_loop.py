"""No client waits for the sign-in, the lock or the thread of another client."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from answers import everything
from conftest import Bake
from httpx2 import URL
from processes import until
from sites import (
    Browser,
    Site,
    assert_says,
    both_frameworks,
    process,
    serving,
    silent,
    slow,
)

Sites = Callable[..., Site]


@contextmanager
def stalls_of(site: Site) -> Iterator[list[float]]:
    """Measure the delay of each turn of the app's event loop within the block, in seconds."""
    stalls: list[float] = []
    httpx2.get(f"{site.url}/test/stalls")
    yield stalls
    stalls += httpx2.get(f"{site.url}/test/stalls").json()


@pytest.mark.xdist_group("quart sites")
def test_keys_that_take_two_seconds_do_not_stall_the_event_loop(bake: Bake, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework="quart"), "quart", url, TEST_TIME_LIMIT="10") as site:
        browsers = [site.browser() for _ in range(3)]
        callbacks = [browser.answer(browser.start()) for browser in browsers]
        site.logto.new_key()
        before = site.logto.calls("/oidc/jwks")
        with site.logto.fault("/oidc/jwks", slow(2)), stalls_of(site) as stalls:
            start = time.monotonic()
            with ThreadPoolExecutor(3) as pool:
                responses = list(pool.map(Browser.get, browsers, callbacks))
            assert [response.status_code for response in responses] == [302] * 3
            assert time.monotonic() - start > 2
        # All requests shared one fetch of the keys.
        assert site.logto.calls("/oidc/jwks") == before + 1
        assert len(stalls) > 20
        assert max(stalls) < 1


@pytest.mark.slow
@pytest.mark.xdist_group("quart sites")
def test_writers_of_a_locked_file_do_not_stall_the_event_loop(sites: Sites) -> None:
    site = sites("quart")
    browser = site.browser()
    browser.sign_in()
    with (
        closing(sqlite3.connect(site.database, isolation_level=None)) as lock_holder,
        stalls_of(site) as stalls,
        ThreadPoolExecutor(4) as pool,
    ):
        lock_holder.execute("BEGIN EXCLUSIVE")
        writers = [pool.submit(browser.get, "/test/note?name=n1") for _ in range(4)]
        # Requests that only read are not delayed.
        while not all(writer.done() for writer in writers):
            assert browser.is_signed_in
        assert {writer.result().status_code for writer in writers} == {503}
    assert len(stalls) > 20
    assert max(stalls) < 0.5


def readers_need_a_lock(connection: sqlite3.Connection) -> bool:
    """Try to switch write-ahead logging off, as on a file system without it. Return whether it is
    off.

    It works only while no other connection uses the file.
    """
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError:
        return False
    return bool(mode == "delete")


@pytest.mark.xdist_group("quart sites")
def test_a_reader_that_waits_for_a_lock_does_not_stall_the_event_loop(
    bake: Bake, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework="quart"), "quart", url) as site:
        browser = site.browser()
        browser.sign_in()
        site.processes[0].kill()
        with closing(sqlite3.connect(site.database, isolation_level=None)) as lock_holder:
            until(lambda: readers_need_a_lock(lock_holder))
            with process(site, URL(site.url).port or 0) as again:
                again.wait_for(f"{site.url}/healthz")
                with stalls_of(site) as stalls, ThreadPoolExecutor(1) as pool:
                    lock_holder.execute("BEGIN EXCLUSIVE")
                    reader = pool.submit(browser.get, "/")
                    time.sleep(1.5)
                    assert not reader.done()
                    lock_holder.execute("COMMIT")
                    assert "Hello," in reader.result().text
                assert len(stalls) > 20
                assert max(stalls) < 0.5


PLAIN_FUNCTIONS = """
import inspect
from app import create_app

app = create_app()
found = [
    *app.view_functions.values(),
    *(f for handlers in app.error_handler_spec.values() for by_type in handlers.values()
      for f in by_type.values()),
]
for kind in ("before_request", "after_request", "teardown_request"):
    found += [f for functions in getattr(app, kind + "_funcs").values() for f in functions]
checked = [f for f in found if f.__module__.startswith("app")]
assert len(checked) > 15
# Add the context processors, which every blueprint inherits.
checked += [f for functions in app.template_context_processors.values() for f in functions]
print([f.__qualname__ for f in checked if not inspect.iscoroutinefunction(f)])
"""


def test_quart_runs_no_function_of_the_app_in_a_thread(bake: Bake) -> None:
    # Quart starts a thread for each function that is not async, in every request.
    (answers,) = [one for one in everything(on=True) if one["framework"] == "quart"]
    assert bake(**answers).run("python", "-c", PLAIN_FUNCTIONS).stdout == "[]\n"


THREADS = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor

from app import create_app
from app.config import Config
from app.server.sessions import store_key

submit, submitted = ThreadPoolExecutor.submit, []


def recorded(pool, function, *arguments):
    submitted.append(str(function))
    return submit(pool, function, *arguments)


ThreadPoolExecutor.submit = recorded
app = create_app(
    Config(
        LOGTO_ENDPOINT="http://localhost:3001",
        LOGTO_APP_ID="test-app",
        LOGTO_APP_SECRET="secret",
        LOGTO_CALLBACK_URL="http://localhost:3000/callback",
        SESSION_URL=sys.argv[1],
    )
)


async def main():
    cookie, user = "x" * 43, {"sub": "1", "name": "Alice Archer"}
    store = app.extensions["session_store"]
    await store.create(store_key(cookie), {"user": user}, 60, {})
    assert submitted
    submitted.clear()
    headers = {"Cookie": f"bookstore-session={cookie}"}
    response = await app.test_client().get("/", headers=headers)
    assert "Alice Archer" in await response.get_data(as_text=True)


asyncio.run(main())
print(submitted)
"""


def test_quart_shows_a_page_to_a_signed_in_user_without_a_thread(
    bake: Bake, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    done = bake(framework="quart").run("python", "-c", THREADS, url)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@both_frameworks
def test_a_silent_logto_delays_a_sign_in_by_ten_seconds_and_no_other_request(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, url, TEST_TIME_LIMIT="10") as site:
        browsers = [site.browser() for _ in range(3)]
        callbacks = [browser.answer(browser.start()) for browser in browsers]
        waited: list[float] = []

        def finish(browser: Browser, callback: str) -> None:
            start = time.monotonic()
            response = browser.get(callback)
            waited.append(time.monotonic() - start)
            assert_says(response, 503, "Sign-in is unavailable", "/sign-in?next=/")

        with site.logto.fault("/oidc/token", silent), ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(finish, *each) for each in zip(browsers, callbacks, strict=True)]
            time.sleep(0.5)
            with httpx2.Client(base_url=site.url) as other:
                for _ in range(20):
                    assert other.get("/").status_code == 200
            assert not any(future.done() for future in waiting)
            for future in waiting:
                future.result()
        # They waited in parallel, not one after the other.
        assert all(9.5 < seconds < 15 for seconds in waited)
