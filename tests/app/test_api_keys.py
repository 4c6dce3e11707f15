"""The keys of Logto for access tokens: when the app fetches them, and how long it trusts them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from access_tokens import ATTACKER_KEY, token, with_header
from api_client import HTTP, INTERVAL, assert_refused, both_frameworks, call
from sites import Site, silent
from token_faults import public, publishing, rsa_key


@both_frameworks
def test_tokens_with_forged_key_ids_cause_one_fetch_of_the_keys(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework)
    tokens = [token(site.logto, {"kid": f"forged-{n}"}, ATTACKER_KEY) for n in range(60)]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda bearer: call(site, bearer), tokens))
    for response in responses:
        assert_refused(response, 401, "invalid_token")
    assert site.logto.calls("/oidc/jwks") == 1
    # The forged tokens came first, and valid tokens are still accepted.
    assert call(site, token(site.logto)).status_code == 200
    assert site.logto.calls("/oidc/jwks") == 1


@both_frameworks
def test_a_token_without_a_key_id_causes_no_fetch_of_the_keys(
    short_interval_site: Site, framework: str
) -> None:
    before = short_interval_site.logto.calls("/oidc/jwks")
    for bearer in ("nonsense", with_header(kid=None)(short_interval_site.logto), "x" * 9000):
        assert_refused(call(short_interval_site, bearer), 401, "invalid_token")
    assert short_interval_site.logto.calls("/oidc/jwks") == before


@both_frameworks
def test_a_new_key_of_logto_is_fetched(short_interval_site: Site, framework: str) -> None:
    before = token(short_interval_site.logto)
    assert call(short_interval_site, before).status_code == 200
    time.sleep(INTERVAL)
    short_interval_site.logto.new_key()
    assert call(short_interval_site, token(short_interval_site.logto)).status_code == 200


@both_frameworks
def test_a_new_algorithm_of_logto_is_accepted(short_interval_site: Site, framework: str) -> None:
    key = rsa_key()
    with publishing(short_interval_site.logto, public(key), algorithms=["RS256"]):
        bearer = token(short_interval_site.logto, {"alg": "RS256", "kid": key.kid}, key)
        assert call(short_interval_site, bearer).status_code == 200
    time.sleep(INTERVAL)
    assert call(short_interval_site, token(short_interval_site.logto)).status_code == 200


@both_frameworks
def test_without_logto_known_keys_stay_valid_and_unknown_keys_are_a_503(
    short_interval_site: Site, framework: str
) -> None:
    logto = short_interval_site.logto
    assert call(short_interval_site, token(logto)).status_code == 200
    with logto.unreachable():
        time.sleep(INTERVAL)
        for _ in range(3):
            response = call(short_interval_site, token(logto, {"kid": "new"}, ATTACKER_KEY))
            assert (response.status_code, response.json()["error"]) == (503, "service_unavailable")
            assert response.headers["Retry-After"] == "30"
            assert "WWW-Authenticate" not in response.headers
            assert call(short_interval_site, token(logto)).status_code == 200
    time.sleep(INTERVAL)
    logto.new_key()
    assert call(short_interval_site, token(logto)).status_code == 200


@both_frameworks
def test_an_app_that_starts_without_logto_recovers(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework, TEST_KEY_INTERVAL=str(INTERVAL))
    with site.logto.unreachable():
        assert call(site, token(site.logto)).status_code == 503
    time.sleep(INTERVAL)
    assert call(site, token(site.logto)).status_code == 200


@both_frameworks
def test_a_silent_logto_delays_no_request_with_a_known_key(
    short_interval_site: Site, framework: str
) -> None:
    logto = short_interval_site.logto
    known = token(logto)
    assert call(short_interval_site, known).status_code == 200
    time.sleep(INTERVAL)
    requests = []

    def no_response(app: Any, environ: Any, start: Any, over: threading.Event) -> Any:
        requests.append(environ)
        return silent(app, environ, start, over)

    with logto.fault("/oidc/jwks", no_response), ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(call, short_interval_site, token(logto, {"kid": name}, ATTACKER_KEY))
            for name in ("one", "two")
        ]
        time.sleep(0.2)
        for bearer in (known, token(logto)):
            assert call(short_interval_site, bearer).status_code == 200
        assert not any(each.done() for each in waiting)
        assert [each.result().status_code for each in waiting] == [503, 503]
    assert len(requests) == 1


@both_frameworks
def test_a_client_that_disconnects_does_not_prevent_the_fetch_of_the_keys(
    short_interval_site: Site, framework: str
) -> None:
    requests = []

    def late(app: Any, environ: Any, start: Any, over: Any) -> Any:
        requests.append(environ)
        time.sleep(0.4)
        return app(environ, start)

    short_interval_site.logto.new_key()
    bearer = token(short_interval_site.logto)
    headers = {"Authorization": f"Bearer {bearer}"}
    with short_interval_site.logto.fault("/oidc/jwks", late):
        with pytest.raises(httpx2.ReadTimeout):
            HTTP.get(f"{short_interval_site.url}/api/me", headers=headers, timeout=0.15)
        assert call(short_interval_site, bearer).status_code == 200
    # On Quart, the fetch ends with the aborted request, and the next request fetches the keys.
    assert len(requests) == (2 if framework == "quart" else 1)


@both_frameworks
def test_a_key_that_logto_has_withdrawn_is_not_trusted_for_long(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework, TEST_KEY_INTERVAL="0", TEST_KEY_AGE="1")
    logto = site.logto
    withdrawn = logto.local.key
    assert call(site, token(logto)).status_code == 200
    logto.new_key()
    time.sleep(1.1)
    assert_refused(
        call(site, token(logto, key=withdrawn, header={"kid": withdrawn.kid})), 401, "invalid_token"
    )
    assert call(site, token(logto)).status_code == 200
    # While Logto is away, the keys that it published last stay valid.
    with logto.unreachable():
        time.sleep(1.1)
        assert call(site, token(logto)).status_code == 200
