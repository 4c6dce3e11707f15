"""Every setting of the app, from the environment or from `.env`. Change the defaults here."""

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping{{ ", Sequence" if cookiecutter.api_resource }}
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from dotenv import load_dotenv
from environs import Env, EnvValidationError, ValidationError, validate
from redis import ConnectionPool, RedisError
from redis.asyncio import RedisCluster  # The asyncio class connects only when it is used.
from redis.exceptions import RedisClusterException

CONNECTORS: dict[str, tuple[str, str]] = {
    "azuread": ("Microsoft", "social:azuread"),
}
"""The sign-in buttons. `/sign-in?connector=NAME` uses NAME: (label, `direct_sign_in` for Logto).

More: `"google": ("Google", "social:google")`, `"acme": ("Acme", "sso:<ID of the connector>")`.
"""

SLUG = "{{ cookiecutter.project_slug }}"
LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.[0-9]{1,3}){3}|::1")  # RFC 6761, 6.3.
PROJECT_DIR = Path(__file__).resolve().parent.parent

HINTS = {
    "LOGTO_ENDPOINT": "Logto Console > Applications > your app > Endpoints & Credentials.",
    "LOGTO_APP_ID": "Logto Console > Applications > your app > App ID.",
    "LOGTO_APP_SECRET": "Logto Console > Applications > your app > App secrets.",
    "LOGTO_CALLBACK_URL": "A Redirect URI in Logto. Example: http://localhost:3000/callback.",
    {% if cookiecutter.api_resource %}
    "LOGTO_API_RESOURCE": "Logto Console > API resources > your API > API identifier.",
    "API_ALLOWED_ORIGINS": "Example: https://shop.example,https://admin.example.",
    {% endif %}
    "APPLICATION_ROOT": "The path of the app on a shared host. Example: /bookstore.",
    "SESSION_URL": "Examples: sqlite:///sessions.sqlite3, redis://localhost:6379/0.",
    "SESSION_LIFETIME_HOURS": "A whole number of hours, 1 or more. Example: 12.",
    "SESSION_IDLE_HOURS": "A whole number of hours, or 0 for no limit. Example: 2.",
}


class ConfigError(click.ClickException):
    """The configuration is wrong. `{{ cookiecutter.framework }} run` shows the message and no traceback."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one app. {{ cookiecutter.__framework }} has each of them as `app.config[NAME]`.

    A setting with a type annotation is read from the environment variable of the same name.
    """

    APP_NAME = "{{ cookiecutter.project_name }}"
    ACCOUNT_PAGE = False  # Whether the profile links to Logto's account page.
    SESSION_COOKIE_SAMESITE = "Lax"
    SESSION_COOKIE_PATH = "/"
    LOGTO_ENDPOINT: str
    LOGTO_APP_ID: str
    LOGTO_APP_SECRET: str = field(repr=False)
    LOGTO_CALLBACK_URL: str
    APPLICATION_ROOT: str = "/"
    LOGTO_SCOPES: str = "email roles"
    LOGTO_RESOURCES: str = ""
    {% if cookiecutter.api_resource %}
    LOGTO_API_RESOURCE: str
    API_ALLOWED_ORIGINS: Sequence[str] = ()
    {% endif %}
    LOGTO_WEBHOOK_SIGNING_KEY: str = field(default="", repr=False)
    SECRET_KEY: str | None = field(default=None, repr=False)
    SESSION_URL: str = field(default="sqlite:///sessions.sqlite3", repr=False)
    SESSION_LIFETIME_HOURS: int = 12
    SESSION_IDLE_HOURS: int = 0  # 0 is no limit.
    LOG_FORMAT: str = "text"

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment, then `.env`. Raises ConfigError with a line per wrong variable."""
        load_dotenv(PROJECT_DIR / ".env", encoding="utf-8")
        env, values = Env(eager=False), {}
        readers: dict[Any, Any] = {int: env.int{{ ", Sequence[str]: env.list" if cookiecutter.api_resource }}}
        for setting in fields(cls):
            name, default = setting.name, ... if setting.default is MISSING else setting.default
            # A mounted secret can end with a newline. An empty variable counts as not set.
            if value := os.environ.pop(name, "").strip():
                os.environ[name] = value
            read = readers.get(setting.type, env.str)
            values[name] = read(name, default, validate=RULES.get(name))
        try:
            env.seal()
        except EnvValidationError as error:
            raise ConfigError(_report(error)) from None
        return cls(**values)

    @property
    def ORIGIN(self) -> str:
        """The app's origin, as browsers send it: scheme, host and port of the callback URL."""
        url = urlsplit(self.LOGTO_CALLBACK_URL)
        default = ":443" if url.scheme == "https" else ":80"
        return f"{url.scheme}://{url.netloc.lower().removesuffix(default)}"

    @property
    def HOME_PATH(self) -> str:
        """The path of the home page, with a slash at its end."""
        return f"{self.APPLICATION_ROOT.rstrip('/')}/"

    @property
    def POST_SIGN_OUT_URI(self) -> str:
        """Where Logto sends users after sign-out. It must be registered in Logto."""
        return self.ORIGIN + self.HOME_PATH

    @property
    def CONTENT_ORIGINS(self) -> list[str]:
        """Origins that pages may load pictures from and that forms may lead to."""
        return [self.LOGTO_ENDPOINT.rstrip("/")]

    @property
    def SESSION_PREFIX(self) -> str:
        """The prefix of all keys in the session store, different for each Logto and app ID."""
        names = f"{self.LOGTO_ENDPOINT.rstrip('/')} {self.LOGTO_APP_ID}"
        return f"{hashlib.sha256(names.encode()).hexdigest()[:12]}:"

    @property
    def SESSION_COOKIE_NAME(self) -> str:
        """The name of the session cookie, different for each app path on a shared host."""
        return "-".join([SLUG, *self.HOME_PATH.split("/")[1:-1], "session"])

    @property
    def SESSION_COOKIE_SECURE(self) -> bool:
        """Whether users reach the app over https, so that browsers send cookies over https only."""
        return self.ORIGIN.startswith("https://")

    @property
    def PERMANENT_SESSION_LIFETIME(self) -> timedelta:
        """How long a session lives after sign-in."""
        return timedelta(hours=self.SESSION_LIFETIME_HOURS)


def _report(error: EnvValidationError) -> str:
    assert isinstance(error.error_messages, Mapping)
    lines = ["The configuration is not valid:"]
    for name, messages in error.error_messages.items():
        what = " ".join(messages).replace("Environment variable ", "").replace(f'"{name}" ', "")
        lines.append(f"  {name}: {what.rstrip('.')}. {HINTS.get(name, '')}".rstrip())
    lines.append(f"Set these variables in the environment or in {PROJECT_DIR / '.env'}")
    return "\n".join(lines)


def _web_url(value: str) -> None:
    if "@" in value:
        # Do not show the value, because the text before the @ can be a password.
        raise ValidationError("must not contain an @")
    try:
        url = urlsplit(value)
        host = url.hostname or ""
        complete = url.scheme in ("http", "https") and url.port != 0
    except ValueError:
        host, complete = "", False
    if not complete or not re.fullmatch(r"[a-z0-9.:_-]+", host) or re.search("[^!-~]|[?#]", value):
        raise ValidationError(f"{value!r} is not an http(s) URL without ?, # and spaces")
    if value.lower().startswith("http:") and not LOOPBACK.fullmatch(host):
        raise ValidationError(f"{value!r} must begin with https://, because it is not localhost")


def _web_origin(value: str) -> None:
    _web_url(value)
    if urlsplit(value).path not in ("", "/"):
        raise ValidationError(f"{value!r} must end after the host: remove the path")


{% if cookiecutter.api_resource %}
def _web_origins(values: list[str]) -> None:
    for value in values:
        _web_origin(value.strip())


def _absolute_uri(value: str) -> None:
    # A fragment is not allowed (RFC 8707, 2).
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[]!$%&'()*+,./0-9:;=?@A-Z[_a-z~-]+", value):
        raise ValidationError(f"{value!r} is not an absolute URI")


{% endif %}
def check_callback_url(value: str) -> None:
    """Check that the value can be the app's callback URL. Raises ValidationError."""
    _web_url(value)
    path, root = urlsplit(value).path, os.environ.get("APPLICATION_ROOT", "").rstrip("/")
    if not path.startswith(f"{root}/"):
        raise ValidationError(f"{value!r} must have a path below APPLICATION_ROOT, {root!r}")
    # Browsers resolve the segments `.` and `..` before they send a path.
    direct = posixpath.normpath(path) == path.rstrip("/")
    if not direct or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
        raise ValidationError(f"{value!r} needs a path such as /callback, with a-z A-Z 0-9 . _ ~ -")


def _session_url(value: str) -> None:
    # No message shows the value, because it can hold a password.
    scheme, _, rest = value.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
        return
    if scheme.removesuffix("+cluster") not in ("redis", "rediss"):
        raise ValidationError("must begin with sqlite:///, redis://, rediss:// or redis+cluster://")
    url = value.replace("+cluster:", ":", 1)
    try:
        ConnectionPool.from_url(url).make_connection()
        if url != value:
            RedisCluster.from_url(url)
    except (RedisClusterException, RedisError, TypeError, ValueError):
        raise ValidationError(
            "is not a Redis URL; in a password, write : / ? # @ as %3A %2F %3F %23 %40"
        ) from None
    if not re.fullmatch("/?[0-9]*", urlsplit(value).path):
        raise ValidationError("must end with a database number such as /0, or without a path")


RULES = {
    "LOGTO_ENDPOINT": _web_origin,
    "LOGTO_CALLBACK_URL": check_callback_url,
    "APPLICATION_ROOT": validate.Regexp(r"(/[A-Za-z0-9._~-]+)*/?\Z", error="'{input}' is no path"),
    {% if cookiecutter.api_resource %}
    "LOGTO_API_RESOURCE": _absolute_uri,
    "API_ALLOWED_ORIGINS": _web_origins,
    {% endif %}
    "SESSION_URL": _session_url,
    "SESSION_LIFETIME_HOURS": validate.Range(1),
    "SESSION_IDLE_HOURS": validate.Range(0),
    "LOG_FORMAT": validate.OneOf(("text", "json")),
}
