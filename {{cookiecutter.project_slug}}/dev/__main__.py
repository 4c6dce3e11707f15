"""The app and the local Logto in one terminal.

    python -m dev [--port 3000] [--logto-port 3001]

The app starts again whenever one of its files is saved. Ctrl-C stops both.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from .local_logto import ROOT, LocalLogto, listen, own_port, port_problem, settings


def main() -> int:
    """Run until Ctrl-C, or until the app cannot start; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dev", description="Run the app, and the local Logto beside it."
    )
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
        print("There was no .env: this is a copy of .env.example now.")
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
        print(f"\nOpen http://localhost:{app_port}{root}")
        print(f"\nUsers sign in at {stand_in.endpoint}. This is not the real Logto: it has no")
        print(f"passwords. You can be {', '.join(people)} or somebody new.")
        print("Ctrl-C stops both.\n", flush=True)
        environ = {**os.environ, **forced}
        return run_with_reload(app_command(app_port), environ, stand_in.follow_app)


def app_command(port: int) -> list[str]:
    """Return the command that serves the app, without a reload of its own."""
    # Both frameworks reload by starting themselves once more: on Windows that process
    # would outlive this one. So there is one process, and it is started here.
    command = [sys.executable, "-m", "{{ cookiecutter.framework }}", "run", "--debug", "--no-reload"]
    return [*command, "--host", "localhost", "--port", str(port)]


def run_with_reload(
    command: Sequence[str], environ: Mapping[str, str], on_change: Callable[[], None]
) -> int:
    """Run the command in the project, again after each change, and return its exit code."""
    app = subprocess.Popen(command, cwd=ROOT, env=environ)
    seen, changed = saved_files(), False
    try:
        # A mistake in a changed file ends the app, and the next change starts it again.
        while app.poll() is None or changed:
            time.sleep(0.5)
            files = saved_files()
            if files != seen:
                print("A file has changed: starting the app again.", flush=True)
                on_change()
                stop(app)
                app = subprocess.Popen(command, cwd=ROOT, env=environ)
                seen, changed = files, True
    except (KeyboardInterrupt, SystemExit):
        # The terminal has told the app, too; a second signal would hit it as it ends.
        with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            app.wait(3)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop(app)
    return app.returncode if app.returncode >= 0 else 128 - app.returncode


def saved_files() -> dict[Path, float]:
    """Return what the app is made of, with the times of the last change."""
    found = {}
    for file in [ROOT / ".env", *(ROOT / "app").rglob("*.py")]:
        with suppress(FileNotFoundError):  # as it is being saved, or there is none
            found[file] = file.stat().st_mtime
    return found


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that may have ended already."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
