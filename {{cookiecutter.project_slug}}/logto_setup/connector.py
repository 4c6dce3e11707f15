"""The Azure AD connector of Logto, as `connectors/azure-ad.json` describes it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config import PROJECT_DIR, ConfigError

FILE = Path("connectors", "azure-ad.json")
FOLDER = PROJECT_DIR / "connectors"
FACTORY = "azuread-universal"
TARGET = "azuread"
# The file is in git, so these two values come from the environment.
VARIABLES = {"clientId": "AZURE_CLIENT_ID", "clientSecret": "AZURE_CLIENT_SECRET"}
GUID = "(?i:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
PROMPTS = ("none", "login", "consent", "select_account")
# These rules are stricter than Logto's: it accepts some values with which nobody can sign in.
RULES = {
    "clientId": (r"\S+", "must be the Application (client) ID"),
    "clientSecret": (rf"(?!{GUID}$)\S+", "must be the Value of a secret, not its Secret ID"),
    "tenantId": ("[A-Za-z0-9.-]+", "must be common, organizations, consumers, an ID or a domain"),
    "cloudInstance": ("https://[A-Za-z0-9.-]+/", "must be like https://login.microsoftonline.com/"),
    "scopes": (".*", "must be text, with spaces between the scopes"),
}


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the config in the file, with the values of variables instead of placeholders.

    Raises ConfigError if Logto would refuse the config, or if nobody could sign in with it.
    """
    try:
        config = json.loads((PROJECT_DIR / FILE).read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{FILE} cannot be read:\n  {error.strerror}.") from None
    except ValueError as error:
        hint = "JSON has no comments and no comma after the last entry."
        raise ConfigError(f"{FILE} is not JSON:\n  {error}. {hint}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{FILE} is not valid:\n  It must contain a JSON object.")
    for name in placeholders(config):
        config[name] = environ.get(VARIABLES[name]) or config[name]
    problems = []
    for name, (pattern, rule) in RULES.items():
        value = config.get(name, "")
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            problems.append(f"  {name} {rule if name in config else f'is missing: it {rule}'}.")
    if config.get("prompts", []) not in [[], *([prompt] for prompt in PROMPTS)]:
        problems.append(f"  prompts must be [], or a list with one of {', '.join(PROMPTS)}.")
    if problems:
        raise ConfigError("\n".join([f"{FILE} is not valid:", *problems]))
    return config


def placeholders(config: Mapping[str, Any]) -> list[str]:
    """Return the fields that still have a placeholder such as `<client-id>`."""
    return [name for name in VARIABLES if re.fullmatch("<.*>", str(config.get(name)))]
