"""The app and the local Logto in one terminal.

The app starts again whenever one of its files is saved. Ctrl-C stops both.
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

from . import ROOT
from .local_logto import LocalLogto, Server, listen, own_port, port_is_taken, port_problem, settings

COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
STATIC = re.compile(r" app\.server\.logs: (GET|HEAD) /static/\S+ [23]")


def main() -> int:
    """Run until Ctrl-C, or until the app cannot start; return its exit code."""
    parser = argparse.ArgumentParser("python -m dev", description="The app and the local Logto")
    parser.add_argument("--port", type=int, help="of the app (as in .env, or 3000)")
    parser.add_argument("--logto-port", type=int, help="of the local Logto (as in .env, or 3001)")
    options = parser.parse_args()
    if sys.platform == "win32" and sys.version_info < (3, 12) and not str(ROOT).isascii():
        # pip writes this path as UTF-8, and Python 3.11 reads it in the code page of Windows.
        print(
            f"Python 3.11 cannot find a project that is installed in {ROOT}. Use Python 3.12 or "
            "newer, or move the project to a folder with a name in ASCII.",
            file=sys.stderr,
        )
    if not (ROOT / ".env").exists():
        # Git ignores it, so a fresh clone has none.
        (ROOT / ".env").touch(mode=0o600)
        shutil.copyfile(ROOT / ".env.example", ROOT / ".env")
        print("There was no .env: this is a copy of .env.example now.", flush=True)
    own = settings()
    app_port = options.port or own_port(own.get("LOGTO_CALLBACK_URL"), 3000)
    logto_port = options.logto_port or own_port(own.get("LOGTO_ENDPOINT"), 3001)
    if app_port == logto_port:
        parser.error(f"the app and the local Logto need a port each, and both have {app_port}")
    for option, port in (("--port", app_port), ("--logto-port", logto_port)):
        try:
            for listener in listen(port):
                listener.close()
        except OSError as error:
            sys.exit(port_problem(error, port, option))

    callback = urlsplit(own.get("LOGTO_CALLBACK_URL") or "/callback").path
    # The rest of `.env` the app reads itself. This wins over it, so that the local Logto is
    # the one also where `.env` names a real one.
    forced = {
        "LOGTO_ENDPOINT": f"http://localhost:{logto_port}",
        "LOGTO_APP_ID": own.get("LOGTO_APP_ID") or "local-app",
        "LOGTO_APP_SECRET": "any-text",
        "LOGTO_CALLBACK_URL": f"http://localhost:{app_port}{callback}",
        "LOGTO_WEBHOOK_SIGNING_KEY": own.get("LOGTO_WEBHOOK_SIGNING_KEY") or "any-key",
    }
    root = (own.get("APPLICATION_ROOT") or "").rstrip("/")
    with LocalLogto.for_app({**own, **forced}, port=logto_port) as stand_in:
        people = [name for name, user in stand_in.users.items() if user.username]
        welcome = (
            f"\nOpen http://localhost:{app_port}{root}\n\n"
            f"Users sign in at {stand_in.endpoint}. This is not the real Logto: it has no\n"
            f"passwords. You can be {', '.join(people)} or somebody new.\nCtrl-C stops both.\n"
        )
        # On Windows, Python would write other bytes into a pipe.
        environ = {**os.environ, **forced, "PYTHONIOENCODING": "utf-8"}
        return run_with_reload(app_port, environ, stand_in, welcome)


def run_with_reload(port: int, environ: Mapping[str, str], logto: LocalLogto, welcome: str) -> int:
    """Run the app, again after each change. Return the exit code of an app that cannot start.

    `welcome` is printed when the app listens. A mistake in a file ends the app until a change.
    """
    # Both frameworks reload by starting themselves once more: on Windows that process
    # would outlive this one. So there is one process, and it is started here.
    command = [sys.executable, "-m", "{{ cookiecutter.framework }}", "run", "--debug", "--no-reload"]
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
        except (KeyboardInterrupt, SystemExit):
            # The terminal has told the app, too; a second signal would hit it as it ends.
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
        logto.follow_app()
        changed = True


def show_log(log: IO[str], last: deque[str]) -> None:
    """Print the log of the app without static files, and keep its last lines."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    for line in log:
        last.append(line)
        colour = None if plain else COLOURS.get("".join(line.split()[2:3]))
        if not STATIC.search(line):
            click.secho(line.rstrip("\n"), fg=colour, reset=bool(colour), err=True)


def saved_files() -> dict[Path, float]:
    """Return what the app is made of, with the times of the last change."""
    found = {}
    for file in [ROOT / ".env", *(ROOT / "app").rglob("*.py")]:
        with suppress(FileNotFoundError):  # as it is being saved, or there is none
            found[file] = file.stat().st_mtime
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
