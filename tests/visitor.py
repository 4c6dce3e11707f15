"""A browser without a user: it follows redirects and submits the forms of the provider."""

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
    """A browser that is signed out everywhere at first.

    `provider` is the origin of the provider. The browser submits each form on its pages: on a page
    of the stand-in with the user "alice", on a page of the real engine as its script does.
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
        self, url: str, params: dict[str, str] | None = None, *, until: str | None = None
    ) -> httpx2.Response:
        """Open a URL and follow its redirects and forms to a page.

        With `until`, stop at the first redirect to a URL that begins with `until`.
        """
        response = self.http.get(url, params=params)
        while True:
            if response.has_redirect_location:
                target = response.url.join(response.headers["location"])
                if until is not None and str(target).startswith(until):
                    return response
                response = self.http.get(target)
            elif str(response.url).startswith(self._provider) and (
                form := FORM.search(response.text)
            ):
                fields = {name: unescape(value) for name, value in HIDDEN.findall(form["body"])}
                target = response.url.join(unescape(form["action"] or ""))
                response = self.http.post(target, data={**fields, "user": "alice"})
            else:
                return response
