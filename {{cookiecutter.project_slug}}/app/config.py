"""What the app is told from outside: environment variables and `.env`."""

import re
{% if cookiecutter.api_resource %}
from collections.abc import Mapping, Sequence
{% else %}
from collections.abc import Mapping
{% endif %}
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
from environs import Env, EnvValidationError, ValidationError
from redis import ConnectionPool

PROJECT_DIR = Path(__file__).resolve().parent.parent
LOOPBACK = ("localhost", "127.0.0.1", "::1")
URL = r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(/[!-~]*)?"
PATH = r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*/?"
OTHER_ROUTES = (
    "",
    "/profile",
    "/sign-in",
    "/sign-up",
    "/sign-out",
    "/backchannel-logout",
    "/healthz",
    "/readyz",
)

HINTS = {
    "LOGTO_ENDPOINT": "Logto Console > Applications > your app > Endpoints & Credentials.",
    "LOGTO_APP_ID": "Logto Console > Applications > your app > App ID.",
    "LOGTO_APP_SECRET": "Logto Console > Applications > your app > App secrets. "
    "The local Logto (python -m dev) takes any text.",
    "LOGTO_CALLBACK_URL": "Example: http://localhost:3000/callback. The same address must stand "
    "under Redirect URIs in the Logto Console.",
    {% if cookiecutter.api_resource %}
    "LOGTO_API_RESOURCE": "Logto Console > API resources > your API > API identifier.",
    "API_ALLOWED_ORIGINS": "Example: https://shop.example,https://admin.example.",
    {% endif %}
    "SESSION_URL": "Examples: sqlite:///instance/sessions.sqlite3, redis://localhost:6379/0.",
    "SESSION_LIFETIME_HOURS": "A whole number of hours, 1 or more. Example: 12.",
    "LOG_FORMAT": "text for people, json for machines.",
}


class ConfigError(click.ClickException):
    """The configuration cannot be used; the message names every variable at fault.

    Being a ClickException, it ends `{{ cookiecutter.framework }} run` with that message and no traceback.
    """


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one app; {{ cookiecutter.framework | capitalize }} sees each as `app.config[NAME]`."""

    APP_NAME: str = "{{ cookiecutter.project_name }}"
    LOGTO_ENDPOINT: str
    LOGTO_APP_ID: str
    LOGTO_APP_SECRET: str = field(repr=False)
    LOGTO_CALLBACK_URL: str
    {% if cookiecutter.api_resource %}
    LOGTO_API_RESOURCE: str
    API_ALLOWED_ORIGINS: Sequence[str] = ()
    {% endif %}
    SESSION_URL: str = field(default="sqlite:///instance/sessions.sqlite3", repr=False)
    SESSION_LIFETIME_HOURS: int = 12
    LOG_FORMAT: str = "text"

    @classmethod
    def from_env(cls) -> "Config":
        """Read the environment, and `.env` for what the environment leaves out.

        Raises:
            ConfigError: with one line for each variable that is missing or wrong.
        """
        env = Env(eager=False)
        env.read_env(PROJECT_DIR / ".env", recurse=False)
        config = cls(
            LOGTO_ENDPOINT=env.str("LOGTO_ENDPOINT", validate=[_filled, _web_origin]),
            LOGTO_APP_ID=env.str("LOGTO_APP_ID", validate=_filled),
            LOGTO_APP_SECRET=env.str("LOGTO_APP_SECRET", validate=_filled),
            LOGTO_CALLBACK_URL=env.str("LOGTO_CALLBACK_URL", validate=[_filled, _callback_url]),
            {% if cookiecutter.api_resource %}
            LOGTO_API_RESOURCE=env.str("LOGTO_API_RESOURCE", validate=[_filled, _absolute_uri]),
            API_ALLOWED_ORIGINS=env.list(
                "API_ALLOWED_ORIGINS", [], subcast=str, validate=_web_origins
            ),
            {% endif %}
            SESSION_URL=env.str("SESSION_URL", cls.SESSION_URL, validate=_session_url),
            SESSION_LIFETIME_HOURS=env.int(
                "SESSION_LIFETIME_HOURS", cls.SESSION_LIFETIME_HOURS, validate=_one_or_more
            ),
            LOG_FORMAT=env.str("LOG_FORMAT", cls.LOG_FORMAT, validate=_log_format),
        )
        try:
            env.seal()
        except EnvValidationError as error:
            raise ConfigError(_report(error)) from None
        return config

    @property
    def ORIGIN(self) -> str:
        """The app's own origin: scheme, host and port of the callback URL."""
        url = urlsplit(self.LOGTO_CALLBACK_URL)
        return f"{url.scheme}://{url.netloc}"

    @property
    def POST_SIGN_OUT_URI(self) -> str:
        """Where Logto sends people after sign-out; register it there."""
        return f"{self.ORIGIN}/"

    @property
    def CALLBACK_PATH(self) -> str:
        """The path that the callback view listens on."""
        return urlsplit(self.LOGTO_CALLBACK_URL).path

    @property
    def HTTPS(self) -> bool:
        """Whether people reach the app over https, so that cookies can be Secure."""
        return urlsplit(self.LOGTO_CALLBACK_URL).scheme == "https"


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
    if "@" in value:
        # What is before it may be a password.
        raise ValidationError("must not have an @ in it")
    try:
        url = urlsplit(value)
        complete = re.fullmatch(URL, value) and url.port != 0
    except ValueError:
        complete = None
    if not complete or url.query or url.fragment:
        raise ValidationError(f"{value!r} is not a plain http(s) address")
    host = str(url.hostname)
    # Names under .localhost are of this machine too (RFC 6761, 6.3).
    if url.scheme == "http" and host not in LOOPBACK and not host.endswith(".localhost"):
        raise ValidationError(f"{value!r} must begin with https://, as it is not on this machine")


def _web_origin(value: str) -> None:
    if not value.strip():
        return
    _web_url(value)
    if urlsplit(value).path not in ("", "/"):
        raise ValidationError(f"{value!r} must end after the host, without a path")


{% if cookiecutter.api_resource %}
def _web_origins(values: list[str]) -> None:
    for value in values:
        _filled(value)
        _web_origin(value.strip())


def _absolute_uri(value: str) -> None:
    if not value.strip():
        return
    # RFC 8707, 2: without a fragment.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[]!$%&'()*+,./0-9:;=?@A-Z[_a-z~-]+", value):
        raise ValidationError(f"{value!r} is not an absolute URI")


{% endif %}
def _callback_url(value: str) -> None:
    if not value.strip():
        return
    _web_url(value)
    path = urlsplit(value).path
    if not re.fullmatch(PATH, path):
        raise ValidationError(f"{value!r} needs a path of letters, digits and . _ ~ -")
    if path.rstrip("/") in OTHER_ROUTES or path.startswith(("/api/", "/static/")):
        raise ValidationError(f"{value!r} needs a path that no other page of the app uses")


def _session_url(value: str) -> None:
    # Not quoted, as it may hold a password.
    if value.startswith("sqlite:///"):
        if not value.removeprefix("sqlite:///").strip():
            raise ValidationError("must name a file after sqlite:///")
    elif value.startswith(("redis://", "rediss://")):
        try:
            ConnectionPool.from_url(value)
        except ValueError:
            raise ValidationError(
                "is not an address of a Redis; in a password, write : / ? # @ as % and their code"
            ) from None
    else:
        raise ValidationError("must begin with sqlite:///, redis:// or rediss://")


def _log_format(value: str) -> None:
    if value not in ("text", "json"):
        raise ValidationError(f"{value!r} is neither text nor json")


def _one_or_more(value: int) -> None:
    if value < 1:
        raise ValidationError(f"{value} is less than 1")
