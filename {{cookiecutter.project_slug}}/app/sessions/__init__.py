"""Sessions that live on the server; the browser holds a random id and nothing else."""

from typing import Any, cast

from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}, current_app
from {{ cookiecutter.framework }} import session as framework_session
from werkzeug.local import LocalProxy

from .interface import Session, StoreSessionInterface
from .stores import Store, StoreUnavailable, open_store

session = cast(Session, framework_session)
"""The framework's own `session`, typed as what it is in this app."""

sessions: StoreSessionInterface = LocalProxy(lambda: current_app.session_interface)  # type: ignore[assignment]
"""The session interface of the current app, with its `store`."""


def init_app(app: {{ cookiecutter.framework | capitalize }}, url: str, lifetime: int) -> None:
    """Keep the app's sessions in the store of a SESSION_URL, for `lifetime` seconds each."""
    app.session_interface = cast(Any, StoreSessionInterface(open_store(url), lifetime))


__all__ = ["Session", "Store", "StoreUnavailable", "init_app", "session", "sessions"]
