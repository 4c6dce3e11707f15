{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""Error responses: a page for users, and JSON for scripts, without internal details."""

import logging
import secrets
from typing import Any
from urllib.parse import quote

from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}, Response, current_app, jsonify, render_template, request{{ ", websocket" if cookiecutter.__async }}
{% if cookiecutter.api_resource %}
from {{ cookiecutter.framework }}.wrappers import Request
{% endif %}
from werkzeug.exceptions import {{ "BadRequest, " if cookiecutter.api_resource }}HTTPException

from .stores import StoreUnavailable

log = logging.getLogger(__name__)

QUERY_CHARACTERS = "!$%&'()*+,/:;=?@"  # Allowed in a query (RFC 3986, 3.4), plus `%` of escapes.


def wants_json() -> bool:
    """Return whether the request prefers JSON to a page."""
    {% if cookiecutter.__async %}
    if websocket:
        return True
    {% endif %}
    {% if cookiecutter.api_resource %}
    if request.path.startswith("/api/"):
        return True
    {% endif %}
    accepted = request.accept_mimetypes.best_match(["text/html", "application/json"])
    return accepted == "application/json" or request.blueprint == "health"


def this_page() -> str:
    """Return the path and query to return to. If the request is a form, return the home page."""
    home = str(current_app.config["HOME_PATH"])
    if {{ "websocket or " if cookiecutter.__async }}request.method not in ("GET", "HEAD"):
        return home
    # `request.path` is already decoded, so quote it again.
    path = home + quote(request.path).lstrip("/")
    query = quote(request.query_string, safe=QUERY_CHARACTERS)
    return f"{path}?{query}" if query else path


async def problem(status: int, case: str, *, retry: str | None = None, **shown: Any) -> Response:
    """Return an error page, or JSON if the request prefers JSON.

    Takes the HTTP status, the name of a case in `templates/problems.txt`, the path of the link "Try
    again", and values that the text of the case shows.
    """
    text = await render_template("problems.txt", case=case, **shown)
    title, _, message = text.strip().partition("\n")
    if wants_json():
        response = jsonify(error=case, message=message)
    else:
        texts = {"case": case, "title": title, "message": message, "retry": retry}
        if status >= 500:
            # Do not use `g.request_id`, because a client can choose that ID.
            texts["reference"] = secrets.token_hex(4)
            log.info("The user sees the problem %s with the ID %s", case, texts["reference"])
        try:
            known = case != "store_unavailable"  # Whether the app knows who is signed in.
            page = await render_template("problem.html", navigation=known, **texts)
        except Exception:
            # The store is down or the navigation has a mistake, so show no navigation.
            page = await render_template("problem.html", navigation=False, **texts)
        response = Response(page, mimetype="text/html")
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = "30"  # Seconds.
    return response


async def store_unavailable(error: StoreUnavailable) -> Response:
    """Show that the session store does not work, and log the reason."""
    log.error("The session store is unavailable: %s", error)
    return await problem(503, "store_unavailable", retry=this_page())


async def http_error(error: HTTPException) -> Response:
    """Show the framework's errors (404, 405, 500, ...) in the app's style."""
    {% if cookiecutter.api_resource %}
    # A refused access token has an error code of RFC 6750.
    case = getattr(error, "error", None) or error.name.lower().replace(" ", "_")
    {% else %}
    case = error.name.lower().replace(" ", "_")
    {% endif %}
    status, description = error.code or 500, error.description
    if description == type(error).description:
        description = None  # The text in `problems.txt` replaces the framework's text.
    retry = this_page() if status >= 500 else None
    response = await problem(status, case, retry=retry, description=description)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


{% if cookiecutter.api_resource %}
class JSONRequest(Request):
    """A request whose `get_json` raises BadRequest for every body that is not valid JSON."""

    async def get_json(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().get_json(*args, **kwargs)
        except (RecursionError, UnicodeDecodeError):
            message = "The JSON is not in UTF-8, or is nested too deeply."
            raise BadRequest(message) from None


{% endif %}
def init_app(app: {{ cookiecutter.__framework }}) -> None:
    """Show error pages or JSON for all errors of the app."""
    {% if cookiecutter.api_resource %}
    app.request_class = JSONRequest
    {% endif %}
    app.register_error_handler(StoreUnavailable, store_unavailable)
    app.register_error_handler(HTTPException, http_error)
{% endfilter %}
{% endfilter %}
