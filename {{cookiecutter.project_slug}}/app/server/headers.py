"""The app's URL, response headers, and protection against requests from other sites."""

{% if cookiecutter.__async %}
import asyncio
{% endif %}
import mimetypes
import re
from collections.abc import Callable
from contextlib import suppress
{% if cookiecutter.__async %}
from functools import partial
{% endif %}
from typing import Any, TypeVar
from urllib.parse import urlsplit

import secure
from {{ cookiecutter.framework }} import {{ cookiecutter.__framework }}, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.utils import host_is_trusted

from .errors import problem

View = TypeVar("View", bound=Callable[..., Any])

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")  # Methods that change nothing (RFC 9110, 9.2.1).
HEALTH = ("/healthz", "/readyz")  # A load balancer requests these by IP address.
HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]*")
SPACES = re.compile(r{{ "b" if cookiecutter.__async }}"[ \t]{2,}")


def init_app(app: {{ cookiecutter.__framework }}) -> None:
    """Set the app's URL, and protect the app from other sites by headers and a check of forms."""
    mimetypes.add_type("text/css", ".css")  # On Windows, other programs can change these types.
    mimetypes.add_type("image/svg+xml", ".svg")  # Browsers then refuse the files (`nosniff`).
    origins, https = app.config["CONTENT_ORIGINS"], app.config["SESSION_COOKIE_SECURE"]
    fixed = secure.Secure(
        csp=secure.ContentSecurityPolicy()
        .default_src("'self'")
        .base_uri("'none'")
        .object_src("'none'")
        .frame_ancestors("'none'")
        .form_action("'self'", *origins)
        .img_src("'self'", "https:", *origins),
        # With no-referrer, browsers would send `Origin: null` with the sign-out form.
        referrer=secure.ReferrerPolicy().same_origin(),
        hsts=secure.StrictTransportSecurity().max_age(31536000) if https else None,
        xcto=secure.XContentTypeOptions().nosniff(),
        xfo=secure.XFrameOptions().deny(),
        coop=secure.CrossOriginOpenerPolicy().same_origin(),
        corp=secure.CrossOriginResourcePolicy().same_origin(),
        permissions=secure.PermissionsPolicy().camera().geolocation().microphone(),
    ).headers
    own, root = urlsplit(app.config["ORIGIN"]), app.config["HOME_PATH"].rstrip("/")
    # `url_for` needs this outside of a request.
    {% if cookiecutter.__async %}
    app.config.update(SERVER_NAME=own.netloc, PREFER_SECURE_URLS=https)
    app.url_map.bind = partial(app.url_map.bind, script_name=root)  # type: ignore[method-assign]
    asgi_app = app.asgi_app

    async def use_own_url(scope: Any, receive: Any, send: Any) -> Any:
        """Take host, scheme and root path from the configuration, and never from the request."""
        # Werkzeug needs seconds to read 30,000 spaces in a header. Other requests would wait.
        sent = [(name, SPACES.sub(b" ", value)) for name, value in scope.get("headers", ())]
        host, path = dict(sent).get(b"host", b"").decode("latin-1"), scope.get("path", "")
        path = path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path
        # Quart fails if the name of a static file is too long for the file system.
        if path.startswith(f"{app.static_url_path}/") and len(path.encode()) > 250:
            path = f"{app.static_url_path}/"
        trusted = app.config.get("TRUSTED_HOSTS")
        allowed = not trusted or path in HEALTH or host_is_trusted(host, [*trusted, own.hostname])
        if not HOST.fullmatch(host) or not allowed:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close"})
            await send({"type": "http.response.start", "status": 400, "headers": []})
            return await send({"type": "http.response.body", "body": b""})
        headers = [pair for pair in sent if pair[0] not in (b"host", b"x-requested-host")]
        headers.append((b"host", own.netloc.encode()))
        if host != own.netloc:
            headers.append((b"x-requested-host", host.encode("latin-1")))
        scheme = own.scheme.replace("http", "ws") if scope["type"] == "websocket" else own.scheme
        own_url = {"scheme": scheme, "root_path": root, "path": root + (path or "/")}
        # Without `extensions`, Quart closes a refused WebSocket: granian cannot send a response.
        own_scope: Any = {**scope, **own_url, "headers": headers, "extensions": {}}
        await asgi_app(own_scope, receive, send)

    app.asgi_app = use_own_url  # type: ignore[method-assign]
    {% else %}
    app.config.update(SERVER_NAME=own.netloc, PREFERRED_URL_SCHEME=own.scheme)
    wsgi_app = app.wsgi_app

    def use_own_url(environ: dict[str, Any], start_response: Any) -> Any:
        """Take host, scheme and root path from the configuration, and never from the request."""
        for name in environ:
            if name.startswith("HTTP_"):
                # Werkzeug needs seconds to read 30,000 spaces. Other requests would wait.
                environ[name] = SPACES.sub(" ", environ[name])
        host, path = environ.get("HTTP_HOST", ""), environ["PATH_INFO"]
        path = path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path
        trusted = app.config["TRUSTED_HOSTS"]
        if trusted and own.hostname not in trusted:
            # Flask checks this list again with the configured host, so add the host.
            trusted = app.config["TRUSTED_HOSTS"] = [*trusted, own.hostname]
        allowed = not trusted or path in HEALTH or host_is_trusted(host, trusted)
        if not HOST.fullmatch(host) or not allowed:
            return Response("Bad Request", 400)(environ, start_response)
        environ.pop("HTTP_X_REQUESTED_HOST", None)
        if host != own.netloc:
            environ["HTTP_X_REQUESTED_HOST"] = host
        environ |= {"HTTP_HOST": own.netloc, "wsgi.url_scheme": own.scheme}
        environ |= {"SCRIPT_NAME": root, "PATH_INFO": path or "/"}
        return wsgi_app(environ, start_response)

    app.wsgi_app = use_own_url  # type: ignore[method-assign]
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
            # Browsers may keep static files, but must check for a new version each time.
            response.headers["Cache-Control"] = "no-cache"
        else:
            # Pages differ by session, and no copy may stay in the browser after sign-out.
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.add("Vary", "Cookie")
        # granian drops the connection if the request body is unread. Behind a proxy, that breaks
        # another user's request. So read the rest of the body.
        if request.content_length or "Transfer-Encoding" in request.headers:
            {% if cookiecutter.__async %}
            with suppress(HTTPException, TimeoutError):
                async with asyncio.timeout(5):
                    await request.get_data()
            {% else %}
            with suppress(HTTPException):
                request.stream.read(64 * 1024)
            {% endif %}
        return response


def open_to_other_sites(view: View) -> View:
    """Allow other sites to send forms to a view. The view must not use the session."""
    view.open_to_other_sites = True  # type: ignore[attr-defined]
    return view


def from_own_site(request: Any = request) -> bool:
    """Return whether the request is from this app's pages or the user, according to the browser.

    This follows `http.CrossOriginProtection` of Go 1.25: a request without both headers is
    accepted, because the client is not a browser.
    """
    if site := request.headers.get("Sec-Fetch-Site"):
        return site in ("same-origin", "none")
    return request.headers.get("Origin") in (None, current_app.config["ORIGIN"])


def is_visit() -> bool:
    """Return whether the user opens a page in the browser. Return False for a script's request."""
    headers = request.headers
    # A browser inside an Android app sends the name of the app in X-Requested-With.
    by_script = "HX-Request" in headers or headers.get("X-Requested-With") == "XMLHttpRequest"
    return not by_script and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
