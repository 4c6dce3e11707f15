"""The Logto storage, in which the SDK keeps its tokens."""

from collections.abc import MutableMapping
from typing import Any

from logto import Storage

from ..server.sessions import session


class SessionStorage(Storage):
    """The SDK's storage, in the session on the server, or in another mapping."""

    def __init__(self, data: MutableMapping[str, Any] = session) -> None:
        self.data = data

    def get(self, key: str) -> str | None:
        return self.data.get(key)

    def set(self, key: str, value: str | None) -> None:
        self.data[key] = value

    def delete(self, key: str) -> None:
        self.data.pop(key, None)
