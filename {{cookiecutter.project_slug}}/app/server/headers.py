"""Protection from other sites: response headers, and no forms from elsewhere."""

{% if cookiecutter.framework == "quart" %}
import asyncio
{% endif %}
import mimetypes
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import secure
from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}, Response, current_app, request
from werkzeug.exceptions import HTTPException

from .errors import problem

View = TypeVar("View", bound=Callable[..., Any])

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")  # Methods that change nothing (RFC 9110, 9.2.1).
SPACES = re.compile(r{{ "b" if cookiecutter.framework == "quart" }}"[ \t]{2,}")


def init_app(app: {{ cookiecutter.framework | capitalize }}) -> None:
    """Send the headers with every response, errors included."""
    mimetypes.add_type("text/css", ".css")  # Other programs change the types on Windows, and then
    mimetypes.add_type("image/svg+xml", ".svg")  # browsers refuse the files because of `nosniff`.
    # Werkzeug redirects `//path` to a URL built from the untrusted Host header.
    app.url_map.merge_slashes = False
    origins, https = app.config["CONTENT_ORIGINS"], app.config["SESSION_COOKIE_SECURE"]
    policy = secure.Secure(
        csp=secure.ContentSecurityPolicy()
        .default_src("'self'")
        .base_uri("'none'")
        .object_src("'none'")
        .frame_ancestors("'none'")
        .form_action("'self'", *origins)
        .img_src("'self'", "https:", *origins),
        # Not no-referrer: browsers would then send `Origin: null` with the sign-out form.
        referrer=secure.ReferrerPolicy().same_origin(),
        hsts=secure.StrictTransportSecurity().max_age(31536000) if https else None,
        xcto=secure.XContentTypeOptions().nosniff(),
        xfo=secure.XFrameOptions().deny(),
        coop=secure.CrossOriginOpenerPolicy().same_origin(),
        corp=secure.CrossOriginResourcePolicy().same_origin(),
        permissions=secure.PermissionsPolicy().camera().geolocation().microphone(),
    )
    fixed = dict(policy.headers)
    # Werkzeug needs seconds to read 30,000 spaces in a header, and all other requests wait.
    {% if cookiecutter.framework == "quart" %}
    asgi_app = app.asgi_app

    async def collapse_spaces(scope: Any, receive: Any, send: Any) -> None:
        headers = [(name, SPACES.sub(b" ", value)) for name, value in scope.get("headers", ())]
        scope = {**scope, "headers": headers}
        if scope["type"] == "websocket":
            # granian fails at the response of a refused WebSocket. Without this, it sends a 403.
            scope["extensions"] = {}
        try:
            await asgi_app(scope, receive, send)
        except HTTPException as refusal:
            # The Host header is not a host name. Quart has no error handler for that.
            await send({"type": "http.response.start", "status": refusal.code, "headers": []})
            await send({"type": "http.response.body"})

    app.asgi_app = collapse_spaces  # type: ignore[method-assign]
    {% else %}
    wsgi_app = app.wsgi_app

    def collapse_spaces(environ: dict[str, Any], start_response: Any) -> Any:
        for name in environ:
            if name.startswith("HTTP_"):
                environ[name] = SPACES.sub(" ", environ[name])
        return wsgi_app(environ, start_response)

    app.wsgi_app = collapse_spaces  # type: ignore[method-assign]
    {% endif %}

    @app.before_request
    {{ cookiecutter.__async }}def refuse_forms_of_other_sites() -> Response | None:
        view = app.view_functions.get(request.endpoint or "")
        if request.method in SAFE or getattr(view, "open_to_other_sites", not view):
            return None
        return None if from_own_site() else {{ cookiecutter.__await }}problem(403, "other_site")

    @app.after_request
    {{ cookiecutter.__async }}def send_headers(response: Response) -> Response:
        response.headers.update(fixed)
        if request.endpoint == "static":
            # Browsers keep static files, and ask each time whether there is a newer one.
            response.headers["Cache-Control"] = "no-cache"
        else:
            # Pages differ by session, and must leave the browser at sign-out.
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.add("Vary", "Cookie")
        # granian drops the connection if the request body is unread. Behind a proxy, that breaks
        # another user's request. So read the rest of the body.
        if request.content_length or "Transfer-Encoding" in request.headers:
            {% if cookiecutter.framework == "quart" %}
            with suppress(HTTPException, TimeoutError):
                async with asyncio.timeout(5):
                    await request.get_data()
            {% else %}
            with suppress(HTTPException):
                request.stream.read(64 * 1024)
            {% endif %}
        return response


def open_to_other_sites(view: View) -> View:
    """Let other sites send forms to a view. The view must not use the session."""
    view.open_to_other_sites = True  # type: ignore[attr-defined]
    return view


def from_own_site(request: Any = request) -> bool:
    """Return whether the user or a page of this app sends the request, as the browser says.

    The rule is that of `http.CrossOriginProtection` in Go 1.25: Sec-Fetch-Site decides, or Origin
    if there is no Sec-Fetch-Site. A request without both does not come from a browser.
    """
    if site := request.headers.get("Sec-Fetch-Site"):
        return site in ("same-origin", "none")
    return request.headers.get("Origin") in (None, current_app.config["ORIGIN"])


def is_visit() -> bool:
    """Return whether the user goes to this page, as the browser says, and no script fetches it."""
    headers = request.headers
    # Browsers within Android apps send the name of the app in X-Requested-With.
    by_script = "HX-Request" in headers or headers.get("X-Requested-With") == "XMLHttpRequest"
    return not by_script and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
