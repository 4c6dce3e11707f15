"""`{{ cookiecutter.framework }} logto check` and `{{ cookiecutter.framework }} logto provision`. They are not part of the image."""

import asyncio
import json
from typing import Any

import click

# Import the app inside the functions: every `{{ cookiecutter.framework }}` command loads this module. An import at the
# top would let a mistake in the app end `{{ cookiecutter.framework }} run --debug`.


@click.group("logto")
def commands() -> None:
    """Check or set up the app at Logto and at Microsoft."""


@commands.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def check_command(as_json: bool) -> None:
    """Check the set-up, and say how to fix each problem. The exit code is 0 if all is right."""
    from . import check
    from .output import say, table

    found = asyncio.run(check.run())
    well = all(each.ok for each in found)
    if as_json:
        say(json.dumps({"ok": well, "checks": [vars(each) for each in found]}, indent=2))
    else:
        table(found)
    if not well:
        raise SystemExit(1)


@commands.command("provision")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--social-only", is_flag=True, help='Also set the sign-up identifier to "None".')
@click.option("--create", is_flag=True, help="Create the application and the webhook if needed.")
@click.option("--env-file", metavar="PATH", help="The file that --create writes instead of .env.")
@click.option("--callback-url", metavar="URL", multiple=True, help="Register another callback URL.")
def provision_command(**options: Any) -> None:
    """Register this app and the Azure AD connector in Logto.

    The command only adds. Everything in Logto that does not belong to this app stays as it is.
    """
    from . import provision

    if options["env_file"] and not options["create"]:
        raise click.UsageError("--env-file needs --create. Add --create, or remove --env-file.")
    asyncio.run(provision.run(**options))
