"""{{ cookiecutter.project_name }}: a {{ cookiecutter.framework | capitalize }} app whose users sign in with Logto."""

from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}

{% if cookiecutter.api_resource %}
from . import cors, errors, logs, security, sessions
from .api import SCOPES, api
{% else %}
from . import errors, logs, security, sessions
{% endif %}
from .auth import current_user
from .auth.backchannel import backchannel
{% if cookiecutter.api_resource %}
from .auth.bearer import RememberedTokens
{% endif %}
from .auth.client import AppLogtoClient
from .auth.routes import auth, callback
from .cli import commands_only, logto
from .config import Config
from .health import health
from .pages import pages

SESSION_COOKIE = "{{ cookiecutter.project_slug }}-session"


def create_app(config: Config | None = None) -> {{ cookiecutter.framework | capitalize }}:
    """Build the app; without a config, from the environment and `.env`.

    Raises:
        ConfigError: if the environment cannot be used.
    """
    app = {{ cookiecutter.framework | capitalize }}(__name__)
    app.cli.add_command(logto)
    if config is None and commands_only():
        return app
    config = config or Config.from_env()
    app.config.from_object(config)
    app.config.update(
        SESSION_COOKIE_NAME=("__Host-" if config.HTTPS else "") + SESSION_COOKIE,
        SESSION_COOKIE_SECURE=config.HTTPS,
        {% if cookiecutter.api_resource %}
        MAX_CONTENT_LENGTH=64 * 1024,
        {% endif %}
    )

    logs.init_app(app, config.LOG_FORMAT)
    sessions.init_app(app, config.SESSION_URL, lifetime=config.SESSION_LIFETIME_HOURS * 3600)
    {% if cookiecutter.api_resource %}
    app.extensions["logto"] = AppLogtoClient(config, SCOPES)
    app.extensions["remembered_tokens"] = RememberedTokens()
    {% else %}
    app.extensions["logto"] = AppLogtoClient(config)
    {% endif %}
    errors.init_app(app)
    security.init_app(app)
    {% if cookiecutter.api_resource %}
    cors.init_app(app)
    {% endif %}

    {% if cookiecutter.api_resource %}
    app.register_blueprint(api)
    {% endif %}
    app.register_blueprint(auth)
    app.register_blueprint(backchannel)
    app.register_blueprint(health)
    app.register_blueprint(pages)
    # Of an address with a slash at its end, a redirect would name the host of the request.
    app.add_url_rule(config.CALLBACK_PATH, view_func=callback, strict_slashes=False)

    @app.context_processor
    {{ cookiecutter.__async }}def for_all_templates() -> dict[str, object]:
        return {"app_name": config.APP_NAME, "current_user": current_user}

    return app
