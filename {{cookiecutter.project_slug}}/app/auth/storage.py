"""The Logto storage: where the SDK keeps its tokens."""

from collections.abc import MutableMapping
from typing import Any

from logto import Storage

from ..sessions import session


class SessionStorage(Storage):
    """The SDK's storage over the {{ cookiecutter.framework | capitalize }} session, or over another mapping.

    The session lives on the server, so tokens never reach the browser and their number is not
    limited by the size of a cookie.
    """

    def __init__(self, data: MutableMapping[str, Any] = session) -> None:
        self.data = data

    def get(self, key: str) -> str | None:
        return self.data.get(key)

    def set(self, key: str, value: str | None) -> None:
        self.data[key] = value

    def delete(self, key: str) -> None:
        self.data.pop(key, None)
