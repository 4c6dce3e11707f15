"""Whether the app is alive, and whether it is ready to serve users."""

from {{ cookiecutter.framework }} import Blueprint
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from .sessions import store

bp = Blueprint("health", __name__)


@bp.get("/healthz")
{{ cookiecutter.__async }}def healthz() -> ResponseReturnValue:
    """Report that the process is alive, without a check of the session store."""
    return {"status": "ok"}


@bp.get("/readyz")
{{ cookiecutter.__async }}def readyz() -> ResponseReturnValue:
    """Check that the session store can be written. If not, respond with a 503."""
    {{ cookiecutter.__await }}store.ping()
    return {"status": "ok", "sessions": "ok"}
