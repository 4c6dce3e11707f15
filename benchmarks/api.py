"""What an access token costs an API call."""

import json
import subprocess
import sys
from pathlib import Path

from .subjects import HERE, INTERFACES, bake, environment


def rows(folder: Path) -> list[tuple[str, float, float]]:
    """Measure on each framework, in one process each; gives (name, ratio, target) rows.

    A name that begins with "times faster" has a target to reach, any other one not to pass; a
    target of 0 is none, and the row is there to be known.
    """
    found: list[tuple[str, float, float]] = []
    for framework in INTERFACES:
        project = bake(folder / framework, f"framework={framework}", "api_resource=urn:bench:api")
        done = subprocess.run(
            [sys.executable, str(HERE / "api_calls.py"), framework],
            cwd=project,
            env=environment(),
            check=True,
            stdout=subprocess.PIPE,
            # The log of the app, a line for each call.
            stderr=subprocess.DEVNULL,
        )
        cost: dict[str, float] = json.loads(done.stdout)
        name = framework.capitalize()
        by_hand = "PyJWT's bare decode in a bare JSON view"
        found += [
            (f"{name}: a new token, by {by_hand}", cost["guarded, new"] / cost["by hand"], 1.2),
            (
                f"times faster, {name}: a token seen before, than verifying it each time",
                cost["guarded, new"] / cost["guarded, seen"],
                3,
            ),
            (
                f"{name}: a new token in the whole app, by {by_hand}",
                cost["app, new"] / cost["by hand"],
                0,
            ),
            (
                f"times faster, {name}: a token seen before, in the whole app",
                cost["app, new"] / cost["app, seen"],
                0,
            ),
        ]
    return found
