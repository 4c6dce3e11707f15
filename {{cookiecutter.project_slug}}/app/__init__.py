"""{{ cookiecutter.project_name }}: a {{ cookiecutter.__framework }} app whose users sign in with Logto."""

from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}

from . import {{ "api, " if cookiecutter.api_resource }}auth, pages
from .config import Config
from .server import {{ "cors, " if cookiecutter.api_resource }}errors, headers, health, logs, sessions


def create_app(config: Config | None = None) -> {{ cookiecutter.__framework }}:
    """Build the app. Without a config, read the environment and `.env`. Raises ConfigError."""
    app = {{ cookiecutter.__framework }}(__name__)
    app.config.from_object(config or Config.from_env())
    app.jinja_env.globals["app_name"] = app.config["APP_NAME"]

    logs.init_app(app)
    sessions.init_app(app)
    errors.init_app(app)
    headers.init_app(app)
    {% if cookiecutter.api_resource %}
    cors.init_app(app)
    {% endif %}

    app.register_blueprint(health.bp)
    {% if cookiecutter.api_resource %}
    app.register_blueprint(api.bp)
    {% endif %}
    app.register_blueprint(pages.bp)

    # Add sign-in last: this checks that no other page has the path of the callback.
    auth.init_app(app{{ ", api.SCOPES" if cookiecutter.api_resource }})
    {% if cookiecutter.__async %}
    # Each blueprint has a sync context processor. Quart would start a thread for it on each page.
    inherited = health.bp.template_context_processors[None]
    for processors in app.template_context_processors.values():
        processors[:] = [function for function in processors if function not in inherited]
    {% endif %}
    return app
