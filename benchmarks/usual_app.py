"""The app that a Flask developer would build instead, from the usual packages.

It has the SDK as in Logto's tutorial, Flask-Session for the sessions, Flask-Talisman for the
headers, a line in the log for each request, and the template of the bake that it runs in.
USUAL_STORE is `files`, `sqlalchemy` or `redis`. USUAL_URL is a folder, or the URL of a database.
The view is `async def`, as in the tutorial, or a plain function if USUAL_VIEW is `sync`.
"""

import logging
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tutorial_app
from cachelib.file import FileSystemCache
from flask import Flask, g, redirect, render_template, request
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from flask_talisman import Talisman
from logto import LogtoClient, LogtoConfig
from redis import Redis
from werkzeug.wrappers import Response


def create_app() -> Flask:
    """Build the app from the LOGTO_ and USUAL_ variables."""
    app = Flask("app", root_path=str(Path.cwd() / "app"))
    store, url = os.environ["USUAL_STORE"], os.environ["USUAL_URL"]
    if store == "files":
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(url))
    elif store == "redis":
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(url))
    else:
        app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI=url)
        app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    Session(app)
    Talisman(app, force_https=False, session_cookie_secure=False)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def log(response: Response) -> Response:
        milliseconds = (time.perf_counter() - g.started) * 1000
        values = (request.method, request.path, response.status_code, milliseconds)
        app.logger.info("%s %s %d %.1f ms", *values)
        return response

    client = LogtoClient(
        LogtoConfig(
            endpoint=os.environ["LOGTO_ENDPOINT"],
            appId=os.environ["LOGTO_APP_ID"],
            appSecret=os.environ["LOGTO_APP_SECRET"],
        ),
        storage=tutorial_app.SessionStorage(),
    )

    def page() -> str:
        user: Any = None
        if client.isAuthenticated():
            claims = client.getIdTokenClaims()
            name, picture = claims.name or "", claims.picture
            user = SimpleNamespace(display_name=name, initial=name[:1], picture=picture)
        shown = {"app_name": "Bookstore", "current_user": user, "connectors": {}}
        return render_template("home.html", **shown)

    async def home() -> str:
        return page()

    app.add_url_rule("/", "pages.home", page if os.environ.get("USUAL_VIEW") == "sync" else home)

    @app.route("/sign-in", endpoint="auth.sign_in")
    async def sign_in() -> Response:
        return redirect(await client.signIn(redirectUri=os.environ["LOGTO_CALLBACK_URL"]))

    @app.route("/callback")
    async def callback() -> Response:
        await client.handleSignInCallback(request.url)
        return redirect("/")

    # The page has links to these views.
    for name in ("auth.sign_out", "auth.sign_up", "pages.profile"):
        app.add_url_rule(f"/{name}", endpoint=name, view_func=page)
    return app
