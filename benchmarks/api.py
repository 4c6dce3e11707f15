"""The cost of an access token in an API call."""

import json
import subprocess
import sys
from pathlib import Path

from .subjects import HERE, INTERFACES, bake, environment


def rows(folder: Path) -> list[tuple[str, float, float]]:
    """Measure each framework in a separate process, and return rows (name, ratio, target).

    If a name begins with "times faster", the target is a minimum, else a maximum. A target of 0
    means that there is no target.
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
            # The log of the app has a line for each call.
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
