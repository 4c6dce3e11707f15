"""The features of Flask and Quart that users expect: settings, session and tests.

Each test is written into a copy of a bake and runs there, with the fixtures of the project.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Bake
from sites import FRAMEWORKS

HEAD = """
import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from time import monotonic
from uuid import UUID

import pytest
from conftest import Auth
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

import app.auth as auth_package
from app.auth import current_user, logto, sign_in_required
from app.auth.client import SessionStorage
from app.server.sessions import session
from {framework} import {Framework} as Framework
from {framework} import url_for

UNUSUAL = {{
    "time": datetime(2026, 11, 25, 12, tzinfo=UTC),
    "id": UUID("12345678123456781234567812345678"),
    "bytes": b"\\xff\\x00",
    "pair": ("a", [1]),
    "markup": Markup("<b>"),
    "tagged": {{" b": "eA=="}},
}}


def cookie_of(response):
    (cookie,) = response.headers.getlist("Set-Cookie")
    return cookie
"""

HABITS = {
    "a custom error without a text shows no None": """
class PaymentRequired(HTTPException):
    code = 402


async def test_it(start):
    app = await start()

    @app.get("/paid")
    async def paid():
        raise PaymentRequired

    response = await app.test_client().get("/paid")
    assert response.status_code == 402
    assert "None" not in await response.get_data(as_text=True)
""",
    "cookie settings are honoured": """
async def test_it(start):
    app = await start()
    app.config.update(
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_NAME="shop",
        PERMANENT_SESSION_LIFETIME=timedelta(minutes=5),
    )

    @app.get("/shop/note")
    async def note():
        session["note"] = "1"
        return ""

    cookie = cookie_of(await app.test_client().get("/shop/note"))
    assert cookie.startswith("shop=")
    for part in ("SameSite=Strict", "Path=/shop", "Max-Age=300", "HttpOnly"):
        assert part in cookie
    """,
    "a lifetime can be in seconds and a session can end with the browser": """
async def test_it(app):
    app.config["PERMANENT_SESSION_LIFETIME"] = 77

    @app.get("/note/<permanent>")
    async def note(permanent):
        session["note"] = "1"
        session.permanent = permanent == "yes"
        return ""

    assert "Max-Age=77" in cookie_of(await app.test_client().get("/note/yes"))
    assert "Max-Age" not in cookie_of(await app.test_client().get("/note/no"))
    """,
    "the prefix __Host- is used only if browsers accept it": """
@pytest.mark.parametrize(("path", "name"), [(None, "__Host-bookstore-session"), ("/a", "bookstore-session")])
async def test_it(start, path, name):
    app = await start(LOGTO_CALLBACK_URL="https://books.example/callback")
    app.config["SESSION_COOKIE_PATH"] = path
    interface = app.session_interface
    assert interface.get_cookie_name(app) == name
    assert interface.get_cookie_secure(app)
    """,
    "the secret key is passed on": """
async def test_it(start):
    app = await start(SECRET_KEY="for-extensions")
    assert app.secret_key == "for-extensions"
    """,
    "the session stores every type that the session of the framework stores": """
async def test_it(client, app):
    @app.get("/write")
    async def write():
        session.update(UNUSUAL)
        return ""

    @app.get("/change")
    async def change():
        session["pair"][1].append(2)
        return ""

    @app.get("/read")
    async def read():
        return {"kinds": [type(session[name]).__name__ for name in UNUSUAL],
                "equal": dict(session) == UNUSUAL | {"pair": ("a", [1, 2])}}

    await client.get("/write")
    await client.get("/change")
    response = await client.get("/read")
    kinds = ["datetime", "UUID", "bytes", "tuple", "Markup", "dict"]
    assert await response.get_json() == {"kinds": kinds, "equal": True}
    """,
    "the default file is in the instance path": """
async def test_it(start, client):
    app = await start(SESSION_URL="sqlite:///default.sqlite3")
    response = await app.test_client().get("/readyz")
    assert response.status_code == 200
    assert Path(app.instance_path, "default.sqlite3").exists()
    assert Path(app.instance_path) == Path(app.root_path).parent / "instance"
    """,
    "current_user follows sign-out within a request": """
async def test_it(client, auth, app):
    @app.get("/leave")
    async def leave():
        before = bool(current_user)
        session.renew()
        between = bool(current_user)
        session["user"] = {"sub": "another"}
        return {"seen": [before, between, current_user.sub]}

    await auth.sign_in()
    response = await client.get("/leave")
    assert (await response.get_json())["seen"] == [True, False, "another"]
    """,
    "current_user is correct for each client in a shared app context": """
async def test_it(app):
    @app.get("/me")
    @sign_in_required
    async def me():
        return current_user.sub

    alice, bob = app.test_client(), app.test_client()
    await Auth(alice).sign_in("alice")
    await Auth(bob).sign_in("bob")
    async with app.app_context():
        seen = [await (await one.get("/me")).get_data(as_text=True) for one in (alice, bob, alice)]
    assert len(set(seen)) == 2
    assert seen[0] == seen[2]
    """,
    "a mistake in the storage is a 500 with a traceback": """
async def test_it(app, client, caplog, monkeypatch):
    def broken(self, key, value):
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(SessionStorage, "set", broken)
    app.testing = False
    response = await client.get("/sign-in")
    assert response.status_code == 500
    assert "a mistake of ours" not in await response.get_data(as_text=True)
    assert any(r.exc_info and r.exc_info[0] is TypeError for r in caplog.records)
    """,
    "the time limit can be patched by its name": """
async def test_it(start, monkeypatch):
    import app.auth.client

    monkeypatch.setattr("app.auth.client.TIME_LIMIT", 0.5)
    over = threading.Event()

    class Silent(BaseRequestHandler):
        def handle(self):
            over.wait(20)

    with ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        silent = await start(LOGTO_ENDPOINT=f"http://127.0.0.1:{server.server_address[1]}")
        began = monotonic()
        response = await silent.test_client().get("/sign-in")
        assert monotonic() - began < 8
        over.set()
        server.shutdown()
    assert response.status_code == 503
    """,
    "a request that renews the session can get an access token": """
async def test_it(client, auth, app):
    @app.get("/again")
    ASYNC def again():
        data = dict(session)
        session.renew()
        session.update(data)
        del session["accessTokenMap"]
        return AWAIT logto.access_token()

    await auth.sign_in()
    response = await client.get("/again")
    assert response.status_code == 200
    response = await client.get("/profile")
    assert response.status_code == 200
    """,
    "two parallel calls work before the app has fetched the metadata of Logto": """
async def test_it(client, auth, app):
    @app.get("/both")
    ASYNC def both():
        AWAIT asyncio.gather(logto.user_info(), logto.user_info())
        return ""

    await auth.sign_in()
    oidc = app.extensions["logto_client"].oidc
    oidc.keys.__init__(oidc._fetch_published)
    del oidc.metadata
    response = await client.get("/both")
    assert response.status_code == 200
    """,
    "a catch-all page leaves the callback alone": """
def test_it(config):
    plain = Framework("app")
    plain.config.from_object(config)
    plain.add_url_rule("/<path:page>", "page", lambda page: "")
    auth_package.init_app(plain)
    """,
    "URLs of the app come from its configuration": """
async def test_it(start):
    app = await start(LOGTO_CALLBACK_URL="https://books.example/shop/callback", APPLICATION_ROOT="/shop")
    expected = "https://books.example/shop/profile"

    @app.get("/external")
    async def url():
        return url_for("pages.profile", _external=True)

    response = await app.test_client().get("/external", headers={"Host": "evil.example"})
    assert await response.get_data(as_text=True) == expected
    async with app.app_context():
        assert url_for("pages.profile", _external=True) == expected
    """,
    "a session that was renewed twice is gone after sign-out": """
async def test_it(client, auth, app):
    @app.get("/twice")
    async def twice():
        session["a"] = 1
        await session.commit()
        session.renew()
        await session.commit()
        session["b"] = 2
        await session.commit()
        session.renew()
        return ""

    response = await client.get("/twice")
    (cookie,) = response.headers.getlist("Set-Cookie")
    assert "Max-Age=0" in cookie
    """,
}


API_HABITS = {
    "current_token is correct for each request in a shared app context": """
async def test_it(app, client, local_logto):
    @app.get("/whose")
    async def whose():
        return {"token": bool(auth_package.current_token)}

    @app.get("/guarded")
    @auth_package.access_token_required()
    async def guarded():
        return {"token": bool(auth_package.current_token)}

    claims = {"sub": "a", "client_id": "b", "jti": "c", "aud": app.config["LOGTO_API_RESOURCE"]}
    headers = {"Authorization": "Bearer " + local_logto.sign(claims, 60, "at+jwt")}
    async with app.app_context():
        seen = []
        for path in ("/whose", "/guarded", "/whose"):
            response = await client.get(path, headers=headers)
            seen.append((await response.get_json())["token"])
        assert seen == [False, True, False]
    """,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("habits", [HABITS, API_HABITS], ids=["pages", "API"])
def test_what_users_of_the_framework_expect(
    bake: Bake, framework: str, habits: dict[str, str], tmp_path: Path
) -> None:
    api = {"api_resource": "https://api.example"} if habits is API_HABITS else {}
    project = bake(framework=framework, **api)
    shutil.copytree(project.path, tmp_path / "bookstore")
    project = replace(project, path=tmp_path / "bookstore")
    for name, code in habits.items():
        source = HEAD.format(framework=framework, Framework=framework.capitalize()) + code
        if framework == "flask":
            source = re.sub(r"\basync |\bawait ", "", source)
        source = source.replace("ASYNC ", "async ").replace("AWAIT ", "await ")
        file = "test_habit_" + re.sub(r"\W+", "_", name.lower()) + ".py"
        (project.path / "tests" / file).write_text(source, "utf-8")
    done = project.run("python", "-m", "pytest", "-q", "-W", "error", "-k", "habit")
    assert f"{len(habits) + (habits is HABITS)} passed" in done.stdout
