"""A stand-in for Logto on this machine: no account, no network, no passwords.

It answers like the real Logto does (endpoints, claims, error bodies, lifetimes of
tokens), so an app that works with it works with Logto. It lets anybody sign in as
anybody, so it answers to this machine only. It is not for production.

    python -m dev.local_logto

The file reads from top to bottom: what is remembered, the server, the pages where a
person signs in (`/oidc/auth` and after), the tokens, and the command.
"""

import argparse
import ast
import errno
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from dotenv import dotenv_values
from flask import Flask
from joserfc import jwt
from joserfc.jwk import ECKey
from werkzeug.serving import WSGIRequestHandler, make_server

from .accounts import (
    Application,
    Credential,
    Grant,
    Interaction,
    Session,
    example_users,
    random_id,
)
from .management_api import FACTORY, client_credentials, management
from .oidc import GRANT_TYPES, provider

LOOPBACK_NAMES = ("localhost", "127.0.0.1")
SIMULATED_AZURE = {
    "clientId": "simulated",
    "clientSecret": "simulated",
    "tenantId": "common",
    "cloudInstance": "https://login.microsoftonline.com/",
}
API = Path(__file__).resolve().parent.parent / "app" / "api.py"
EXAMPLE_SCOPES = ("read:books", "write:books")
LOGOUT_TOKEN_LIFETIME = 120

log = logging.getLogger("local_logto")


def api_scopes() -> list[str]:
    """Return the scopes that SCOPES in app/api.py names; none if it cannot be read.

    It is not imported: a mistake in the app, which is being worked on, does no harm here.
    """
    try:
        module = ast.parse(API.read_text("utf-8"))
        for statement in module.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id="SCOPES")], value=scopes)
                    | ast.AnnAssign(target=ast.Name(id="SCOPES"), value=ast.expr() as scopes)
                ):
                    return list(ast.literal_eval(scopes))
    except (OSError, SyntaxError, TypeError, ValueError):
        pass
    return []


def own_port(address: str | None, otherwise: int) -> int:
    """Return the port of an address that is on this machine; of others, `otherwise`."""
    url = urlsplit(address or "")
    try:
        port = url.port
    except ValueError:
        return otherwise
    return port if port and url.hostname in (*LOOPBACK_NAMES, "::1") else otherwise


def port_is_taken(port: int) -> bool:
    """Say whether something listens on this port of this machine."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.settimeout(0.3)
                if probe.connect_ex((host, port)) == 0:
                    return True
        except OSError:  # no IPv6 on this machine
            continue
    return False


def listen(port: int) -> list[socket.socket]:
    """Bind 127.0.0.1 and, where there is one, ::1 to the same port (0: any free one).

    Both, because "localhost" means the one on some machines and the other on others.
    Raises OSError (EADDRINUSE) if the port is taken.
    """
    if port and port_is_taken(port):
        raise OSError(errno.EADDRINUSE, f"Port {port} is taken.")
    while True:
        first = socket.create_server(("127.0.0.1", port))
        address = ("::1", first.getsockname()[1])
        try:
            return [first, socket.create_server(address, family=socket.AF_INET6)]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first]
            first.close()
            if port:
                raise


class QuietHandler(WSGIRequestHandler):
    """Leaves the terminal to the app's own log."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class LocalLogto:
    """A Logto on `http://localhost:<port>` with one registered application.

    Bound once constructed, serving after `start()` or inside `with`. `resources` maps
    the indicator of each API resource to its scopes. Lifetimes are seconds. Raises
    OSError if the port is taken and ValueError for a host that is not this machine.

    `applications`, `connectors` and `sign_in_experience` may be changed while it runs, by
    the Management API too, with `machine_app_id` as the application for that. For tests,
    `requests` has the method and path of all requests and `issued` every code and
    token ever given out.
    """

    def __init__(
        self,
        *,
        app_id: str,
        redirect_uris: Sequence[str] = (),
        post_logout_redirect_uris: Sequence[str] = (),
        backchannel_logout_uri: str | None = None,
        port: int = 0,
        resources: Mapping[str, Sequence[str]] | None = None,
        access_token_lifetime: int = 3600,
        rotate_refresh_tokens: bool = False,
        host: str = "localhost",
        machine_app_id: str = "local-m2m",
    ) -> None:
        if host not in (*LOOPBACK_NAMES, "::1"):
            raise ValueError(
                f"The local Logto lets anybody sign in as anybody, so it listens on "
                f"localhost only, not on {host}."
            )
        self.application = Application(
            app_id,
            app_id,
            list(redirect_uris),
            list(post_logout_redirect_uris),
            backchannel_logout_uri,
            backchannel_logout_session_required=backchannel_logout_uri is not None,
        )
        self.machine = Application(machine_app_id, "Provisioning", type="MachineToMachine")
        self.applications = {machine_app_id: self.machine, app_id: self.application}
        self.users = example_users()
        self.resources = dict(resources or ())
        self.own_resource: str | None = None
        self.connectors: list[dict[str, Any]] = [
            {"id": "azuread", "connectorId": FACTORY, "config": dict(SIMULATED_AZURE)}
        ]
        self.sign_in_experience: dict[str, Any] = {
            "signInMode": "SignInAndRegister",
            "signIn": {"methods": [{"identifier": "username", "password": True}]},
            "signUp": {"identifiers": ["username"], "password": True, "verify": False},
            "socialSignInConnectorTargets": ["azuread"],
        }
        self.grant_types = {**GRANT_TYPES, "client_credentials": client_credentials}
        self.access_token_lifetime = access_token_lifetime
        self.rotate_refresh_tokens = rotate_refresh_tokens
        self.sessions: dict[str, Session] = {}
        self.interactions: dict[str, Interaction] = {}
        self.grants: list[Grant] = []
        self.codes: dict[str, Credential] = {}
        self.refresh_tokens: dict[str, Credential] = {}
        self.access_tokens: dict[str, Credential] = {}
        self.issued: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self.key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)

        self.app = Flask("local_logto", root_path=str(Path(__file__).parent))
        # A page on the web must not reach it under a name that points to 127.0.0.1.
        self.app.config["TRUSTED_HOSTS"] = list(LOOPBACK_NAMES)
        self.app.extensions["local_logto"] = self
        self.app.register_blueprint(provider)
        self.app.register_blueprint(management)

        listeners = listen(port)
        self.port: int = listeners[0].getsockname()[1]
        self.endpoint = f"http://localhost:{self.port}"
        self.issuer = f"{self.endpoint}/oidc"
        self._threads: list[threading.Thread] = []
        self._servers = []
        for listener in listeners:
            with listener:
                server = make_server(
                    listener.getsockname()[0],
                    self.port,
                    self.app,
                    threaded=True,
                    request_handler=QuietHandler,
                    fd=listener.fileno(),
                )
            self._servers.append(server)

    @classmethod
    def for_app(
        cls, environ: Mapping[str, str | None], *, port: int, host: str = "localhost"
    ) -> Self:
        """Return a stand-in that knows the app of these LOGTO_ variables."""
        callback = environ.get("LOGTO_CALLBACK_URL") or "http://localhost:3000/callback"
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(callback))
        resource = environ.get("LOGTO_API_RESOURCE")
        stand_in = cls(
            app_id=environ.get("LOGTO_APP_ID") or "local-app",
            redirect_uris=[callback],
            post_logout_redirect_uris=[f"{origin}/"],
            backchannel_logout_uri=f"{origin}/backchannel-logout",
            resources={resource: api_scopes() or EXAMPLE_SCOPES} if resource else None,
            port=port,
            host=host,
            machine_app_id=environ.get("LOGTO_M2M_APP_ID") or "local-m2m",
        )
        stand_in.own_resource = resource
        return stand_in

    def follow_app(self) -> None:
        """Take over the scopes that app/api.py names by now."""
        if self.own_resource in self.resources and (scopes := api_scopes()):
            self.resources[self.own_resource] = scopes

    @property
    def offers_microsoft(self) -> bool:
        """Whether the sign-in page has the button: a connector, and its target enabled."""
        enabled = "azuread" in self.sign_in_experience["socialSignInConnectorTargets"]
        return enabled and bool(self.connectors)

    def clear(self) -> None:
        """Forget all that an administrator enters, as in a Logto that is just installed."""
        self.application.redirect_uris = []
        self.application.post_logout_redirect_uris = []
        self.application.backchannel_logout_uri = None
        self.application.backchannel_logout_session_required = False
        self.connectors.clear()
        self.resources.clear()
        self.sign_in_experience["socialSignInConnectorTargets"] = []

    @property
    def scopes(self) -> list[str]:
        """The scopes of all API resources; an organization can grant each of them too."""
        return [scope for scopes in self.resources.values() for scope in scopes]

    def start(self) -> None:
        """Serve in daemon threads."""
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop serving and free the port."""
        for server in self._servers:
            if self._threads:
                server.shutdown()
            server.server_close()
        self._threads.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serve_forever(self) -> None:
        """Serve until Ctrl-C."""
        with self:
            try:
                # Without a time limit, Windows would not let Ctrl-C through.
                while any(thread.is_alive() for thread in self._threads):
                    self._threads[0].join(0.5)
            except KeyboardInterrupt:
                pass

    def suspend(self, username: str) -> None:
        """Suspend a user as the Management API does.

        Sessions end and all tokens are revoked, so the next refresh is refused. The app
        gets no message.
        """
        with self.lock:
            user = self.users[username]
            user.suspended = True
            for key, session in list(self.sessions.items()):
                if session.user is user:
                    del self.sessions[key]
            for grant in self.grants:
                if grant.user is user:
                    grant.revoked = True

    def end_session(self, key: str) -> None:
        """Sign a browser out and tell its applications (Back-Channel Logout 1.0).

        Takes the value of its `_session` cookie. As in Logto, refresh tokens with
        `offline_access` outlive the session.
        """
        with self.lock:
            session = self.sessions.pop(key)
            visited: dict[str, Application] = {}
            for grant in self.grants:
                if grant.session is session:
                    visited[grant.interaction.application.id] = grant.interaction.application
                    if "offline_access" not in grant.interaction.scopes:
                        grant.revoked = True
        for application in visited.values():
            if application.backchannel_logout_uri:
                threading.Thread(
                    target=self._send_logout_token,
                    args=(application, application.backchannel_logout_uri, session),
                    daemon=True,
                ).start()

    def _send_logout_token(self, application: Application, uri: str, session: Session) -> None:
        # The real Logto drops calls to loopback addresses without a word. This one is
        # there to try the app's answer out, so it makes them.
        claims: dict[str, Any] = {
            "sub": session.user.id,
            "aud": application.id,
            "jti": random_id(21),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        if application.backchannel_logout_session_required:
            claims["sid"] = session.sid
        token = self.sign(claims, LOGOUT_TOKEN_LIFETIME, "logout+jwt")
        try:
            answer = httpx.post(uri, data={"logout_token": token}, timeout=5)
            log.info("Back-channel logout: the app answered %s", answer.status_code)
        except httpx.HTTPError as error:
            log.warning("Back-channel logout: %s cannot be reached (%s)", uri, error)

    def sign(self, claims: dict[str, Any], lifetime: int, typ: str | None) -> str:
        """Return the claims with `iss`, `iat` and `exp` as a JWT of `lifetime` seconds."""
        now = int(time.time())
        header = {"alg": "ES384", "kid": self.key.kid}
        if typ:
            header["typ"] = typ
        claims = {**claims, "iss": self.issuer, "iat": now, "exp": now + lifetime}
        token = jwt.encode(header, claims, self.key, algorithms=["ES384"], default_type=None)
        self.issued.append(token)
        return token

    def issue(
        self, store: dict[str, Credential], grant: Grant, scopes: list[str], lifetime: float
    ) -> str:
        """Return a new opaque credential (43 characters) and remember it in `store`."""
        value = secrets.token_urlsafe(32)
        store[value] = Credential(grant, scopes, lifetime)
        self.issued.append(value)
        return value


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m dev.local_logto`: the stand-in alone, for the app of `.env`."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.local_logto", description="Run the local Logto alone."
    )
    parser.add_argument("--port", type=int, default=3001)
    parser.add_argument("--host", default="localhost", help="only localhost is allowed")
    parser.add_argument(
        "--blank",
        action="store_true",
        help="know the app's ID only, to try `logto provision`",
    )
    options = parser.parse_args(arguments)
    environ = {**dotenv_values(".env"), **os.environ}
    try:
        stand_in = LocalLogto.for_app(environ, port=options.port, host=options.host)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError:
        print(
            f"Port {options.port} is taken: stop the program that uses it, or choose "
            f"another with --port {options.port + 1}.",
            file=sys.stderr,
        )
        return 1
    if options.blank:
        stand_in.clear()
    print(f"The local Logto (not the real one) is at {stand_in.endpoint}")
    for uri in stand_in.application.redirect_uris:
        print(f"It knows the app {stand_in.application.id} at {uri}")
    if options.blank:
        print(f"It knows the ID of the app, {stand_in.application.id}, and nothing else. Its")
        print(f"machine-to-machine app is {stand_in.machine.id}, with any text as its secret.")
    print("Stop it with Ctrl-C.", flush=True)
    stand_in.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
