"""The baked app with changes for the tests, which granian serves.

The app logs at the level DEBUG and has additional pages below `/test/`. TEST_TIME_LIMIT, TEST_PAUSE
and TEST_RETRY set TIME_LIMIT, PAUSE and RETRY of `app.auth.oidc`, in seconds.
"""

import asyncio
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import app
from app.auth import (
    client,
    current_user,
    logto,
    logto_event,
    oidc,
    routes,
    sign_in_required,
    storage,
    user_signed_in,
)
from app.server import stores
from app.server.sessions import session

FRAMEWORK: Any = __import__(os.environ["TEST_FRAMEWORK"])
request = FRAMEWORK.request


def create_app() -> Any:
    client.TIME_LIMIT = oidc.TIME_LIMIT = float(os.environ.get("TEST_TIME_LIMIT", 10))
    oidc.PAUSE = float(os.environ.get("TEST_PAUSE", 30))
    oidc.RETRY = float(os.environ.get("TEST_RETRY", 0))
    storage.SessionStorage.set = set_or_fail
    stores.sqlite3.connect = connect
    if FRAMEWORK.__name__ == "quart":
        stores.SQLiteStore.delete_all = delete_all_slowly
    created: Any = app.create_app()
    logging.basicConfig()
    logging.getLogger().setLevel(logging.DEBUG)
    created.add_url_rule("/test/guarded", view_func=guarded)
    created.add_url_rule("/test/note", view_func=note)
    created.add_url_rule("/test/redirect", view_func=redirect)
    created.add_url_rule("/test/failure", view_func=failure)
    created.add_url_rule("/test/other-app", view_func=other_app)
    created.add_url_rule("/test/stalls", view_func=stalls)
    created.add_url_rule("/test/resume", view_func=resume)
    created.add_url_rule("/test/form", view_func=form, methods=["POST", "PUT", "PATCH", "DELETE"])
    created.add_url_rule("/test/form", view_func=page_with_a_form)
    created.add_url_rule("/test/begin", view_func=begin)
    created.add_url_rule("/test/admins", "admins", sign_in_required(role="admin")(sign_ins))
    created.add_url_rule("/test/nameless", "nameless", sign_in_required(role="")(sign_ins))
    created.add_url_rule("/test/sign-ins", view_func=sign_ins)
    user_signed_in.connect(record_sign_in)
    created.add_url_rule("/test/books/", "books", external)
    created.add_url_rule("/test/external", view_func=external)
    with_hosts = os.environ.get("TEST_TRUSTED_HOSTS", "")
    created.config["TRUSTED_HOSTS"] = with_hosts.split() or None
    created.add_url_rule("/test/events", view_func=events)
    logto_event.connect(record_event)
    created.add_url_rule("/test/lost", view_func=lost)
    created.add_url_rule("/test/abort/<int:status>", view_func=stop, methods=["GET", "POST"])
    created.config["SESSION_COOKIE_SAMESITE"] = os.environ.get("TEST_SAMESITE", "Lax")
    if FRAMEWORK.__name__ == "quart":
        user_signed_in.connect(record_sign_in_later)
        logto_event.connect(record_event_later)
        created.add_websocket("/test/echo", view_func=echo)
        created.add_websocket("/test/talk", view_func=sign_in_required(talk))
        created.add_websocket("/test/hang-up", view_func=hang_up)
        created.add_websocket("/test/remember", view_func=remember)
    return created


@sign_in_required
async def guarded() -> str:
    """Return the ID of the signed-in user, and the notes in the session."""
    return f"{current_user.sub} {session.get('notes', {})}"


@sign_in_required
async def form() -> str:
    return "sent"


@sign_in_required
async def page_with_a_form() -> str:
    return """<!doctype html><title>Form</title><form method="post">
        <textarea name="text" aria-label="Text"></textarea><button>Send</button></form>"""


_sign_ins: list[str] = []


def record_sign_in(sender: Any, user: Any) -> None:
    if "X-Test-Receiver" in request.headers:
        raise RuntimeError("a bug of a receiver")
    _sign_ins.append(f"{user.sub} is {current_user.sub}")


async def record_sign_in_later(sender: Any, user: Any) -> None:
    await asyncio.sleep(0)
    record_sign_in(sender, user)


async def sign_ins() -> str:
    """Return what the receivers of `user_signed_in` have recorded."""
    return "\n".join(_sign_ins)


async def external() -> dict[str, str]:
    """Return the URL of a page as views and e-mails build it, and the URL of the request."""
    url = FRAMEWORK.url_for("pages.profile", _external=True)
    return {"url": url, "host": request.host, "scheme": request.scheme, "page": request.url}


_events: list[Any] = []


def record_event(sender: Any, event: Any, data: Any) -> None:
    if "X-Test-Receiver" in request.headers:
        raise RuntimeError("a bug of a receiver")
    _events.append([sender.name, event, data])


async def record_event_later(sender: Any, event: Any, data: Any) -> None:
    await asyncio.sleep(0)
    record_event(sender, event, data)


async def events() -> list[Any]:
    """Return what the receivers of `logto_event` have recorded."""
    return _events


async def echo() -> None:
    """Send the first message back, also to a user who is not signed in."""
    await FRAMEWORK.websocket.send(await FRAMEWORK.websocket.receive())


async def talk() -> None:
    """Send the ID of the signed-in user."""
    await FRAMEWORK.websocket.send(current_user.sub)


async def remember() -> None:
    """Write into the session after the handshake, when the app can no longer set a cookie."""
    session["note"] = "text"
    await FRAMEWORK.websocket.send("remembered")


async def hang_up() -> None:
    FRAMEWORK.abort(int(FRAMEWORK.websocket.args.get("status", 403)))


async def note() -> str:
    """Write into the session and wait for `seconds`. With `refresh`, get an access token then."""
    name = request.args["name"]
    session[name] = request.args.get("value", "")
    await asyncio.sleep(float(request.args.get("seconds", 0)))
    if "refresh" in request.args:
        await logto.access_token()
    return str({name: value for name, value in session.items() if name.startswith("n")})


async def redirect() -> Any:
    return FRAMEWORK.redirect(routes.local_path(request.args["to"]))


@sign_in_required
async def other_app() -> str:
    """Call an API that Logto does not know."""
    return await logto.access_token("https://unknown.example/")


async def resume() -> str:
    """End the pause after a failed call to Logto, and return how many seconds were left."""
    left = max(0.0, logto._paused_until - time.monotonic())
    logto._paused_until = 0.0
    return str(left)


async def begin() -> str:
    """Begin a sign-in with the parameters of this request, and return the URL of Logto's page."""
    url, _, _ = await logto.begin_sign_in("http://localhost/callback", **dict(request.args))
    return url


_connect = sqlite3.connect


def connect(*args: Any, **options: Any) -> sqlite3.Connection:
    """Replace `sqlite3.connect`: print the mode of the file, and set `secure_delete` to off.

    In Debian's SQLite, `secure_delete` is on: it overwrites deleted data. Other builds do not.
    """
    if "uri" in options:
        return _connect(*args, **options)  # This connection only reads and creates no file.
    file = Path(args[0])
    mode = oct(file.stat().st_mode & 0o777) if file.exists() else "none"
    print(f"SQLite opens a file with the mode {mode}.", flush=True)
    connection = _connect(*args, **options)
    connection.execute("PRAGMA secure_delete = OFF")
    return connection


_delete_all = stores.SQLiteStore.delete_all


async def delete_all_slowly(self: stores.SQLiteStore, index: Any) -> int:
    """Replace `delete_all`: in requests with the header X-Test-Slow, wait for 2 seconds first."""
    if "X-Test-Slow" in request.headers:
        await asyncio.sleep(2)
    return await _delete_all(self, index)


def set_or_fail(self: storage.SessionStorage, key: str, value: str | None) -> None:
    """Replace `SessionStorage.set`: raise TypeError in requests with the header X-Test-Bug."""
    if "X-Test-Bug" in request.headers:
        raise TypeError("a planted bug")
    self.data[key] = value


async def stop(status: int) -> None:
    FRAMEWORK.abort(status, description=request.args.get("description"))


@sign_in_required
async def lost() -> None:
    """Raise the error of a store that becomes unavailable after the session was read."""
    raise stores.StoreUnavailable(str(current_user.sub))


async def failure() -> str:
    raise RuntimeError("a fault of the app's own")


_stalls: list[float] = []
_watching: list[asyncio.Task[None]] = []


async def stalls() -> list[float]:
    """Return the delays of the event loop since the last request, in seconds."""
    if not _watching:
        _watching.append(asyncio.create_task(watch()))
    seen = _stalls.copy()
    _stalls.clear()
    return seen


async def watch() -> None:
    """Measure the delay of the event loop again and again."""
    while True:
        start, queued = time.monotonic(), queued_for_a_core()
        await asyncio.sleep(0.005)
        late = time.monotonic() - start - 0.005
        # Subtract the time in which other programs used the CPU: it is not a delay of the app.
        _stalls.append(late - (queued_for_a_core() - queued))


def queued_for_a_core() -> float:
    """Return how many seconds this thread has waited for a CPU core so far."""
    statistics = Path("/proc/thread-self/schedstat")
    return int(statistics.read_text().split()[1]) / 1e9 if statistics.exists() else 0.0
