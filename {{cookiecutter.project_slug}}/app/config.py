"""Every setting of the app, from the environment or from `.env`. Change the defaults here."""

import hashlib
import posixpath
import re
{% if cookiecutter.api_resource %}
from collections.abc import Mapping, Sequence
{% else %}
from collections.abc import Mapping
{% endif %}
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import click
from dotenv import load_dotenv
from environs import Env, EnvValidationError, ValidationError, validate
from redis import ConnectionPool

CONNECTORS: dict[str, tuple[str, str]] = {
    "azuread": ("Microsoft", "social:azuread"),
}
"""A button per sign-in: the NAME in `/sign-in?connector=NAME`, the label, Logto's `direct_sign_in`.

Others: `"google": ("Google", "social:google")`, `"acme": ("Acme", "sso:<ID of the connector>")`.
"""

SESSION_COOKIE = "{{ cookiecutter.project_slug }}-session"
LOG_FORMATS = ("text", "json")
LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.[0-9]{1,3}){3}|::1")  # RFC 6761, 6.3.
PROJECT_DIR = Path(__file__).resolve().parent.parent

HINTS = {
    "LOGTO_ENDPOINT": "Logto Console > Applications > your app > Endpoints & Credentials.",
    "LOGTO_APP_ID": "Logto Console > Applications > your app > App ID.",
    "LOGTO_APP_SECRET": "Logto Console > Applications > your app > App secrets. "
    "The local Logto (python -m dev) accepts any text.",
    "LOGTO_CALLBACK_URL": "Example: http://localhost:3000/callback. The same URL must be listed "
    "under Redirect URIs in the Logto Console.",
    {% if cookiecutter.api_resource %}
    "LOGTO_API_RESOURCE": "Logto Console > API resources > your API > API identifier.",
    "API_ALLOWED_ORIGINS": "Example: https://shop.example,https://admin.example.",
    {% endif %}
    "SESSION_URL": "Examples: sqlite:///sessions.sqlite3, redis://localhost:6379/0.",
    "SESSION_LIFETIME_HOURS": "A whole number of hours, 1 or more. Example: 12.",
    "SESSION_IDLE_HOURS": "A whole number of hours; 0 for no limit.",
    "LOG_FORMAT": "text for people, json for machines.",
}


class ConfigError(click.ClickException):
    """The configuration cannot be used. The message names every variable that is wrong.

    Because this is a ClickException, `{{ cookiecutter.framework }} run` ends with the message and no traceback.
    """


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one app. {{ cookiecutter.framework | capitalize }} has each of them as `app.config[NAME]`.

    Settings that {{ cookiecutter.framework | capitalize }} defines itself, such as SESSION_COOKIE_SAMESITE, keep their meaning.
    """

    APP_NAME: str = "{{ cookiecutter.project_name }}"
    LOGTO_ENDPOINT: str
    LOGTO_APP_ID: str
    LOGTO_APP_SECRET: str = field(repr=False)
    LOGTO_CALLBACK_URL: str
    LOGTO_SCOPES: str = "email roles"
    LOGTO_RESOURCES: str = ""
    {% if cookiecutter.api_resource %}
    LOGTO_API_RESOURCE: str
    API_ALLOWED_ORIGINS: Sequence[str] = ()
    {% endif %}
    SECRET_KEY: str | None = field(default=None, repr=False)
    SESSION_URL: str = field(default="sqlite:///sessions.sqlite3", repr=False)
    SESSION_LIFETIME_HOURS: int = 12
    SESSION_IDLE_HOURS: int = 0  # Without a limit.
    SESSION_COOKIE_NAME: str = SESSION_COOKIE
    SESSION_COOKIE_SAMESITE: str = "Lax"
    LOG_FORMAT: str = "text"
    ACCOUNT_PAGE: bool = False  # Whether the profile links to Logto's account center.

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment, and `.env` for variables that the environment does not have.

        Raises:
            ConfigError: with one line for each variable that is missing or wrong.
        """
        env = Env(eager=False)
        load_dotenv(PROJECT_DIR / ".env", encoding="utf-8")
        config = cls(
            LOGTO_ENDPOINT=env.str("LOGTO_ENDPOINT", validate=_web_origin),
            LOGTO_APP_ID=env.str("LOGTO_APP_ID", validate=_filled),
            LOGTO_APP_SECRET=env.str("LOGTO_APP_SECRET", validate=_filled),
            LOGTO_CALLBACK_URL=env.str("LOGTO_CALLBACK_URL", validate=_callback_url),
            LOGTO_SCOPES=env.str("LOGTO_SCOPES", cls.LOGTO_SCOPES),
            LOGTO_RESOURCES=env.str("LOGTO_RESOURCES", cls.LOGTO_RESOURCES),
            {% if cookiecutter.api_resource %}
            LOGTO_API_RESOURCE=env.str("LOGTO_API_RESOURCE", validate=_absolute_uri),
            API_ALLOWED_ORIGINS=env.list(
                "API_ALLOWED_ORIGINS", [], subcast=str, validate=_web_origins
            ),
            {% endif %}
            SECRET_KEY=env.str("SECRET_KEY", "") or None,
            SESSION_URL=env.str("SESSION_URL", cls.SESSION_URL, validate=_session_url),
            SESSION_LIFETIME_HOURS=env.int(
                "SESSION_LIFETIME_HOURS", cls.SESSION_LIFETIME_HOURS, validate=validate.Range(1)
            ),
            SESSION_IDLE_HOURS=env.int(
                "SESSION_IDLE_HOURS", cls.SESSION_IDLE_HOURS, validate=validate.Range(0)
            ),
            LOG_FORMAT=env.str("LOG_FORMAT", cls.LOG_FORMAT, validate=validate.OneOf(LOG_FORMATS)),
        )
        try:
            env.seal()
        except EnvValidationError as error:
            raise ConfigError(_report(error)) from None
        return config

    @property
    def ORIGIN(self) -> str:
        """The app's own origin: scheme, host and port of the callback URL, as browsers send it."""
        url = urlsplit(self.LOGTO_CALLBACK_URL)
        default = ":443" if url.scheme == "https" else ":80"
        return f"{url.scheme}://{url.netloc.lower().removesuffix(default)}"

    @property
    def POST_SIGN_OUT_URI(self) -> str:
        """Where Logto sends users after sign-out. It must be registered in Logto."""
        return f"{self.ORIGIN}/"

    @property
    def CONTENT_ORIGINS(self) -> list[str]:
        """Origins that pages may load pictures from and that forms may lead to."""
        return [self.LOGTO_ENDPOINT.rstrip("/")]

    @property
    def SESSION_PREFIX(self) -> str:
        """The beginning of all keys in the session store: another Logto or app has other keys."""
        names = f"{self.LOGTO_ENDPOINT.rstrip('/')} {self.LOGTO_APP_ID}"
        return f"{hashlib.sha256(names.encode()).hexdigest()[:12]}:"

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
    lines = ["The configuration is not complete:"]
    for name, messages in error.error_messages.items():
        what = " ".join(messages).replace("Environment variable ", "").replace(f'"{name}" ', "")
        lines.append(f"  {name}: {what.rstrip('.')}. {HINTS.get(name, '')}".rstrip())
    lines.append(f"Set them in the environment or in {PROJECT_DIR / '.env'}")
    return "\n".join(lines)


def _filled(value: str) -> None:
    if not value.strip():
        raise ValidationError("is empty")


def _web_url(value: str) -> None:
    _filled(value)
    if "@" in value:
        # The text before it may be a password.
        raise ValidationError("must not contain an @")
    try:
        url = urlsplit(value)
        host = url.hostname or ""
        complete = url.scheme in ("http", "https") and url.port != 0
    except ValueError:
        host, complete = "", False
    if not complete or not re.fullmatch(r"[a-z0-9.:_-]+", host) or re.search("[^!-~]|[?#]", value):
        raise ValidationError(f"{value!r} is not a plain http(s) URL")
    if url.scheme == "http" and not LOOPBACK.fullmatch(host):
        raise ValidationError(f"{value!r} must begin with https://, as it is not on this machine")


def _web_origin(value: str) -> None:
    _web_url(value)
    if urlsplit(value).path not in ("", "/"):
        raise ValidationError(f"{value!r} must end after the host, without a path")


{% if cookiecutter.api_resource %}
def _web_origins(values: list[str]) -> None:
    for value in values:
        _web_origin(value.strip())


def _absolute_uri(value: str) -> None:
    _filled(value)
    # Without a fragment (RFC 8707, 2).
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[]!$%&'()*+,./0-9:;=?@A-Z[_a-z~-]+", value):
        raise ValidationError(f"{value!r} is not an absolute URI")


{% endif %}
def _callback_url(value: str) -> None:
    _web_url(value)
    path = urlsplit(value).path
    # Browsers resolve the segments `.` and `..` before they send a path.
    direct = posixpath.normpath(path) == path.rstrip("/")
    if not direct or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
        raise ValidationError(f"{value!r} needs a path of letters, digits and . _ ~ -")


def _session_url(value: str) -> None:
    # No message shows the value, because it can hold a password.
    if value.startswith("sqlite:///"):
        if not value.removeprefix("sqlite:///").strip():
            raise ValidationError("must name a file after sqlite:///")
    elif value.startswith(("redis://", "rediss://")):
        try:
            ConnectionPool.from_url(value)
        except ValueError:
            raise ValidationError(
                "is not the URL of a Redis; in a password, write : / ? # @ as % and their code"
            ) from None
    else:
        raise ValidationError("must begin with sqlite:///, redis:// or rediss://")
