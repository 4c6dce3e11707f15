"""A stand-in for Logto on this machine: no account, no network, no passwords.

It responds as the real Logto does (endpoints, claims, error bodies, lifetimes of tokens), so an
app that works with this stand-in works with Logto. Anyone can sign in as any user, so it accepts
requests from this machine only. It is not for production.
"""

import argparse
import ast
import errno
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from flask import Flask
from werkzeug.serving import make_server

from . import APP_NAME, ROOT, management_api, oidc
from .accounts import StandIn

LOOPBACK_NAMES = ("localhost", "127.0.0.1")
API = ROOT / "app" / "api.py"
EXAMPLE_SCOPES = ["read:books", "write:books"]


def api_scopes() -> list[str]:
    """Return the scopes in SCOPES of app/api.py, or [] if SCOPES cannot be read.

    The file is parsed and not imported, so a mistake in the app does no harm here.
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


def port_of(url: str | None, default: int) -> int:
    """Return the port of a URL on this machine. For any other URL, return `default`."""
    parts = urlsplit(url or "")
    try:
        port = parts.port
    except ValueError:
        return default
    return port if port and parts.hostname in (*LOOPBACK_NAMES, "::1") else default


def settings() -> dict[str, str | None]:
    """Return the variables of `.env` and the environment. Exit if `.env` cannot be read."""
    try:
        return {**dotenv_values(ROOT / ".env"), **os.environ}
    except UnicodeDecodeError:
        # In Windows PowerShell 5, `>` writes UTF-16.
        sys.exit(f"Save {ROOT / '.env'} as UTF-8: it has another encoding and cannot be read.")


def port_problem(error: OSError, port: int, option: str) -> str:
    """Return the message for an error of `listen`, with the option that changes the port."""
    if error.errno == errno.EADDRINUSE:
        why = "is taken, perhaps by a python process that a killed python -m dev has left"
    else:
        why = "cannot be used: the system reserves it, as Windows does for Hyper-V and WSL"
    return f"Port {port} {why}. Free it, or choose another with {option} {port + 10}."


def port_is_taken(port: int) -> bool:
    """Return whether a program listens on this port of this machine."""
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((host, port), 0.3):
            return True
    return False


def listen(port: int) -> list[socket.socket]:
    """Listen on the same port (0: any free port) of 127.0.0.1 and, if it exists, of ::1.

    Both are needed: "localhost" is 127.0.0.1 on some machines and ::1 on others.
    Raises OSError if the port is taken (EADDRINUSE) or the system reserves it (EACCES).
    """
    # Windows and macOS bind the port even if another program listens on all addresses.
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


class Server:
    """A WSGI app on `http://localhost:<port>`.

    The constructor binds the port. The server responds after `start()` or inside `with`.
    """

    def __init__(self, app: Any, port: int) -> None:
        """Take a port (0: any free port). Raise OSError if the port is taken."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # The terminal shows the app's log.
        listeners = listen(port)
        self.port: int = listeners[0].getsockname()[1]
        self._serving, self._servers = False, []
        for listener in listeners:
            host = listener.getsockname()[0]
            with listener:
                server = make_server(host, self.port, app, threaded=True, fd=listener.fileno())
            self._servers.append(server)

    def start(self) -> Self:
        """Serve in daemon threads."""
        self._serving = True
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self, *_: object) -> None:
        """Stop serving and free the port."""
        for server in self._servers:
            if self._serving:  # Before `start()`, `shutdown` would wait for ever.
                server.shutdown()
            server.server_close()

    __enter__, __exit__ = start, stop


class LocalLogto(StandIn, Server):
    """A server that is a Logto with one registered application."""

    def __init__(self, *, port: int = 0, **known: Any) -> None:
        """Take a port (0: any free port) and what StandIn takes. Raise OSError if it is taken."""
        StandIn.__init__(self, **known)
        self.app = Flask("local_logto", root_path=str(Path(__file__).parent))
        # A web page must not reach this server through a host name that resolves to 127.0.0.1.
        self.app.config["TRUSTED_HOSTS"] = list(LOOPBACK_NAMES)
        self.app.extensions["stand_in"] = self.app.jinja_env.globals["stand_in"] = self
        self.app.register_blueprint(oidc.bp)
        self.app.register_blueprint(management_api.bp)
        Server.__init__(self, self.app, port)
        self.endpoint = f"http://localhost:{self.port}"
        self.issuer = f"{self.endpoint}/oidc"

    @classmethod
    def for_app(cls, environ: Mapping[str, str | None], *, port: int) -> Self:
        """Return a stand-in that knows the app of these LOGTO_ variables."""
        callback = environ.get("LOGTO_CALLBACK_URL") or "http://localhost:3000/callback"
        root = (environ.get("APPLICATION_ROOT") or "").rstrip("/")
        home = "{0.scheme}://{0.netloc}".format(urlsplit(callback)) + f"{root}/"
        resource = environ.get("LOGTO_API_RESOURCE")
        scopes = (environ.get("LOGTO_SCOPES") or "").split()
        permissions = [scope for scope in scopes if scope not in oidc.OIDC_SCOPES]
        resources = dict.fromkeys((environ.get("LOGTO_RESOURCES") or "").split(), permissions)
        if resource:
            resources[resource] = api_scopes() or EXAMPLE_SCOPES
        stand_in = cls(
            app_id=environ.get("LOGTO_APP_ID") or "local-app",
            redirect_uris=[callback],
            post_logout_redirect_uris=[home],
            backchannel_logout_uri=f"{home}backchannel-logout",
            resources=resources,
            port=port,
            machine_app_id=environ.get("LOGTO_M2M_APP_ID") or "local-m2m",
        )
        stand_in.app_resource = resource
        if key := environ.get("LOGTO_WEBHOOK_SIGNING_KEY"):
            events, url = ["User.SuspensionStatus.Updated"], f"{home}webhooks/logto"
            stand_in.add_hook(key, name="local", events=events, config={"url": url})
        stand_in.application.name = APP_NAME
        return stand_in

    def reload_scopes(self) -> None:
        """Read the scopes of app/api.py again, after a change."""
        if (name := self.app_resource) and name in self.resources and (scopes := api_scopes()):
            self.resources[name] = scopes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stand-in alone, for the app of `.env`."""
    parser = argparse.ArgumentParser("python -m dev.local_logto", description="The local Logto")
    parser.add_argument("--port", type=int, default=3001, help="3001 if not given")
    blank = "know only the app's ID, to try `logto provision`"
    parser.add_argument("--blank", action="store_true", help=blank)
    options = parser.parse_args(arguments)
    try:
        stand_in = LocalLogto.for_app(settings(), port=options.port)
    except OSError as error:
        sys.exit(port_problem(error, options.port, "--port"))
    print(f"The local Logto (not the real one) is at {stand_in.endpoint}")
    if options.blank:
        stand_in.clear()
        print(f"It knows only the app ID {stand_in.application.id}. Its machine-to-machine app is")
        print(f"{stand_in.machine.id}, and any text is a valid secret.")
    for uri in stand_in.application.redirect_uris:
        print(f"It knows the app {stand_in.application.id} with the callback URL {uri}")
    print("Stop it with Ctrl-C.", flush=True)
    with stand_in, suppress(KeyboardInterrupt):
        # Without a time limit, Windows would ignore Ctrl-C.
        while True:
            time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
