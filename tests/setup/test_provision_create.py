"""`logto provision --create`: it creates the application, the webhook and the env file."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from answers import FILLED
from conftest import Bake
from dotenv import dotenv_values
from logto_commands import CALLBACK, ORIGIN, CommandResult, Commands, commands
from sites import fixed_response, oidc_error

pytestmark = pytest.mark.xdist_group("provision create")

API = FILLED["api_resource"]
BOTH_FRAMEWORKS = pytest.mark.parametrize("project", ["flask", "quart"], indirect=True)
CREATED = ["LOGTO_APP_ID", "LOGTO_APP_SECRET", "LOGTO_WEBHOOK_SIGNING_KEY"]
# Without these environment variables, the app reads `.env`. The test driver deletes a variable
# whose value is None.
UNSET: dict[str, Any] = dict.fromkeys(CREATED)
EVENTS = ["User.Created", "User.Data.Updated", "User.Deleted", "User.SuspensionStatus.Updated"]
PUBLIC = "https://books.example/callback"
OWN_APPS = ("local-m2m", "test-app")


@pytest.fixture(scope="module", params=["flask"])
def project(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Commands]:
    project = bake(framework=request.param, api_resource=API)
    with commands(project, tmp_path_factory.mktemp("create")) as started:
        for name in CREATED:
            started.variables.pop(name, None)
        yield started


@pytest.fixture
def logto(project: Commands) -> Iterator[Commands]:
    """Return the commands, with a Logto that has only another application."""
    local, before = project.logto.local, env(project).read_bytes()
    local.clear()
    local.hooks.clear()
    local.applications = {id_: local.applications[id_] for id_ in OWN_APPS}
    local.requests.clear()
    yield project
    env(project).unlink()
    env(project).write_bytes(before)


def env(logto: Commands) -> Path:
    return logto.path / ".env"


def create(logto: Commands, *options: str, **variables: Any) -> CommandResult:
    """Run `logto provision --create`, and check that it prints no secret of Logto."""
    done = logto("provision", "--create", *options, **{**UNSET, **variables})
    assert_no_secrets(logto, done)
    return done


def assert_no_secrets(logto: Commands, done: CommandResult) -> None:
    local = logto.logto.local
    secrets = [each.secret for each in local.applications.values()]
    secrets += [hook["signingKey"] for hook in local.hooks]
    assert not [secret for secret in secrets if secret in done.text]


def created(logto: Commands) -> list[Any]:
    """Return the applications that this test created in Logto."""
    return [app for id_, app in logto.logto.local.applications.items() if id_ not in OWN_APPS]


def writes(logto: Commands) -> list[tuple[str, str]]:
    """Return the changes that were sent to Logto since the last call of this function."""
    calls = [call for call in logto.logto.local.requests if call[0] != "GET"]
    logto.logto.local.requests.clear()
    return [call for call in calls if call != ("POST", "/oidc/token")]


def refuse(status: str) -> Any:
    """Let Logto refuse every write, and respond to every GET."""

    def fault(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return app(environ, start)
        return oidc_error("entity.refused", status)(app, environ, start, over)

    return fault


@BOTH_FRAMEWORKS
def test_one_run_connects_a_new_service(logto: Commands) -> None:
    local, before = logto.logto.local, env(logto).read_text("utf-8")
    env(logto).chmod(0o644)

    done = logto.run_in_new_process("provision", "--create")

    assert (done.code, done.errors) == (0, "")
    assert_no_secrets(logto, done)
    (app,) = created(logto)
    assert (app.name, app.type) == ("Bookstore", "Traditional")
    assert app.redirect_uris == [CALLBACK]
    assert app.post_logout_redirect_uris == [f"{ORIGIN}/"]
    assert app.backchannel_logout_uri == f"{ORIGIN}/backchannel-logout"
    assert app.backchannel_logout_session_required
    (hook,) = local.hooks
    assert (hook["name"], hook["config"]) == ("Bookstore", {"url": f"{ORIGIN}/webhooks/logto"})
    assert hook["events"] == EVENTS
    assert API in local.resources
    assert len(local.connectors) == 1

    values = dotenv_values(env(logto))
    assert [values[name] for name in CREATED] == [app.id, app.secret, hook["signingKey"]]
    assert all(name in done.output for name in CREATED)
    assert stat.S_IMODE(env(logto).stat().st_mode) == 0o600
    kept = [line for line in before.splitlines() if not line.startswith(tuple(CREATED))]
    assert [line for line in env(logto).read_text("utf-8").splitlines() if line in kept] == kept

    assert logto.run_in_new_process("check").code == 0
    writes(logto)
    again = logto.run_in_new_process("provision", "--create")
    assert "nothing to do" in again.output
    assert writes(logto) == []


def test_a_dry_run_lists_the_changes_and_makes_none(logto: Commands) -> None:
    before = env(logto).read_bytes()
    dry = create(logto, "--dry-run")
    assert dry.code == 0
    for line in (
        "Application Bookstore",
        "  + Traditional web application",
        f"  + redirect URI {CALLBACK}",
        f"  + webhook {ORIGIN}/webhooks/logto",
        *(f"  + {event}" for event in EVENTS),
        str(env(logto)),
        *(f"  ~ {name}" for name in CREATED),
    ):
        assert f"{line}\n" in dry.output
    assert writes(logto) == []
    assert env(logto).read_bytes() == before
    assert not env(logto).with_name(".env.new").exists()


def test_an_application_of_the_same_name_and_callback_is_used(logto: Commands) -> None:
    local = logto.logto.local
    other = type(local.application)
    for number in range(45):
        # Names are not unique, and other applications may have the same callback.
        local.applications[f"same-name{number}"] = other(
            f"same-name{number}", "Bookstore", [PUBLIC]
        )
        local.applications[f"same-callback{number}"] = other(
            f"same-callback{number}", "Other", [CALLBACK]
        )
    ours = other("ours", "Bookstore", [PUBLIC, CALLBACK])
    local.applications["ours"] = ours

    assert create(logto).code == 0

    assert dotenv_values(env(logto))["LOGTO_APP_ID"] == "ours"
    assert len(local.applications) == 2 + 90 + 1
    assert ours.redirect_uris == [PUBLIC, CALLBACK]
    assert "nothing to do" in create(logto).output


def test_without_an_application_of_that_name_and_callback_a_new_one_is_created(
    logto: Commands,
) -> None:
    local = logto.logto.local
    other = type(local.application)
    local.applications["other"] = other("other", "Bookstore", [PUBLIC])
    assert create(logto).code == 0
    assert {app.name for app in created(logto)} == {"Bookstore"}
    assert len(created(logto)) == 2
    assert local.applications["other"].redirect_uris == [PUBLIC]


def test_a_logto_that_repeats_the_same_page_causes_no_endless_loop(logto: Commands) -> None:
    page = [{"id": "x", "name": "x", "oidcClientMetadata": {"redirectUris": []}}] * 20

    def repeat(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] != "GET":
            return app(environ, start)
        return fixed_response("200 OK", json.dumps(page))(app, environ, start, over)

    with logto.logto.fault("/api/applications", repeat):
        assert create(logto, "--dry-run").code == 0


@pytest.mark.parametrize("path", ["/api/hooks", "/api/connectors"])
def test_a_refusal_keeps_the_new_values_in_the_file_and_the_next_run_continues(
    logto: Commands, path: str
) -> None:
    with logto.logto.fault(path, refuse("422 Unprocessable Entity")):
        done = create(logto)
    assert done.code == 1
    assert "entity.refused" in done.errors
    assert "Done: Application Bookstore" in done.errors
    (app,) = created(logto)
    values = dotenv_values(env(logto))
    assert (values["LOGTO_APP_ID"], values["LOGTO_APP_SECRET"]) == (app.id, app.secret)
    writes(logto)

    assert create(logto).code == 0
    assert not [call for call in writes(logto) if "applications" in call[1]]
    assert len(logto.logto.local.hooks) == 1
    assert logto.check(**UNSET).code == 0


def test_the_id_is_in_the_file_if_the_secret_cannot_be_read(logto: Commands) -> None:
    local = logto.logto.local
    sent = local.requests

    class WithoutSecrets(dict[str, Any]):
        """Applications whose secrets cannot be read: the endpoint responds with 404."""

        def get(self, key: str, default: Any = None) -> Any:
            reads_secrets = sent[-1][1].endswith("/secrets")
            return None if reads_secrets else super().get(key, default)

    local.applications = WithoutSecrets(local.applications)
    done = create(logto)
    assert done.code == 1
    assert "/secrets: HTTP 404" in done.errors
    (app,) = created(logto)
    assert dotenv_values(env(logto))["LOGTO_APP_ID"] == app.id
    local.applications = dict(local.applications)
    assert create(logto).code == 0
    assert created(logto) == [app]
    assert dotenv_values(env(logto))["LOGTO_APP_SECRET"] == app.secret


LAYOUTS = {
    "comments": "# a\nLOGTO_APP_ID=old # b\n#LOGTO_APP_ID=c\nX=1\n",
    "no newline at the end": "X=1\nLOGTO_APP_SECRET='old # x'",
    "export": 'export LOGTO_APP_ID="old"\n  export  LOGTO_APP_SECRET = old\nX=1\n',
    "empty lines": "\n\nX=1\n\n\nLOGTO_APP_ID=old\n\n\nLOGTO_APP_SECRET=\n# LOGTO_APP_SECRET=x\n",
    "CRLF": "X=1\r\nLOGTO_APP_ID=old\r\n\r\n# c\r\nLOGTO_WEBHOOK_SIGNING_KEY=\r\nY=2\r\n",
    "twice": "LOGTO_APP_ID=a\nX=1\nLOGTO_APP_ID=b\n",
    "similar names": "MY_LOGTO_APP_ID=a\nLOGTO_APP_ID_OLD=b\nX=LOGTO_APP_ID=c\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_all_other_text_in_the_file_stays(logto: Commands, text: str) -> None:
    env(logto).write_bytes(text.encode())
    assert create(logto).code == 0
    after = env(logto).read_bytes().decode()
    (app,) = created(logto)
    (hook,) = logto.logto.local.hooks
    values = dict(zip(CREATED, [app.id, app.secret, hook["signingKey"]], strict=True))
    assert {n: v for n, v in dotenv_values(env(logto)).items() if n in values} == values

    # Only the values of the three variables may change. All other text stays the same.
    expected = {
        "comments": f"# a\nLOGTO_APP_ID={app.id} # b\n#LOGTO_APP_ID=c\nX=1\n",
        "no newline at the end": f"X=1\nLOGTO_APP_SECRET={app.secret}\n",
        "export": f"export LOGTO_APP_ID={app.id}\n  export  LOGTO_APP_SECRET ={app.secret}\nX=1\n",
        "empty lines": f"\n\nX=1\n\n\nLOGTO_APP_ID={app.id}\n\n\n"
        f"LOGTO_APP_SECRET={app.secret}\n# LOGTO_APP_SECRET=x\n",
        "CRLF": f"X=1\r\nLOGTO_APP_ID={app.id}\r\n\r\n# c\r\n"
        f"LOGTO_WEBHOOK_SIGNING_KEY={hook['signingKey']}\r\nY=2\r\n",
        "twice": f"LOGTO_APP_ID={app.id}\nX=1\nLOGTO_APP_ID={app.id}\n",
        "similar names": LAYOUTS["similar names"],
        "nothing": "",
    }
    (name,) = [name for name, layout in LAYOUTS.items() if layout == text]
    assert after.startswith(expected[name])
    rest = after.removeprefix(expected[name]).splitlines()
    assert all(line.partition("=")[0] in CREATED for line in rest)
    assert "nothing to do" in create(logto).output
    assert env(logto).read_bytes().decode() == after


def test_a_symbolic_link_stays_a_symbolic_link(logto: Commands, tmp_path: Path) -> None:
    target = tmp_path / "shared.env"
    target.write_bytes(env(logto).read_bytes())
    env(logto).unlink()
    env(logto).symlink_to(target)
    assert create(logto).code == 0
    assert env(logto).is_symlink()
    assert dotenv_values(target)["LOGTO_APP_ID"] == created(logto)[0].id


def test_a_pipeline_can_write_another_env_file(logto: Commands, tmp_path: Path) -> None:
    file, before = tmp_path / "service.env", env(logto).read_bytes()
    assert create(logto, "--env-file", str(file)).code == 0
    assert env(logto).read_bytes() == before
    (app,) = created(logto)
    (hook,) = logto.logto.local.hooks
    values = dict(zip(CREATED, [app.id, app.secret, hook["signingKey"]], strict=True))
    assert dotenv_values(file) == values
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    writes(logto)

    # A second run with the file of the first run, and a third run without it.
    assert "nothing to do" in create(logto, "--env-file", str(file)).output
    file.unlink()
    assert create(logto, "--env-file", str(file)).code == 0
    assert dotenv_values(file) == values
    assert writes(logto) == []

    # The app ID in this file overrides an application of the same name, and `.env`.
    file.write_text("LOGTO_APP_ID=test-app\n", "utf-8")
    assert create(logto, "--env-file", str(file), LOGTO_APP_ID="bookstore").code == 0
    assert dotenv_values(file)["LOGTO_APP_ID"] == "test-app"


def test_the_option_for_another_env_file_is_refused_without_create(
    logto: Commands, tmp_path: Path
) -> None:
    done = logto("provision", "--env-file", str(tmp_path / "x"), **UNSET)
    assert (done.code, "--env-file needs --create" in done.errors) == (2, True)


def test_a_file_that_cannot_be_written_is_a_plain_error_message(
    logto: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "missing" / "service.env"
    done = create(logto, "--env-file", str(file))
    assert done.code == 1
    assert f"{file} cannot be written: No such file or directory." in done.errors
    file.parent.mkdir()
    assert create(logto, "--env-file", str(file)).code == 0
    (app,) = created(logto)
    assert dotenv_values(file)["LOGTO_APP_ID"] == app.id


def test_an_environment_variable_that_overrides_the_file_is_named(logto: Commands) -> None:
    done = create(logto, LOGTO_APP_ID="unknown-app")
    assert done.code == 0
    assert f"LOGTO_APP_ID of the environment wins over {env(logto)}" in done.output
    assert "LOGTO_APP_SECRET of the environment" not in done.output
    (app,) = created(logto)
    # The next run finds the application by its name, and prints the same warning.
    again = create(logto, LOGTO_APP_ID="unknown-app")
    assert "nothing to do" in again.output
    assert "LOGTO_APP_ID of the environment wins" in again.output
    assert "of the environment" not in create(logto, LOGTO_APP_ID=app.id).output
    assert "of the environment" not in create(logto).output


def test_a_new_application_gets_the_urls_of_more_environments(logto: Commands) -> None:
    staging = "https://staging.books.example/callback"
    options = ["--callback-url", PUBLIC, "--callback-url", staging, "--callback-url", PUBLIC]
    assert create(logto, *options).code == 0
    (app,) = created(logto)
    assert app.redirect_uris == [CALLBACK, PUBLIC, staging]
    homes = [f"{ORIGIN}/", "https://books.example/", "https://staging.books.example/"]
    assert app.post_logout_redirect_uris == homes
    # Logto never sends a request to localhost, so the public URL is used.
    assert app.backchannel_logout_uri == "https://books.example/backchannel-logout"
    (hook,) = logto.logto.local.hooks
    assert hook["config"] == {"url": "https://books.example/webhooks/logto"}
    assert "nothing to do" in create(logto, *options).output
    # `.env` has the signing key of the public webhook, so the local check finds this webhook.
    assert logto.check(**UNSET).checks["webhook"]["found"] == hook["config"]["url"]


def test_an_existing_application_gets_the_urls_of_more_environments(logto: Commands) -> None:
    done = logto(
        "provision", "--callback-url", PUBLIC, LOGTO_APP_ID="test-app", LOGTO_APP_SECRET="x"
    )
    assert done.code == 0
    assert logto.logto.local.application.redirect_uris == [CALLBACK, PUBLIC]
    assert logto.logto.local.hooks == []


@pytest.mark.parametrize("url", ["http://books.example/callback", "books", f"{PUBLIC}?x=1"])
def test_an_invalid_callback_url_is_refused_before_any_request(logto: Commands, url: str) -> None:
    done = create(logto, "--callback-url", url)
    assert done.code == 1
    assert "--callback-url: " in done.errors
    assert url in done.errors
    assert logto.logto.local.requests == []


def test_events_that_a_team_added_to_the_webhook_stay(logto: Commands) -> None:
    local = logto.logto.local
    hook = local.add_hook("k" * 32, name="Ours", events=["PostSignIn", "User.Deleted"], config={})
    hook["config"]["url"] = f"{ORIGIN}/webhooks/logto"
    assert create(logto).code == 0
    assert local.hooks == [hook]
    missing = [event for event in EVENTS if event != "User.Deleted"]
    assert hook["events"] == ["PostSignIn", "User.Deleted", *missing]
    assert hook["name"] == "Ours"
    assert dotenv_values(env(logto))["LOGTO_WEBHOOK_SIGNING_KEY"] == "k" * 32


def test_of_several_webhooks_the_webhook_with_the_known_key_is_used(logto: Commands) -> None:
    url = {"url": f"{ORIGIN}/webhooks/logto"}
    for key in ("a" * 32, "b" * 32):
        logto.logto.local.add_hook(key, name="x", events=EVENTS, config=url)
    logto.logto.local.add_hook(
        "c" * 32, name="x", events=EVENTS, config={"url": "https://x.example"}
    )
    with env(logto).open("a", encoding="utf-8") as file:
        file.write(f"LOGTO_WEBHOOK_SIGNING_KEY={'b' * 32}\n")
    assert create(logto).code == 0
    assert dotenv_values(env(logto))["LOGTO_WEBHOOK_SIGNING_KEY"] == "b" * 32
    assert not [call for call in writes(logto) if "hooks" in call[1]]


def secrets_of(logto: Commands, *values: tuple[str, Any]) -> Any:
    body = [{"name": "x", "value": value, "expiresAt": expires} for value, expires in values]
    return logto.logto.fault(
        "/api/applications/test-app/secrets", fixed_response("200 OK", json.dumps(body))
    )


def test_a_secret_that_has_expired_is_not_used(logto: Commands) -> None:
    known = {"LOGTO_APP_ID": "test-app"}
    with secrets_of(logto, ("gone", 1000), ("later", 4_000_000_000_000), ("other", None)):
        assert create(logto, **known).code == 0
        assert dotenv_values(env(logto))["LOGTO_APP_SECRET"] == "later"
        # A valid secret in the configuration stays.
        assert create(logto, **known, LOGTO_APP_SECRET="other").code == 0
        assert dotenv_values(env(logto))["LOGTO_APP_SECRET"] == "other"
    with secrets_of(logto, ("gone", 1000)):
        done = create(logto, **known)
    assert (done.code, "test-app has no valid secret" in done.errors) == (1, True)


@pytest.mark.parametrize(
    "value", ["a b", "a\nLOGTO_ENDPOINT=x", "$(touch x)", "a'b", "", None, 7.5]
)
def test_a_secret_that_an_env_file_would_misread_is_neither_written_nor_printed(
    logto: Commands, value: Any
) -> None:
    before = env(logto).read_bytes()
    with secrets_of(logto, (value, None)):
        done = create(logto, LOGTO_APP_ID="test-app")
    assert done.code == 1
    assert "The App secret in Logto has unexpected characters." in done.errors
    assert env(logto).read_bytes() == before
    assert writes(logto) == []


BODIES = ["{}", "[]", "[1]", "null", '"text"', '[{"id": 1}]', "<h1>502</h1>", '[{"config": null}]']


@pytest.mark.parametrize("name", ["applications", "applications/test-app/secrets", "hooks"])
@pytest.mark.parametrize("body", BODIES)
def test_an_unexpected_response_is_a_plain_error_message(
    logto: Commands, name: str, body: str
) -> None:
    app_id = "test-app" if "secrets" in name else "unknown-app"
    with logto.logto.fault(f"/api/{name}", fixed_response("200 OK", body)):
        done = create(logto, "--dry-run", LOGTO_APP_ID=app_id)
    # There may be no applications and no webhooks.
    if "secrets" in name or body not in ("[]", "{}"):
        assert done.code == 1
        assert done.errors.startswith("Error: ")
    assert writes(logto) == []


@pytest.mark.parametrize("path", ["/api/applications", "/api/hooks"])
@pytest.mark.parametrize(
    "body", ["{}", "[1]", '{"id": "a/b"}', '{"signingKey": "a b", "id": "x y"}']
)
def test_an_unexpected_response_to_a_creation_is_a_plain_error_message(
    logto: Commands, path: str, body: str
) -> None:
    def unexpected(app: Any, environ: Any, start: Any, over: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            return app(environ, start)
        return fixed_response("200 OK", body)(app, environ, start, over)

    with logto.logto.fault(path, unexpected):
        done = create(logto)
    assert done.code == 1
    assert "as expected" in done.errors or "unexpected characters" in done.errors
    assert "Run the command again" in done.errors
    assert create(logto).code == 0


def test_without_create_nothing_is_created(logto: Commands) -> None:
    before = env(logto).read_bytes()
    body = json.dumps({"oidcClientMetadata": {}})
    with logto.logto.fault("/api/applications/test-app", fixed_response("200 OK", body)):
        logto("provision", LOGTO_APP_ID="test-app", LOGTO_APP_SECRET="x")
    assert created(logto) == []
    assert ("POST", "/api/applications") not in writes(logto)
    assert env(logto).read_bytes() == before
