"""Runs `logto` commands in a baked project. Each line of standard input is one command as JSON.

All commands run in one process, because the imports take most of the time of a command.
"""

import json
import sys
from pathlib import Path

from app.auth import oidc
from click.testing import CliRunner
from logto_setup import commands

trusted = None
for line in sys.stdin:
    command = json.loads(line)
    oidc.TIME_LIMIT = command["seconds"]
    # Loading the certificates takes longer than most commands, so load them only after a change.
    before, trusted = trusted, (command["variables"].get("SSL_CERT_FILE"), Path(".env").read_text())
    if trusted != before:
        oidc._tls.cache_clear()
    done = CliRunner().invoke(commands, command["words"], env=command["variables"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
