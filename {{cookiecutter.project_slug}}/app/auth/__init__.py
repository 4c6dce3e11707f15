"""Sign-in with Logto."""

{% if cookiecutter.api_resource %}
from collections.abc import Iterable
{% endif %}
from urllib.parse import urlsplit

from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}

from ..config import ConfigError
from . import logout, routes
{% if cookiecutter.api_resource %}
from .bearer import TokenCache, access_token_required, current_token
{% endif %}
from .client import AppLogtoClient, SessionEnded, logto
from .logout import logto_event
from .oidc import LogtoUnavailable
from .users import add_user, current_user, moment, sign_in_required, user_signed_in

__all__ = [
    "LogtoUnavailable",
    "SessionEnded",
    {% if cookiecutter.api_resource %}
    "access_token_required",
    "current_token",
    {% endif %}
    "current_user",
    "init_app",
    "logto",
    "logto_event",
    "moment",
    "sign_in_required",
    "user_signed_in",
]


{% if cookiecutter.api_resource %}
def init_app(app: {{ cookiecutter.__framework }}, api_scopes: Iterable[str]) -> None:
    """Add sign-in with Logto. Call this function last, after all other pages are added.

    Takes the scopes of the API that users can have. Raises ConfigError if another page has the
    path of LOGTO_CALLBACK_URL.
    """
    app.extensions["logto_client"] = AppLogtoClient(app.config, api_scopes)
    app.extensions["token_cache"] = TokenCache()
{% else %}
def init_app(app: {{ cookiecutter.__framework }}) -> None:
    """Add sign-in, after all other pages. Raises ConfigError if a page has the callback's path."""
    app.extensions["logto_client"] = AppLogtoClient(app.config)
{% endif %}
    app.jinja_env.globals["current_user"] = current_user  # Imported macros see only globals.
    app.context_processor(add_user)
    app.register_blueprint(routes.bp)
    app.register_blueprint(logout.bp)

    path = urlsplit(app.config["LOGTO_CALLBACK_URL"]).path
    path = "/" + path.removeprefix(app.config["HOME_PATH"]).removeprefix("/")
    used = {rule.rule.rstrip("/") for rule in app.url_map.iter_rules() if not rule.arguments}
    if path.rstrip("/") in used or path.startswith(f"{app.static_url_path}/"):
        raise ConfigError(f"LOGTO_CALLBACK_URL: a page has the path {path!r}. Choose another path.")
    app.add_url_rule(path, "auth.callback", routes.callback, strict_slashes=False)
