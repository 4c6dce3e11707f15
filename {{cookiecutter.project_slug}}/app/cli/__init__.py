"""`{{ cookiecutter.framework }} logto check` and `{{ cookiecutter.framework }} logto provision`."""

import asyncio
import json
import sys

import click

from ..config import Config
from . import check as checks
from . import provision as provisioning
from .output import say, table


def commands_only() -> bool:
    """Whether this is `{{ cookiecutter.framework }} logto ...`, which has to run without a configuration too."""
    return "logto" in sys.argv and click.get_current_context(silent=True) is not None


@click.group()
def logto() -> None:
    """Check how this app, Logto and Azure AD are connected, or connect them."""


@logto.command()
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object.")
def check(as_json: bool) -> None:
    """Say what is right, what is not and how to mend it; changes nothing.

    The exit code is 0 only if all is well.
    """
    found = asyncio.run(checks.run())
    well = all(each.ok for each in found)
    if as_json:
        say(json.dumps({"ok": well, "checks": [vars(each) for each in found]}, indent=2))
    else:
        table(found)
    if not well:
        raise SystemExit(1)


@logto.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--social-only", is_flag=True, help='Set the sign-up identifier to "None" as well.')
def provision(dry_run: bool, social_only: bool) -> None:
    """Register this app and the Azure AD connector in Logto.

    Only adds: what is there already, and is not this app's, stays as it is.
    """
    config = Config.from_env()
    asyncio.run(provisioning.run(config, dry_run=dry_run, social_only=social_only))
