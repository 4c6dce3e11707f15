"""A browser without hands: it follows redirects, and takes a provider's pages as they come."""

import re
from html import unescape
from types import TracebackType
from typing import Self

import httpx2

FORM = re.compile(
    r'<form[^>]*\bmethod="post"[^>]*?(?:\baction="(?P<action>[^"]*)"[^>]*)?>(?P<body>.*?)</form>',
    re.DOTALL,
)
HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')


class Visitor:
    """Somebody with a browser, who is signed out everywhere at first.

    Takes the origin of the provider, whose forms are submitted as soon as they are seen:
    the stand-in's with "alice", the engine's as its own script would.
    """

    def __init__(self, provider: str) -> None:
        self.http = httpx2.Client(timeout=30, verify=False)
        self._provider = f"{provider}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()

    def visit(
        self, address: str, params: dict[str, str] | None = None, *, until: str | None = None
    ) -> httpx2.Response:
        """Go there, and on to where it leads: to a page, or to the first redirect to `until`."""
        answer = self.http.get(address, params=params)
        while True:
            if answer.has_redirect_location:
                target = answer.url.join(answer.headers["location"])
                if until is not None and str(target).startswith(until):
                    return answer
                answer = self.http.get(target)
            elif str(answer.url).startswith(self._provider) and (form := FORM.search(answer.text)):
                fields = {name: unescape(value) for name, value in HIDDEN.findall(form["body"])}
                target = answer.url.join(unescape(form["action"] or ""))
                answer = self.http.post(target, data={**fields, "user": "alice"})
            else:
                return answer
