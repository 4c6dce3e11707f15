"""Runs `logto ...` in a bake, one command after another in one process, as standard input says.

A process for each command would spend its time on imports.
"""

import json
import sys

from app.cli import http, logto
from click.testing import CliRunner

for line in sys.stdin:
    asked = json.loads(line)
    http.TIME_LIMIT = asked["seconds"]
    done = CliRunner().invoke(logto, asked["words"], env=asked["variables"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
