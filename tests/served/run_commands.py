"""Runs `logto ...` in a bake, one command after another in one process, as standard input says.

A process for each command would spend its time on imports.
"""

import json
import sys

from app.auth import oidc
from click.testing import CliRunner
from logto_setup import commands

for line in sys.stdin:
    asked = json.loads(line)
    oidc.TIME_LIMIT = asked["seconds"]
    oidc._tls.cache_clear()
    done = CliRunner().invoke(commands, asked["words"], env=asked["variables"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
