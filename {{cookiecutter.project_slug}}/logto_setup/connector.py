"""The Azure AD connector of Logto, as `connectors/azure-ad.json` describes it."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.config import PROJECT_DIR

FILE = Path("connectors", "azure-ad.json")
FOLDER = PROJECT_DIR / "connectors"
FACTORY = "azuread-universal"
TARGET = "azuread"
# The file goes into git, so these two have their place elsewhere.
VARIABLES = {"clientId": "AZURE_CLIENT_ID", "clientSecret": "AZURE_CLIENT_SECRET"}
GUID = "(?i:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
PROMPTS = ("none", "login", "consent", "select_account")


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


# By the names of the connector itself, and stricter: it takes some values with which nobody can
# sign in. What is right, and how that reads.
REQUIRED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "clientId": (_text(r"\S+"), "must be the Application (client) ID"),
    "clientSecret": (_text(rf"(?!{GUID}$)\S+"), "must be the Value of a secret, not its Secret ID"),
    "tenantId": (
        _text("[A-Za-z0-9.-]+"),
        "must be common, organizations, consumers, an ID or a domain",
    ),
    "cloudInstance": (
        _text("https://[A-Za-z0-9.-]+/"),
        "must be as https://login.microsoftonline.com/",
    ),
}
OPTIONAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompts": (
        lambda value: value in [[], *([prompt] for prompt in PROMPTS)],
        f"must be a list with one at most of {', '.join(PROMPTS)}",
    ),
    "scopes": (_text(".*"), "must be text, with blanks between the scopes"),
}


class ConnectorFileError(ValueError):
    """The file is not there or is not a JSON object."""


def read() -> dict[str, Any]:
    """What the file holds.

    Raises:
        ConnectorFileError: if that is no JSON object.
    """
    try:
        config = json.loads((PROJECT_DIR / FILE).read_text("utf-8-sig"))
    except OSError as error:
        raise ConnectorFileError(f"{FILE} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        hint = "JSON has no comments and no comma after the last entry."
        raise ConnectorFileError(f"{FILE} is not JSON: {error}. {hint}") from None
    if not isinstance(config, dict):
        raise ConnectorFileError(f"{FILE} must hold a JSON object.")
    return config


def placeholders(config: Mapping[str, Any]) -> list[str]:
    """The fields that wait for their variable, as `<client-id>` does."""
    return [name for name in VARIABLES if re.fullmatch("<.*>", str(config.get(name)))]


def filled(config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The config with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in place of their placeholders."""
    given = {name: environ.get(VARIABLES[name]) for name in placeholders(config)}
    return {**config, **{name: value for name, value in given.items() if value}}


def problems(config: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with each field; a placeholder that has a variable is not."""
    there = {name: rule for name, rule in OPTIONAL.items() if name in config}
    return {
        name: sentence if name in config else f"is missing: it {sentence}"
        for name, (good, sentence) in {**REQUIRED, **there}.items()
        if not good(config.get(name))
    }
