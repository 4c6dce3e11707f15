"""Runs `logto` commands in a baked project. Each line of standard input is one command as JSON.

All commands run in one process, because the imports take most of the time of a command.
"""

import json
import sys

from app.auth import oidc
from click.testing import CliRunner
from logto_setup import commands

for line in sys.stdin:
    command = json.loads(line)
    oidc.TIME_LIMIT = command["seconds"]
    oidc._tls.cache_clear()
    done = CliRunner().invoke(commands, command["words"], env=command["variables"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
