"""The API: responses to requests, CORS for other web pages, and the OpenAPI description."""

import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import pytest
from access_tokens import token
from api_client import HTTP, PAGE, assert_refused, both_frameworks, call, challenge
from conftest import environment, program
from sites import Site

# RFC 6750, section 3


@both_frameworks
@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Digest a=b, c=d"])
def test_a_call_without_a_token_gets_a_challenge_without_an_error(
    site: Site, framework: str, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = call(site, headers=headers)
    assert response.status_code == 401
    assert challenge(response) == {}
    assert set(response.json()) == {"error", "message"}


@both_frameworks
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_capitals_and_a_second_space_in_the_scheme_are_accepted(
    site: Site, framework: str, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {token(site.logto)}"}
    assert call(site, headers=headers).status_code == 200


@both_frameworks
def test_a_token_in_the_query_and_a_second_token_are_refused(site: Site, framework: str) -> None:
    good = token(site.logto)
    for response in (
        call(site, params={"access_token": good}),
        call(site, good, params={"access_token": good}),
        call(site, f"{good} {good}"),
        call(site, f"{good}, Bearer {good}"),
        HTTP.get(f"{site.url}/api/me", headers=[("Authorization", f"Bearer {good}")] * 2),
    ):
        assert_refused(response, 400, "invalid_request")


@both_frameworks
def test_a_token_of_15_kb_is_accepted_and_a_token_of_17_kb_is_refused(
    site: Site, framework: str
) -> None:
    scopes = " ".join(f"write:shelf-{number:03}" for number in range(500))
    large = token_of(site, 15 * 1024, scope=f"read:books {scopes}")
    response = call(site, large, "/api/test/token")
    assert (response.status_code, len(response.json()["scopes"])) == (200, 501)
    assert call(site, large, "/api/books").status_code == 200
    assert_refused(call(site, token_of(site, 17 * 1024)), 401, "invalid_token")


def token_of(site: Site, size: int, **claims: Any) -> str:
    """Return an access token of about `size` characters, most of them in one claim."""
    without = len(token(site.logto, filling="", **claims))
    made = token(site.logto, filling="x" * ((size - without) * 3 // 4), **claims)
    assert size - 4 <= len(made) <= size + 4
    return made


@both_frameworks
def test_a_refusal_names_all_required_scopes(site: Site, framework: str) -> None:
    response = call(site, token(site.logto, scope="read:books read"), "/api/test/both")
    assert_refused_for_scope(response, "read:books write:books")
    response = call(site, token(site.logto, scope=None), "/api/books")
    assert_refused_for_scope(response, "read:books")


def assert_refused_for_scope(response: httpx2.Response, scope: str) -> None:
    assert_refused(response, 403, "insufficient_scope")
    assert challenge(response)["scope"] == scope


@both_frameworks
@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/api/nowhere", 404, "not_found"),
        ("DELETE", "/api/me", 405, "method_not_allowed"),
        ("GET", "/api/test/failure", 500, "internal_server_error"),
    ],
)
def test_every_error_is_json_even_if_the_client_accepts_html(
    site: Site, framework: str, method: str, path: str, status: int, error: str
) -> None:
    response = call(site, path=path, method=method, headers={"Accept": "text/html"})
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert set(response.json()) == {"error", "message"}
    assert "fault of the app" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Allow" in response.headers) == (status == 405)


@both_frameworks
@pytest.mark.parametrize("content", [b'{"title": "Kindred"', b"\xff", b"[" * 50_000])
def test_a_body_that_is_not_a_book_is_refused(site: Site, framework: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = call(
        site, token(site.logto), "/api/books", method="POST", content=content, headers=headers
    )
    assert response.status_code == 400
    assert set(response.json()) == {"error", "message"}


@both_frameworks
@pytest.mark.parametrize(
    ("path", "status"), [("/api/books", 401), ("/api/me", 405), ("/nowhere", 404), ("/", 405)]
)
def test_a_body_that_arrives_late_does_not_close_the_connection(
    site: Site, framework: str, path: str, status: int
) -> None:
    # granian drops the connection if the app leaves the body unread. Behind a proxy, that breaks
    # the request of another user.
    url = httpx2.URL(site.url)
    connection = HTTPConnection(url.host, url.port, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    time.sleep(0.2)
    connection.send(b"{}")
    response = connection.getresponse()
    assert response.status == status
    response.read()
    # HTTPConnection would open a new connection after a close.
    connection.auto_open = 0
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


# CORS: requests from other web pages


@both_frameworks
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
def test_pages_of_allowed_origins_may_call_the_api(site: Site, framework: str, origin: str) -> None:
    requested = "authorization,content-type,traceparent"
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": requested,
    }
    preflight = call(site, path="/api/books", method="OPTIONS", headers=headers)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == requested
    assert int(preflight.headers["Access-Control-Max-Age"]) > 0
    refused = call(site, headers={"Origin": origin})
    found = call(site, token(site.logto), headers={"Origin": origin})
    for response in (refused, found):
        exposed = names(response, "Access-Control-Expose-Headers")
        assert {"x-request-id", "www-authenticate", "retry-after"} <= exposed
    for response in (preflight, refused, found):
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in response.headers


def names(response: httpx2.Response, header: str) -> set[str]:
    """Return the header names that this header lists, in lower case."""
    return {name.strip().lower() for name in response.headers.get(header, "").split(",") if name}


TRACING_HEADERS = (
    "authorization,baggage,if-none-match,sentry-trace,traceparent,tracestate,x-request-id"
)


@both_frameworks
@pytest.mark.parametrize(
    "requested", [TRACING_HEADERS, "x-requested-with", "Traceparent, BAGGAGE , x_1"]
)
def test_pages_of_allowed_origins_may_send_any_header(
    site: Site, framework: str, requested: str
) -> None:
    preflight = preflight_for(site, requested)
    allowed = names(preflight, "Access-Control-Allow-Headers")
    assert allowed == {name.strip().lower() for name in requested.split(",")}
    assert "Access-Control-Allow-Credentials" not in preflight.headers


@both_frameworks
@pytest.mark.parametrize(
    "requested",
    ["", ",", "*", "a;b", "a:b", "<b>", "a=b", '"a"', "a/b", "traceparent, a(b)", "\xe9", "a\tb:"],
)
def test_invalid_header_names_are_not_allowed(site: Site, framework: str, requested: str) -> None:
    preflight = preflight_for(site, requested)
    assert preflight.status_code == 200
    assert "Access-Control-Allow-Headers" not in preflight.headers


def preflight_for(site: Site, requested: str) -> httpx2.Response:
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": requested.encode("latin-1"),
    }
    preflight: httpx2.Response = call(site, path="/api/me", method="OPTIONS", headers=headers)
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    return preflight


@both_frameworks
def test_another_site_may_post_with_a_token(site: Site, framework: str) -> None:
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    path = "/api/test/form"
    sent = call(site, token(site.logto), path, method="POST", headers=dict(headers))
    assert sent.status_code == 200
    refused = call(site, path=path, method="POST", headers=dict(headers))
    assert refused.status_code == 401
    assert challenge(refused) == {}


@both_frameworks
@pytest.mark.parametrize("origin", ["https://evil.example", f"{PAGE}.evil.example", "null", "*"])
def test_pages_of_other_origins_may_not_call_the_api(
    site: Site, framework: str, origin: str
) -> None:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "traceparent",
    }
    for response in (
        call(site, path="/api/me", method="OPTIONS", headers=headers),
        call(site, token(site.logto), headers=headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert "Origin" in response.headers["Vary"]


@both_frameworks
def test_pages_of_the_app_have_no_cors_headers(site: Site, framework: str) -> None:
    for path in ("/", "/profile", "/apis", "/healthz"):
        response = call(site, path=path, headers={"Origin": PAGE})
        assert not [name for name in response.headers if name.startswith("access-control-")]


# The OpenAPI description


@both_frameworks
def test_schemathesis_finds_no_fault_in_the_api(site: Site, framework: str, tmp_path: Path) -> None:
    bearer = token(site.logto)
    env = environment()
    command = [
        *[program("schemathesis", env), "run", str(site.project.path / "openapi.json")],
        *["--url", site.url, "--header", f"Authorization: Bearer {bearer}"],
        *["--max-examples", "25", "--seed", "1", "--checks", "all", "--no-color"],
        *["--generation-database", "none"],
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# A token for curl


@both_frameworks
def test_a_token_for_curl_comes_from_the_running_stand_in(site: Site, framework: str) -> None:
    def printed(*options: str) -> subprocess.CompletedProcess[str]:
        command = ("python", "-m", "dev.access_token", *options)
        return site.project.attempt_in_fork(*command, **site.variables)

    given = printed("--user", "bob", "--scope", "read:books", "--scope", "write:books")
    response = call(site, given.stdout.strip(), "/api/test/token").json()
    assert (response["user_id"], response["scopes"]) == ("p8d2w5t1z6bo", ["read:books"])
    assert given.stderr == "bob is not granted write:books.\n"

    given = printed("--scope", "read:books", "--organization", "bookclub0001")
    response = call(site, given.stdout.strip(), "/api/test/organization").json()
    assert (response["organization"], response["scopes"]) == ("bookclub0001", ["read:books"])

    for options, reason in {
        ("--user", "nobody"): "nobody cannot sign in. Choose a user from",
        ("--organization", "none"): "user is not a member of the organization",
        ("--logto-port", "1"): "No local Logto responds at http://localhost:1",
        ("--port", "1"): "redirect_uri did not match",
    }.items():
        given = printed(*options)
        assert (given.returncode, given.stdout) == (1, "")
        assert reason in given.stderr
        assert "Traceback" not in given.stderr
