"""`logto check`: each check passes or fails, and a failed check says what to do."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from answers import FILLED
from company_network import proxies
from conftest import Bake, environment
from logto_commands import CALLBACK, ORIGIN, Commands, commands
from sites import MARKER, UNAVAILABLE, Fault, Handler, changed, fixed_response, oidc_error

pytestmark = pytest.mark.xdist_group("check")

BOTH_FRAMEWORKS = pytest.mark.parametrize("logto", ["flask", "quart"], indirect=True)
ENDPOINT = "/oidc/.well-known/openid-configuration"
NAMES = [
    "configuration",
    "session_store",
    "endpoint",
    "clock",
    "signing_keys",
    "app_id",
    "callback_url",
    "app_secret",
    "post_sign_out_uri",
    "api_resource",
    "microsoft",
    "webhook",
    "connector_file",
]


@pytest.fixture(scope="module", params=["flask"])
def logto(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Commands]:
    project = bake(framework=request.param, api_resource=FILLED["api_resource"])
    with commands(project, tmp_path_factory.mktemp("check")) as started:
        started.logto.local.resources[FILLED["api_resource"]] = ["read:books", "write:books"]
        yield started


@BOTH_FRAMEWORKS
@pytest.mark.parametrize("hours", ["-1", "soon", "0.5"])
def test_an_invalid_idle_limit_is_named(logto: Commands, hours: str) -> None:
    row = logto.check(SESSION_IDLE_HOURS=hours).checks["configuration"]
    assert row["ok"] is False
    assert "SESSION_IDLE_HOURS" in row["fix"]
    assert "0 for no limit" in row["fix"]


@BOTH_FRAMEWORKS
def test_a_correct_setup_passes_as_a_table_and_as_json(logto: Commands) -> None:
    logto.logto.local.requests.clear()
    table, as_json = logto.run_in_new_process("check"), logto.check()
    assert (table.code, table.errors) == (0, "")
    assert table.output.count("✓") == len(NAMES)
    assert table.output.endswith(f"\n{len(NAMES)} checks: {len(NAMES)} right\n")
    assert list(as_json.checks) == NAMES
    assert json.loads(as_json.output)["ok"] is True
    assert all(
        list(row) == ["name", "label", "ok", "found", "fix", "value"]
        for row in as_json.checks.values()
    )


def test_a_check_changes_nothing(logto: Commands) -> None:
    local = logto.logto.local
    local.requests.clear()
    logto.check()
    assert {call for call in local.requests if call[0] != "GET"} == {("POST", "/oidc/token")}
    assert not local.sessions
    assert not local.issued


def test_a_console_without_unicode_gets_plain_words_and_no_colours(logto: Commands) -> None:
    done = logto.run_in_new_process(
        "check", PYTHONIOENCODING="cp1252", PYTHONUTF8="0", AZURE_CLIENT_ID=""
    )
    assert done.output.count("OK ") == len(NAMES)
    assert "\x1b" not in done.output


def installed(logto: Commands) -> dict[str, str]:
    """Return the variable with which the framework finds the commands, as after an installation."""
    logto.run_in_new_process("--help")
    return {"PYTHONPATH": os.pathsep.join([str(logto.path), str(logto.path.parent / "installed")])}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_of_80_columns_breaks_lines_between_words(logto: Commands, term: str) -> None:
    import pexpect

    unknown = "of-the-same-app-under-another-name-that-nobody-knows"
    variables = {"TERM": term, "LOGTO_APP_ID": unknown, "PYTHONUTF8": "1"}
    env = environment(**logto.variables | installed(logto) | variables)
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "NO_COLOR")}
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "flask", "logto", "check"],
        cwd=str(logto.path),
        env=env,
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=60,
    )
    terminal.expect(pexpect.EOF)
    output = terminal.before
    assert isinstance(output, str)
    assert ("\x1b[31m" in output) is (term == "xterm")
    assert ("\x1b" in output) is (term == "xterm")
    lines = re.sub(r"\x1b\[\d+m", "", output).replace("\r", "").splitlines()
    # A long name or URL is not broken: it is alone on its line.
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines), lines
    assert f"{'':28}{unknown}" in lines
    assert re.fullmatch(r"13 checks: \d right, 1 wrong, \d not checked", lines[-1])


def test_no_help_text_is_cut(logto: Commands) -> None:
    for words in ([], ["check"], ["provision"]):
        done = logto.run_in_new_process(*words, "--help")
        assert "..." not in done.output.replace("[ARGS]...", "")
    everything = logto.project.run("flask", "--help", **logto.variables | installed(logto)).stdout
    assert "logto   Check or set up the app at Logto and at Microsoft.\n" in everything


@BOTH_FRAMEWORKS
def test_a_mistake_in_the_app_does_not_end_every_command(logto: Commands) -> None:
    # `flask run --debug` loads the commands before it shows the mistake.
    pages = logto.path / "app/pages.py"
    before = pages.read_text("utf-8")
    pages.write_text("def (", "utf-8")
    try:
        assert logto.run_in_new_process("--help").code == 0
    finally:
        pages.write_text(before, "utf-8")


@BOTH_FRAMEWORKS
def test_a_broken_configuration_is_a_row_of_the_table(logto: Commands) -> None:
    broken = {"LOGTO_APP_SECRET": "", "LOGTO_ENDPOINT": "http://logto.example"}
    done = logto.run_in_new_process("check", "--json", **broken)
    assert done.code == 1
    row = done.checks["configuration"]
    assert row["ok"] is False
    assert all(name in row["fix"] for name in broken)
    assert done.checks["app_secret"]["ok"] is None
    # The connector file can be checked without Logto.
    assert done.checks["connector_file"]["ok"] is True


def test_an_unknown_app_fails_the_check(logto: Commands) -> None:
    done = logto.check(LOGTO_APP_ID="nobody")
    assert done.failed == ["app_id"]
    assert done.checks["callback_url"]["ok"] is None
    assert "nobody" in done.checks["app_id"]["found"]


def test_an_unregistered_callback_fails_the_check(logto: Commands) -> None:
    other = f"{ORIGIN}/other/callback"
    done = logto.check(LOGTO_CALLBACK_URL=other)
    assert done.failed == ["callback_url"]
    assert done.checks["callback_url"]["value"] == other
    assert "Redirect URIs" in done.checks["callback_url"]["fix"]


def test_a_wrong_secret_fails_the_check(logto: Commands) -> None:
    done = logto.check(LOGTO_APP_SECRET="wrong")
    assert done.failed == ["app_secret"]


def test_an_unregistered_post_sign_out_uri_fails_the_check(logto: Commands) -> None:
    application = logto.logto.local.application
    known, application.post_logout_redirect_uris = application.post_logout_redirect_uris, [ORIGIN]
    try:
        done = logto.check()
    finally:
        application.post_logout_redirect_uris = known
    assert done.failed == ["post_sign_out_uri"]
    assert done.checks["post_sign_out_uri"]["value"] == f"{ORIGIN}/"


def test_an_unknown_api_resource_fails_the_check(logto: Commands) -> None:
    done = logto.check(LOGTO_API_RESOURCE="https://other.example/api")
    assert done.failed == ["api_resource"]
    assert done.checks["api_resource"]["value"] == "https://other.example/api"


def test_a_sign_in_page_without_microsoft_fails_the_check(logto: Commands) -> None:
    experience = logto.logto.local.sign_in_experience
    experience["socialSignInConnectorTargets"] = []
    try:
        done = logto.check()
    finally:
        experience["socialSignInConnectorTargets"] = ["azuread"]
    assert done.failed == ["microsoft"]


@BOTH_FRAMEWORKS
def test_without_a_button_for_microsoft_nothing_of_microsoft_is_checked(logto: Commands) -> None:
    config = logto.path / "app/config.py"
    before = config.read_text("utf-8")
    button = '    "azuread": ("Microsoft", "social:azuread"),\n'
    assert button in before
    experience = logto.logto.local.sign_in_experience
    experience["socialSignInConnectorTargets"] = []
    config.write_text(before.replace(button, ""), "utf-8")
    try:
        done = logto.run_in_new_process(
            "check", "--json", AZURE_CLIENT_ID="", AZURE_CLIENT_SECRET=""
        )
    finally:
        config.write_text(before, "utf-8")
        experience["socialSignInConnectorTargets"] = ["azuread"]
    assert list(done.checks) == [n for n in NAMES if n not in ("microsoft", "connector_file")]
    assert (done.code, done.failed) == (0, [])


SSO_PAGE = "/api/.well-known/sign-in-exp"


@BOTH_FRAMEWORKS
def test_a_button_for_enterprise_sso_is_checked(logto: Commands) -> None:
    config = logto.path / "app/config.py"
    before = config.read_text("utf-8")
    button = '    "azuread": ("Microsoft", "social:azuread"),\n'
    config.write_text(before.replace(button, '    "acme": ("Acme", "sso:k2j3"),\n'), "utf-8")
    offered = changed(lambda page: page | {"ssoConnectors": [{"id": "k2j3"}]})
    try:
        red = logto.run_in_new_process("check", "--json")
        with logto.logto.fault(SSO_PAGE, offered):
            green = logto.run_in_new_process("check", "--json")
    finally:
        config.write_text(before, "utf-8")
    assert red.failed == ["enterprise_sso"]
    assert "k2j3" in red.checks["enterprise_sso"]["found"]
    assert "add a domain" in red.checks["enterprise_sso"]["fix"]
    assert green.failed == []
    assert "microsoft" not in green.checks


def test_a_placeholder_passes_the_check_once_logto_has_its_value(logto: Commands) -> None:
    experience = logto.logto.local.sign_in_experience
    unset = {"AZURE_CLIENT_ID": "", "AZURE_CLIENT_SECRET": ""}
    assert logto.check(**unset).failed == []
    experience["socialSignInConnectorTargets"] = []
    try:
        done = logto.check(**unset)
    finally:
        experience["socialSignInConnectorTargets"] = ["azuread"]
    assert done.failed == ["microsoft", "connector_file"]
    assert all(name in done.checks["connector_file"]["fix"] for name in unset)


KEY = "k" * 32


def test_without_a_key_the_webhook_is_off_and_passes_the_check(logto: Commands) -> None:
    row = logto.check().checks["webhook"]
    assert (row["ok"], row["found"]) == (True, "off: LOGTO_WEBHOOK_SIGNING_KEY is not set")
    assert not [call for call in logto.logto.local.requests if call[1] == "/api/hooks"]


@BOTH_FRAMEWORKS
def test_the_registration_of_the_webhook_is_checked(logto: Commands) -> None:
    local, set_up = logto.logto.local, {"LOGTO_WEBHOOK_SIGNING_KEY": KEY}
    row = logto.check(**set_up, LOGTO_M2M_APP_SECRET="").checks["webhook"]
    assert (row["ok"], "LOGTO_M2M_APP_SECRET is not" in row["found"]) == (True, True)

    local.add_hook("o" * 32, name="x", events=[], config={"url": "https://other.example"})
    try:
        done = logto.check(**set_up)
        assert done.failed == ["webhook"]
        assert "provision --create" in done.checks["webhook"]["fix"]
        assert KEY not in done.text

        ours = local.add_hook(KEY, name="x", events=[], config={"url": f"{ORIGIN}/webhooks/logto"})
        row = logto.check(**set_up).checks["webhook"]
        assert (row["ok"], row["found"]) == (True, f"{ORIGIN}/webhooks/logto")

        ours["enabled"] = False
        done = logto.check(**set_up)
        assert done.failed == ["webhook"]
        assert "disabled" in done.checks["webhook"]["found"]
        assert KEY not in done.text
    finally:
        local.hooks.clear()


@pytest.mark.parametrize("body", ["[1]", "null", "7", '[{"id": 1}]', "<h1>502</h1>"])
def test_an_unexpected_list_of_webhooks_fails_the_check(logto: Commands, body: str) -> None:
    with logto.logto.fault("/api/hooks", fixed_response("200 OK", body)):
        done = logto.check(LOGTO_WEBHOOK_SIGNING_KEY=KEY)
    assert done.failed == ["webhook"]


def test_a_wrong_m2m_secret_is_named_if_the_webhooks_cannot_be_read(logto: Commands) -> None:
    done = logto.check(LOGTO_WEBHOOK_SIGNING_KEY=KEY, LOGTO_M2M_APP_SECRET="wrong")
    assert done.failed == ["webhook"]
    assert "LOGTO_M2M_APP_SECRET" in done.checks["webhook"]["found"]


def test_another_host_name_of_the_same_logto_fails_the_check(logto: Commands) -> None:
    done = logto.check(LOGTO_ENDPOINT=logto.logto.endpoint.replace("localhost", "127.0.0.1"))
    assert done.failed == ["endpoint"]
    assert done.checks["endpoint"]["value"] == logto.logto.endpoint


def test_a_key_set_with_only_keys_of_another_type_fails_the_check(logto: Commands) -> None:
    def only_rsa(keys: Any) -> Any:
        return {"keys": [{"kty": "RSA", "kid": keys["keys"][0]["kid"], "n": "AQAB", "e": "AQAB"}]}

    with logto.logto.fault("/oidc/jwks", changed(only_rsa)):
        assert logto.check().failed == ["signing_keys"]


@pytest.mark.parametrize(("seconds", "word"), [(-90, "ahead of"), (90, "behind")])
def test_a_wrong_clock_fails_the_check(
    logto: Commands, seconds: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    monkeypatch.setattr(Handler, "date_time_string", lambda *_: server_date)
    done = logto.check()
    assert done.failed == ["clock"]
    assert word in done.checks["clock"]["found"]


def test_an_unauthorized_application_fails_the_check(logto: Commands) -> None:
    def fault(app: Any, environ: Any, start: Any, over: Any) -> Any:
        start("303 See Other", [("Location", f"{CALLBACK}?error=unauthorized_client")])
        return [b""]

    with logto.logto.fault("/oidc/auth", fault):
        done = logto.check()
    assert done.failed == ["callback_url"]
    assert "unauthorized_client" in done.checks["callback_url"]["found"]


FAULTS = pytest.mark.parametrize(
    "fault", [*UNAVAILABLE.values(), oidc_error("server_error")], ids=[*UNAVAILABLE, "an error"]
)


@FAULTS
def test_a_server_that_is_not_logto_fails_the_check(logto: Commands, fault: Fault) -> None:
    with logto.logto.fault(ENDPOINT, fault):
        done = logto.check()
    assert done.failed == ["endpoint"]
    assert MARKER not in done.text


@FAULTS
def test_a_faulty_logto_fails_the_checks_without_a_traceback(logto: Commands, fault: Fault) -> None:
    paths = ["/oidc/jwks", "/oidc/auth", "/oidc/token", "/api/.well-known/sign-in-exp"]
    with ExitStack() as stack:
        for path in [*paths, "/oidc/session/end"]:
            stack.enter_context(logto.logto.fault(path, fault))
        done = logto.check()
    assert {"signing_keys", "microsoft"} <= set(done.failed)
    assert {"app_id", "callback_url"} & set(done.failed)
    assert not done.checks["app_secret"]["ok"]
    assert MARKER not in done.text
    assert "\x1b" not in done.text


@FAULTS
def test_a_fault_of_one_endpoint_fails_only_its_check(logto: Commands, fault: Fault) -> None:
    with logto.logto.fault("/oidc/token", fault), logto.logto.fault("/oidc/session/end", fault):
        done = logto.check()
    # After sign-out, Logto may show a page, so the check of that endpoint accepts every page.
    assert set(done.failed) - {"post_sign_out_uri"} == {"app_secret"}
    assert MARKER not in done.text


def test_control_characters_of_a_response_do_not_reach_the_terminal(logto: Commands) -> None:
    error = fixed_response("400 Bad Request", json.dumps({"error": "\x1b[31mred\x07"}))
    with logto.logto.fault("/oidc/auth", error):
        done = logto("check")
    assert done.code == 1
    assert not {"\x1b", "\x07"} & set(done.output)


def test_a_page_of_another_site_at_the_endpoint_fails_the_check(logto: Commands) -> None:
    page = fixed_response("302 Found", "<h1>Log in to the hotel's Wi-Fi</h1>", "text/html")
    with logto.logto.fault(ENDPOINT, page):
        done = logto.check()
    assert done.failed == ["endpoint"]
    assert "does not respond as Logto does" in done.checks["endpoint"]["found"]


def test_an_endpoint_where_no_server_listens_fails_the_check(logto: Commands) -> None:
    with logto.logto.unreachable():
        done = logto.check()
    assert done.failed == ["endpoint"]
    assert "no server accepts the connection" in done.checks["endpoint"]["found"]
    assert "python -m dev" in done.checks["endpoint"]["fix"]


def test_a_host_that_does_not_exist_fails_the_check(logto: Commands) -> None:
    done = logto.check(LOGTO_ENDPOINT="https://logto.invalid", **proxies())
    assert done.failed == ["endpoint"]
    assert "no such host" in done.checks["endpoint"]["found"]


def test_a_host_that_hangs_is_given_up_within_seconds(logto: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = logto.run_in_new_process("check", LOGTO_ENDPOINT=endpoint)
    assert time.monotonic() - started < 30
    assert done.code == 1
    assert "no response in time" in done.output


@BOTH_FRAMEWORKS
@pytest.mark.parametrize("url", ["sqlite:////dev/null/sessions", "redis://localhost:1"])
def test_a_session_store_that_cannot_be_written_fails_the_check(logto: Commands, url: str) -> None:
    done = logto.check(SESSION_URL=url)
    assert done.failed == ["session_store"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"clientId": "x", // common\n}', "\udcff"],
    ids=["empty", "list", "comment", "bytes"],
)
def test_a_connector_file_that_is_no_json_object_fails_the_check(
    logto: Commands, content: str
) -> None:
    with logto.connector_file(content.encode("utf-8", "replace").decode()):
        done = logto.check()
    assert done.failed == ["connector_file"]
    assert "JSON" in done.checks["connector_file"]["fix"]
