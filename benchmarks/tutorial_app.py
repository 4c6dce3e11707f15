"""The app of Logto's tutorial for Flask, without any addition.

It uses the SDK without changes, keeps tokens in Flask's signed cookie, and each view is a
coroutine. The measured apps are compared with this app.
"""

import os

from flask import Flask, redirect, request, session
from logto import LogtoClient, LogtoConfig, Storage
from werkzeug.wrappers import Response


class SessionStorage(Storage):
    def get(self, key: str) -> str | None:
        return session.get(key)

    def set(self, key: str, value: str | None) -> None:
        session[key] = value

    def delete(self, key: str) -> None:
        session.pop(key, None)


def create_app() -> Flask:
    """Build the app from the LOGTO_ variables."""
    app = Flask(__name__)
    app.secret_key = "not-a-secret"  # noqa: S105
    callback_url = os.environ["LOGTO_CALLBACK_URL"]
    client = LogtoClient(
        LogtoConfig(
            endpoint=os.environ["LOGTO_ENDPOINT"],
            appId=os.environ["LOGTO_APP_ID"],
            appSecret=os.environ["LOGTO_APP_SECRET"],
        ),
        storage=SessionStorage(),
    )

    @app.route("/")
    async def home() -> str:
        if client.isAuthenticated() is False:
            return "Not authenticated <a href='/sign-in'>Sign in</a>"
        return "Authenticated <a href='/sign-out'>Sign out</a>"

    @app.route("/sign-in")
    async def sign_in() -> Response:
        return redirect(await client.signIn(redirectUri=callback_url))

    @app.route("/callback")
    async def callback() -> Response:
        await client.handleSignInCallback(request.url)
        return redirect("/")

    return app
