"""Response headers that keep pages from being framed, sniffed, cached or fed with scripts.

And a body that nobody has read is taken before the answer leaves.
"""

{% if cookiecutter.framework == "quart" %}
import asyncio
{% endif %}
from contextlib import suppress

from {{ cookiecutter.framework }} import {{ cookiecutter.framework | capitalize }}, Response, request
from secure import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    Secure,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)
from werkzeug.exceptions import HTTPException


def init_app(app: {{ cookiecutter.framework | capitalize }}) -> None:
    """Send the headers with every answer, errors included."""
    # Their redirects would name the host that the request names.
    app.url_map.merge_slashes = False
    headers = Secure(
        csp=content_security_policy(app.config["LOGTO_ENDPOINT"].rstrip("/")),
        # Not no-referrer: browsers would then send `Origin: null` with the sign-out form.
        referrer=ReferrerPolicy().same_origin(),
        hsts=StrictTransportSecurity().max_age(31536000) if app.config["HTTPS"] else None,
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
        coop=CrossOriginOpenerPolicy().same_origin(),
        permissions=PermissionsPolicy().camera().geolocation().microphone(),
    )
    # Put together once, as every answer takes them.
    fixed = list(headers.headers.items())

    @app.after_request
    {{ cookiecutter.__async }}def send_headers(response: Response) -> Response:
        for name, value in fixed:
            response.headers[name] = value
        if request.endpoint == "static":
            # Kept, but not without asking whether there is a newer one.
            response.headers["Cache-Control"] = "no-cache"
        else:
            # Pages differ by session, and must be gone from the browser after sign-out.
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.add("Vary", "Cookie")
        return response

    @app.after_request
    {{ cookiecutter.__async }}def take_body(response: Response) -> Response:
        # Under an answer that leaves before the body has come, granian closes the connection and
        # says so to nobody: the next request on it, through a proxy somebody else's, is lost.
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


def content_security_policy(logto_endpoint: str) -> ContentSecurityPolicy:
    """Everything from the app itself, but for avatars and the sign-out form's way to Logto."""
    return (
        ContentSecurityPolicy()
        .default_src("'self'")
        .base_uri("'none'")
        .object_src("'none'")
        .frame_ancestors("'none'")
        .form_action("'self'", logto_endpoint)
        .img_src("'self'", "https:", logto_endpoint)
    )
