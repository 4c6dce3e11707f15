"""Sign-in with Logto."""

{% if cookiecutter.api_resource %}
from .bearer import access_token_required, current_token
{% endif %}
{% if cookiecutter.api_resource %}
from .client import LogtoUnavailable, SessionEnded, SignInInvalid, access_token, logto
{% else %}
from .client import LogtoUnavailable, SessionEnded, SignInInvalid, logto
{% endif %}
from .guards import current_user, sign_in_required

__all__ = [
    "LogtoUnavailable",
    "SessionEnded",
    "SignInInvalid",
    {% if cookiecutter.api_resource %}
    "access_token",
    "access_token_required",
    "current_token",
    {% endif %}
    "current_user",
    "logto",
    "sign_in_required",
]
