"""Logto's webhooks: which the app accepts, which users they sign out, and the signals."""

import hmac
import json
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Bake, BakedProject
from redis_servers import redis_without
from sites import SIGNING_KEY, Site, both_frameworks, both_stores, serving
from test_permissions_over_http import OTHER_SITES

Sites = Callable[..., Site]
ALICE = "k3v9x0q2m7ae"
LARGEST = 64 * 1024
SUSPENDED = {
    "hookId": "hook",
    "event": "User.SuspensionStatus.Updated",
    "createdAt": "2026-01-01T00:00:00.000Z",
    "params": {"userId": ALICE},
    "data": {"id": ALICE, "username": "alice", "isSuspended": True},
}
DELETED = {"event": "User.Deleted", "data": {"id": ALICE}}


def signature(body: bytes, key: str = SIGNING_KEY) -> str:
    return hmac.new(key.encode(), body, "sha256").hexdigest()


def post(site: Site, body: Any, **headers: str) -> httpx2.Response:
    """Send a body as Logto does, with the headers of `fetch` and the right signature."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", "Sec-Fetch-Mode": "cors"}
    sent["logto-signature-sha-256"] = signature(content)
    url = f"{site.urls[-1]}/webhooks/logto"
    return httpx2.post(url, content=content, headers=sent | headers, timeout=30)


def received_events(site: Site) -> list[Any]:
    """Return the events that the receivers got, in the process to which `post` sends."""
    events: list[Any] = httpx2.get(f"{site.urls[-1]}/test/events").json()
    return events


@both_frameworks
@both_stores
@pytest.mark.parametrize("body", [SUSPENDED, DELETED], ids=["suspended", "deleted"])
def test_a_user_who_is_suspended_or_deleted_is_signed_out_everywhere(
    sites: Sites, framework: str, store: str, body: Any
) -> None:
    site = sites(framework, store)
    laptop, phone, other = site.browser(), site.browser(), site.browser()
    laptop.sign_in()
    phone.sign_in()
    other.sign_in(user="bob")
    with site.log_lines() as lines:
        response = post(site, body)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert not laptop.is_signed_in
    assert not phone.is_signed_in
    assert other.is_signed_in
    ended = f"Webhook {body['event']}: sub={ALICE}, "
    assert any(ended in line and line.endswith(" sessions ended") for line in lines)
    # Logto may send the same event again.
    assert post(site, body).status_code == 204
    assert other.is_signed_in


@both_frameworks
def test_the_button_of_the_local_logto_signs_a_user_out(sites: Sites, framework: str) -> None:
    site = sites(framework)
    local = site.logto.local
    config = {"url": f"{site.url}/webhooks/logto"}
    hook = local.add_hook(SIGNING_KEY, name="x", events=[SUSPENDED["event"]], config=config)
    browser = site.browser()
    try:
        browser.sign_in(user="carol")
        assert browser.is_signed_in
        httpx2.post(f"{site.logto.endpoint}/", data={"suspend": "carol"})
        deadline = time.monotonic() + 10
        while browser.is_signed_in and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not browser.is_signed_in
    finally:
        local.hooks.remove(hook)
        local.users["carol"].suspended = False


@both_frameworks
@pytest.mark.parametrize(
    "body",
    [
        SUSPENDED | {"data": {"id": ALICE, "isSuspended": False}},
        {"event": "User.Data.Updated", "data": {"id": ALICE, "isSuspended": True}},
        {"event": "User.Created", "data": {"id": "somebody"}},
        {"event": "Role.Scopes.Updated", "data": [{"id": "scope"}]},
        {"event": "PostSignIn", "userId": ALICE},
        {"event": "User.Deleted", "data": {"id": "nobody"}},
    ],
)
def test_other_events_sign_nobody_out_and_are_sent_to_all_receivers(
    sites: Sites, framework: str, body: Any
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    before = received_events(site)
    assert post(site, body).status_code == 204
    assert browser.is_signed_in
    receivers = {"flask": 1, "quart": 2}[framework]
    assert (
        received_events(site)[len(before) :]
        == [["app", body["event"], body.get("data")]] * receivers
    )


@both_frameworks
def test_a_bug_in_a_receiver_lets_logto_send_the_event_again(sites: Sites, framework: str) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    with site.log_lines() as lines:
        response = post(site, DELETED, **{"X-Test-Receiver": "fails"})
    assert response.status_code == 500
    assert any("a bug of a receiver" in line for line in lines)
    # The app ended the sessions before it called the receivers.
    assert not browser.is_signed_in
    assert post(site, DELETED).status_code == 204


BODY = json.dumps(DELETED).encode()
FORGED = {
    "none": "",
    "other key": signature(BODY, "other"),
    "other body": signature(BODY + b" "),
    "capitals": signature(BODY).upper(),
    "cut": signature(BODY)[:-1],
    "not ASCII": "\xe9" * 64,
    "of an empty key": signature(BODY, ""),
}


@both_frameworks
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_webhook_that_logto_did_not_sign_is_refused(
    sites: Sites, framework: str, forged: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    before = received_events(site)
    url = f"{site.urls[-1]}/webhooks/logto"
    headers = {b"logto-signature-sha-256": forged.encode("latin-1")} if forged else {}
    with site.log_lines() as lines:
        response = httpx2.post(url, content=BODY, headers=headers)
    assert response.status_code == 401
    assert any("Webhook refused: it is not signed" in line for line in lines)
    assert browser.is_signed_in
    assert received_events(site) == before


@both_frameworks
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'[{"event": "User.Deleted"}]',
        b"null",
        b"7",
        b'"User.Deleted"',
        b"{",
        b"\xff",
        b"{}",
        b'{"event": "User.Deleted"}',
        b'{"event": "User.Deleted", "data": {}}',
        b'{"event": "User.SuspensionStatus.Updated", "data": {"id": "x"}}',
        b"[" * 60_000,
        b"1" * 60_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_signed_body_that_is_no_event_is_refused(
    sites: Sites, framework: str, body: bytes
) -> None:
    site = sites(framework)
    before = received_events(site)
    assert post(site, body).status_code == 400
    assert received_events(site) == before


@both_frameworks
def test_a_body_may_have_64_kib(sites: Sites, framework: str) -> None:
    site = sites(framework)

    def chunks(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    event = json.dumps({"event": "Large", "data": {}}).encode()
    url = f"{site.urls[-1]}/webhooks/logto"
    with httpx2.Client() as http:
        for size, status in ((LARGEST, 204), (LARGEST + 1, 413), (4 * LARGEST, 413)):
            # After a long body, of which it reads a part only, the server closes the connection.
            post_body = http.post if size <= LARGEST + 1 else httpx2.post
            body = event.ljust(size)
            headers = {"logto-signature-sha-256": signature(body)}
            # The second time, the body is sent without a Content-Length.
            for content in (body, chunks(body)):
                response = post_body(url, content=content, headers=headers)
                assert response.status_code == status, size
        # The app checks the size before the signature, and the connection stays open.
        assert http.post(url, content=b"x" * (LARGEST + 1)).status_code == 413
        assert http.get(f"{site.urls[-1]}/healthz").status_code == 200


@pytest.mark.xdist_group("flask sites")
def test_a_body_that_is_too_large_is_refused_before_its_end(sites: Sites) -> None:
    # Only Flask: it would read a body without a limit. Quart reads at most 16 MiB.
    url = httpx2.URL(sites("flask").urls[-1])
    head = f"POST /webhooks/logto HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        # The server may close the connection while the client still sends.
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(16):
                connection.sendall(f"{LARGEST:x}\r\n".encode() + b"x" * LARGEST + b"\r\n")
        assert b" 413 " in connection.recv(1000)


@both_frameworks
def test_without_a_key_there_is_no_webhook(bake: Bake, framework: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    with serving(bake(framework=framework), framework, url) as site:
        for key in ("", SIGNING_KEY):
            headers = {"logto-signature-sha-256": signature(BODY, key)}
            path = f"{site.url}/webhooks/logto"
            assert httpx2.post(path, content=BODY, headers=headers).status_code == 404
        large = b"x" * 4 * LARGEST
        assert httpx2.post(path, content=large).status_code == 404


@both_frameworks
def test_a_locked_database_is_503_so_that_logto_sends_the_event_again(
    sites: Sites, framework: str
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    before = received_events(site)
    lock_holder = sqlite3.connect(site.database, isolation_level=None)
    lock_holder.execute("BEGIN EXCLUSIVE")
    try:
        response = post(site, DELETED)
    finally:
        lock_holder.close()
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert received_events(site) == before
    assert browser.is_signed_in
    assert post(site, DELETED).status_code == 204
    assert not browser.is_signed_in


@both_frameworks
def test_a_redis_that_fails_is_503_so_that_logto_sends_the_event_again(
    sites: Sites, framework: str
) -> None:
    site = sites(framework, "redis")
    browser = site.browser()
    browser.sign_in()
    with redis_without(site.variables["SESSION_URL"], "zrange"):
        assert post(site, DELETED).status_code == 503
    assert browser.is_signed_in
    assert post(site, DELETED).status_code == 204
    assert not browser.is_signed_in


@both_frameworks
@pytest.mark.parametrize("headers", OTHER_SITES)
def test_a_webhook_may_have_the_headers_of_another_site(
    sites: Sites, framework: str, headers: dict[str, str]
) -> None:
    site = sites(framework)
    browser = site.browser()
    browser.sign_in()
    sent = {name: value for name, value in headers.items() if name != "Host"}
    assert post(site, DELETED, **sent).status_code == 204
    assert not browser.is_signed_in


@both_frameworks
def test_the_code_of_the_recipes_keeps_a_table_of_users(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    baked = bake(framework=framework)
    project = BakedProject(tmp_path / "project", baked.answers)
    shutil.copytree(baked.path, project.path)
    with (project.path / "app/pages.py").open("a", encoding="utf-8") as pages:
        for title in ("Keep a row for each user", "React to changes in Logto"):
            section = project.read("docs/recipes.md").partition(f"## {title}\n")[2]
            pages.write(section.partition("```python\n")[2].partition("```")[0])

    def rows() -> list[Any]:
        return database.execute("SELECT sub FROM users ORDER BY sub").fetchall()

    url = "sqlite:///sessions.sqlite3"
    with serving(project, framework, url, LOGTO_WEBHOOK_SIGNING_KEY=SIGNING_KEY) as site:
        for user in ("alice", "bob"):
            assert site.browser().sign_in(user=user).status_code == 302
        database = sqlite3.connect(project.path / "instance/users.sqlite3")
        assert rows() == [(ALICE,), ("p8d2w5t1z6bo",)]
        assert post(site, SUSPENDED).status_code == 204
        assert len(rows()) == 2
        assert post(site, DELETED).status_code == 204
        assert rows() == [("p8d2w5t1z6bo",)]
        database.close()
