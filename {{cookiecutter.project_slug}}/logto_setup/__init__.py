"""`{{ cookiecutter.framework }} logto check` and `{{ cookiecutter.framework }} logto provision`. They are not part of the image."""

import asyncio
import json

import click

# The app is imported in the functions: every `{{ cookiecutter.framework }}` command loads this module, and a mistake in
# the app must not end `{{ cookiecutter.framework }} run --debug`.


@click.group("logto")
def commands() -> None:
    """Check how this app, Logto and Azure AD are connected, or connect them."""


@commands.command("check")
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object.")
def check_command(as_json: bool) -> None:
    """Say what is right, what is wrong and how to fix it. This changes nothing.

    The exit code is 0 only if nothing is wrong.
    """
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
@click.option("--social-only", is_flag=True, help='Set the sign-up identifier to "None" as well.')
def provision_command(dry_run: bool, social_only: bool) -> None:
    """Register this app and the Azure AD connector in Logto.

    This only adds. Everything in Logto that does not belong to this app stays as it is.
    """
    from app.config import Config

    from . import provision

    config = Config.from_env()
    asyncio.run(provision.run(config, dry_run=dry_run, social_only=social_only))
