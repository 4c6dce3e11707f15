"""The keys of Logto for access tokens: when the app fetches them, and how long it trusts them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from access_tokens import THEIR_KEY, headed, token
from api_client import HTTP, INTERVAL, assert_refused, both_frameworks, call
from sites import Site, silent
from token_faults import public, publishing, rsa_key


@both_frameworks
def test_tokens_with_forged_key_ids_cause_one_fetch_of_the_keys(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework)
    tokens = [token(site.logto, {"kid": f"forged-{n}"}, THEIR_KEY) for n in range(60)]
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
    impatient: Site, framework: str
) -> None:
    before = impatient.logto.calls("/oidc/jwks")
    for bearer in ("nonsense", headed(kid=None)(impatient.logto), "x" * 9000):
        assert_refused(call(impatient, bearer), 401, "invalid_token")
    assert impatient.logto.calls("/oidc/jwks") == before


@both_frameworks
def test_a_new_key_of_logto_is_fetched(impatient: Site, framework: str) -> None:
    before = token(impatient.logto)
    assert call(impatient, before).status_code == 200
    time.sleep(INTERVAL)
    impatient.logto.new_key()
    assert call(impatient, token(impatient.logto)).status_code == 200


@both_frameworks
def test_a_new_algorithm_of_logto_is_accepted(impatient: Site, framework: str) -> None:
    key = rsa_key()
    with publishing(impatient.logto, public(key), algorithms=["RS256"]):
        bearer = token(impatient.logto, {"alg": "RS256", "kid": key.kid}, key)
        assert call(impatient, bearer).status_code == 200
    time.sleep(INTERVAL)
    assert call(impatient, token(impatient.logto)).status_code == 200


@both_frameworks
def test_without_logto_known_keys_stay_valid_and_unknown_keys_are_a_503(
    impatient: Site, framework: str
) -> None:
    logto = impatient.logto
    assert call(impatient, token(logto)).status_code == 200
    with logto.away():
        time.sleep(INTERVAL)
        for _ in range(3):
            response = call(impatient, token(logto, {"kid": "new"}, THEIR_KEY))
            assert (response.status_code, response.json()["error"]) == (503, "service_unavailable")
            assert response.headers["Retry-After"] == "30"
            assert "WWW-Authenticate" not in response.headers
            assert call(impatient, token(logto)).status_code == 200
    time.sleep(INTERVAL)
    logto.new_key()
    assert call(impatient, token(logto)).status_code == 200


@both_frameworks
def test_an_app_that_starts_without_logto_recovers(
    start: Callable[..., Site], framework: str
) -> None:
    site = start(framework, TEST_KEY_INTERVAL=str(INTERVAL))
    with site.logto.away():
        assert call(site, token(site.logto)).status_code == 503
    time.sleep(INTERVAL)
    assert call(site, token(site.logto)).status_code == 200


@both_frameworks
def test_a_silent_logto_delays_no_request_with_a_known_key(impatient: Site, framework: str) -> None:
    logto = impatient.logto
    known = token(logto)
    assert call(impatient, known).status_code == 200
    time.sleep(INTERVAL)
    requests = []

    def no_response(app: Any, environ: Any, start: Any, over: threading.Event) -> Any:
        requests.append(environ)
        return silent(app, environ, start, over)

    with logto.fault("/oidc/jwks", no_response), ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(call, impatient, token(logto, {"kid": name}, THEIR_KEY))
            for name in ("one", "two")
        ]
        time.sleep(0.2)
        for bearer in (known, token(logto)):
            assert call(impatient, bearer).status_code == 200
        assert not any(each.done() for each in waiting)
        assert [each.result().status_code for each in waiting] == [503, 503]
    assert len(requests) == 1


@both_frameworks
def test_a_client_that_disconnects_does_not_prevent_the_fetch_of_the_keys(
    impatient: Site, framework: str
) -> None:
    requests = []

    def late(app: Any, environ: Any, start: Any, over: Any) -> Any:
        requests.append(environ)
        time.sleep(0.4)
        return app(environ, start)

    impatient.logto.new_key()
    bearer = token(impatient.logto)
    headers = {"Authorization": f"Bearer {bearer}"}
    with impatient.logto.fault("/oidc/jwks", late):
        with pytest.raises(httpx2.ReadTimeout):
            HTTP.get(f"{impatient.url}/api/me", headers=headers, timeout=0.15)
        assert call(impatient, bearer).status_code == 200
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
    with logto.away():
        time.sleep(1.1)
        assert call(site, token(logto)).status_code == 200
