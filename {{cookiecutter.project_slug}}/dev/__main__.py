"""Run the app and the local Logto in one terminal.

The app starts again when one of its files is saved. Ctrl-C stops both.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import click
from werkzeug import Response

from . import FRAMEWORK, ROOT
from .local_logto import LocalLogto, Server, listen, port_is_taken, port_of, port_problem, settings

COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
STATIC = re.compile(r" app\.server\.logs: (GET|HEAD) /static/\S+ [23]")


def main() -> int:
    """Run until Ctrl-C, or until the app cannot start. Return the exit code of the app."""
    parser = argparse.ArgumentParser("python -m dev", description="The app and the local Logto")
    parser.add_argument("--port", type=int, help="port of the app (from .env, or 3000)")
    parser.add_argument("--logto-port", type=int, help="port of Logto (from .env, or 3001)")
    options = parser.parse_args()
    if sys.platform == "win32" and sys.version_info < (3, 12) and not str(ROOT).isascii():
        # pip writes this path as UTF-8, and Python 3.11 reads it in the code page of Windows.
        print(
            f"Python 3.11 cannot find a project that is installed in {ROOT}. Use Python 3.12 or "
            "newer, or move the project to a folder whose path has only ASCII characters.",
            file=sys.stderr,
        )
    if not (ROOT / ".env").exists():
        # Git ignores .env, so a fresh clone has none.
        (ROOT / ".env").touch(mode=0o600)
        shutil.copyfile(ROOT / ".env.example", ROOT / ".env")
        print("There was no .env. It is now a copy of .env.example.", flush=True)
    env = settings()
    app_port = options.port or port_of(env.get("LOGTO_CALLBACK_URL"), 3000)
    logto_port = options.logto_port or port_of(env.get("LOGTO_ENDPOINT"), 3001)
    if app_port == logto_port:
        parser.error(f"port {app_port} is for the app: choose another with --logto-port")
    for option, port in (("--port", app_port), ("--logto-port", logto_port)):
        try:
            for listener in listen(port):
                listener.close()
        except OSError as error:
            sys.exit(port_problem(error, port, option))

    callback = urlsplit(env.get("LOGTO_CALLBACK_URL") or "/callback").path
    # The app reads `.env` too. These values win over `.env`, so the app uses the local Logto
    # even if `.env` names a real Logto.
    forced = {
        "LOGTO_ENDPOINT": f"http://localhost:{logto_port}",
        "LOGTO_APP_ID": env.get("LOGTO_APP_ID") or "local-app",
        "LOGTO_APP_SECRET": "any-text",
        "LOGTO_CALLBACK_URL": f"http://localhost:{app_port}{callback}",
        "LOGTO_WEBHOOK_SIGNING_KEY": env.get("LOGTO_WEBHOOK_SIGNING_KEY") or "any-key",
    }
    root = (env.get("APPLICATION_ROOT") or "").rstrip("/")
    with LocalLogto.for_app({**env, **forced}, port=logto_port) as stand_in:
        usernames = [name for name, user in stand_in.users.items() if user.username]
        welcome = (
            f"\nOpen http://localhost:{app_port}{root}\n\n"
            f"Users sign in at {stand_in.endpoint}. This is not the real Logto: it has no\n"
            f"passwords. Sign in as {', '.join(usernames)} or a new user.\nCtrl-C stops both.\n"
        )
        # On Windows, Python would not write UTF-8 into a pipe.
        environ = {**os.environ, **forced, "PYTHONIOENCODING": "utf-8"}
        return run_with_reload(app_port, environ, stand_in, welcome)


def run_with_reload(port: int, environ: Mapping[str, str], logto: LocalLogto, welcome: str) -> int:
    """Run the app, and restart it after each change. Return its exit code if it cannot start.

    Print `welcome` when the app listens. If a mistake in a file ends the app, wait for a change.
    """
    # To reload, both frameworks start a second process. On Windows, it would not end with this
    # process. So start the app without its reloader, and restart it here.
    command = [sys.executable, "-m", FRAMEWORK, "run", "--debug", "--no-reload"]
    command += ["--host", "localhost", "--port", str(port)]
    options: dict[str, Any] = {"cwd": ROOT, "env": environ, "encoding": "utf-8"}
    page = logto.app.jinja_env.get_template("stopped.html")
    changed = False
    while True:
        files, last = saved_files(), deque[str](maxlen=12)
        app = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
        log = threading.Thread(target=show_log, args=(app.stderr, last), daemon=True)
        log.start()
        try:
            while app.poll() is None and saved_files() == files:
                time.sleep(0.3)
                if welcome and port_is_taken(port):
                    print(welcome, flush=True)
                    welcome = ""
            if app.poll() is not None:
                log.join()
                if not changed and not any(line.startswith('  File "') for line in last):
                    return app.returncode if app.returncode >= 0 else 128 - app.returncode
                print("The app stopped. It starts again when you save a file.", flush=True)
                text = page.render(lines="".join(last))
                with Server(Response(text, 500, mimetype="text/html"), port):
                    while saved_files() == files:
                        time.sleep(0.3)
        except KeyboardInterrupt:
            # The terminal sent Ctrl-C to the app too. A second signal would disturb its shutdown.
            with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                app.wait(3)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise
        finally:
            app.terminate()
            with suppress(subprocess.TimeoutExpired):
                app.wait(5)
            app.kill()
        print("A file has changed: starting the app again.", flush=True)
        logto.reload_scopes()
        changed = True


def show_log(log: IO[str], last: deque[str]) -> None:
    """Print the log of the app without requests for static files. Keep its last lines in `last`."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    for line in log:
        last.append(line)
        colour = None if plain else COLOURS.get("".join(line.split()[2:3]))
        if not STATIC.search(line):
            shown = click.unstyle(line) if plain else line  # Werkzeug colours its own warning.
            click.secho(shown.rstrip("\n"), fg=colour, reset=bool(colour), err=True)


def saved_files() -> dict[Path, float]:
    """Return the files of the app with the times of their last change."""
    found = {}
    for file in [ROOT / ".env", *(ROOT / "app").rglob("*.py")]:
        with suppress(FileNotFoundError):  # The file is being saved, or does not exist.
            found[file] = file.stat().st_mtime
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
