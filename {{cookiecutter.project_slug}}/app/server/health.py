"""Whether the app is alive, and whether it is ready to serve users."""

from {{ cookiecutter.framework }} import Blueprint, current_app
from {{ cookiecutter.framework }}.typing import ResponseReturnValue

from .sessions import store
from .stores import StoreUnavailable

bp = Blueprint("health", __name__)


@bp.get("/healthz")
{{ cookiecutter.__async }}def healthz() -> ResponseReturnValue:
    """Report that the process is alive. This uses nothing else."""
    return {"status": "ok"}


@bp.get("/readyz")
{{ cookiecutter.__async }}def readyz() -> ResponseReturnValue:
    """Report whether the session store can be written."""
    try:
        {{ cookiecutter.__await }}store.ping()
    except StoreUnavailable as error:
        current_app.logger.error("Not ready, the session store is unavailable: %s", error)
        return {"status": "unavailable", "sessions": "unavailable"}, 503
    return {"status": "ok", "sessions": "ok"}
