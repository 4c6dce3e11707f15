"""What people and scripts see when something goes wrong: one page, one way on, no details."""

{% if cookiecutter.framework == "quart" %}
import errno
{% endif %}
import logging
from urllib.parse import quote

from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException{% if cookiecutter.framework == "quart" %}, NotFound{% endif %}


from .sessions import StoreUnavailable

log = logging.getLogger(__name__)

QUERY_CHARACTERS = "!$%&'()*+,/:;=?@"
"""What may stand in a query as it is (RFC 3986, 3.4), and what escapes the rest."""
RETRY_AFTER = "30"
"""Seconds after which a client may try again (RFC 9110, 10.2.3)."""


def wants_json() -> bool:
    """Whether the request prefers JSON to a page."""
    {% if cookiecutter.api_resource %}
    if request.path.startswith("/api/"):
        return True
    {% endif %}
    accepted = request.accept_mimetypes
    return accepted.best_match(["text/html", "application/json"]) == "application/json"


def this_page() -> str:
    """The path and query of the request, to come back to; of a form that was sent, `/`."""
    if request.method not in ("GET", "HEAD"):
        return "/"
    # As text they have lost what tells `/a%3Fb` from `/a?b`.
    path = "/" + quote(request.path).lstrip("/")
    query = quote(request.query_string, safe=QUERY_CHARACTERS)
    return f"{path}?{query}" if query else path


{{ cookiecutter.__async }}def problem(status: int, title: str, message: str, *, retry: str | None = None) -> Response:
    """A page, or JSON where the request prefers it, with a link to try again or to go home.

    Takes the HTTP status, two texts of the app's own (never one that came from outside) and a
    path to try again.
    """
    if wants_json():
        response = jsonify(error=title, message=message)
    else:
        page = {{ cookiecutter.__await }}render_template("problem.html", title=title, message=message, retry=retry)
        response = Response(page, mimetype="text/html")
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


{{ cookiecutter.__async }}def store_unavailable(error: StoreUnavailable) -> Response:
    """Say that sessions cannot be read or written; why is for the log only."""
    log.error("The session store does not answer: %s", error)
    return {{ cookiecutter.__await }}problem(
        503,
        "This page is unavailable",
        "The app cannot reach its sessions. Nothing is lost: try again in a moment.",
        retry=this_page(),
    )


{{ cookiecutter.__async }}def http_error(error: HTTPException) -> Response:
    """Show the framework's own errors (404, 405, 500, ...) in the app's voice."""
    title, message = error.name, error.description or ""
    if error.code == 404:
        title, message = "There is no such page", "The address may be mistyped or out of date."
    if error.code == 500:
        title, message = "Something went wrong", "The error is in the log. Try again in a moment."
    {% if cookiecutter.api_resource %}
    if request.path.startswith("/api/"):
        # For programs: RFC 6750's code, or the name of the status.
        title = getattr(error, "error", None) or error.name.lower().replace(" ", "_")
    {% endif %}
    response = {{ cookiecutter.__await }}problem(error.code or 500, title, message)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


{% if cookiecutter.framework == "quart" %}
async def file_error(error: OSError) -> Response:
    """Quart looks for a static file under any name, also one that no file can have."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    return await http_error(NotFound())


{% endif %}
def init_app(app: {{ cookiecutter.framework | capitalize }}) -> None:
    """Show these pages for all errors of the app."""
    app.register_error_handler(StoreUnavailable, store_unavailable)
    app.register_error_handler(HTTPException, http_error)
    {% if cookiecutter.framework == "quart" %}
    app.register_error_handler(OSError, file_error)
    {% endif %}
