"""The commands `{{ cookiecutter.framework }} logto check` and `{{ cookiecutter.framework }} logto provision`, with the local Logto."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import CALLBACK, HOME

from dev.local_logto import LocalLogto
from logto_setup import commands, connector
from logto_setup.management import default_resource

Run = Callable[..., Result]


@pytest.fixture
def fresh_logto() -> Iterator[LocalLogto]:
    with LocalLogto(
        app_id="test-app", redirect_uris=[CALLBACK], post_logout_redirect_uris=[HOME]
    ) as fresh:
        {% if cookiecutter.api_resource %}
        resource = "{{ cookiecutter.api_resource }}"
        fresh.resources[resource] = []
        {% endif %}
        yield fresh


@pytest.fixture
def run(fresh_logto: LocalLogto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `{{ cookiecutter.framework }} logto ...` with these variables and without your `.env`."""
    variables = {
        "LOGTO_ENDPOINT": fresh_logto.endpoint,
        "LOGTO_APP_ID": "test-app",
        "LOGTO_APP_SECRET": "test-secret",
        "LOGTO_CALLBACK_URL": CALLBACK,
        {% if cookiecutter.api_resource %}
        "LOGTO_API_RESOURCE": "{{ cookiecutter.api_resource }}",
        {% endif %}
        "LOGTO_M2M_APP_ID": "local-m2m",
        "LOGTO_M2M_APP_SECRET": "machine-secret",
        "LOGTO_MANAGEMENT_RESOURCE": "",
        "LOGTO_MANAGEMENT_TOKEN_ENDPOINT": "",
        "AZURE_CLIENT_ID": "azure-id",
        "AZURE_CLIENT_SECRET": "azure-secret",
        "SESSION_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for module in ("logto_setup.provision", "app.config"):
        monkeypatch.setattr(f"{module}.PROJECT_DIR", tmp_path)
    return lambda *words, **more: CliRunner().invoke(commands, words, env=more)


def test_everything_is_right(run: Run) -> None:
    done = run("check")
    assert done.exit_code == 0, done.output


def test_a_mistake_is_reported_with_the_value_to_paste(run: Run, fresh_logto: LocalLogto) -> None:
    fresh_logto.application.redirect_uris = []
    done = run("check", "--json")
    failed = [row for row in json.loads(done.output)["checks"] if row["ok"] is False]
    assert done.exit_code == 1
    assert [(row["name"], row["value"]) for row in failed] == [("callback_url", CALLBACK)]


def test_a_missing_variable_is_reported(run: Run) -> None:
    done = run("check", LOGTO_APP_SECRET="")
    assert done.exit_code == 1
    assert "LOGTO_APP_SECRET" in done.output


def test_provision_prepares_an_empty_logto_once(run: Run, fresh_logto: LocalLogto) -> None:
    fresh_logto.clear()
    done = run("provision")
    assert done.exit_code == 0, done.output
    assert f"{fresh_logto.endpoint}/callback/azuread" in done.output
    assert "secret" not in done.output.replace("clientSecret", "")
    assert run("check").exit_code == 0
    assert "nothing to do" in run("provision").output


def test_an_application_and_a_webhook_are_created_once(
    run: Run, fresh_logto: LocalLogto, tmp_path: Path
) -> None:
    done = run("provision", "--create", LOGTO_APP_ID="new-app")
    assert done.exit_code == 0, done.output
    (app_id,) = fresh_logto.applications.keys() - {"test-app", "local-m2m"}
    lines = (tmp_path / ".env").read_text().splitlines()
    assert lines == [
        f"LOGTO_APP_ID={app_id}",
        f"LOGTO_APP_SECRET={fresh_logto.applications[app_id].secret}",
        f"LOGTO_WEBHOOK_SIGNING_KEY={fresh_logto.hooks[0]['signingKey']}",
    ]
    assert "nothing to do" in run("provision", "--create", LOGTO_APP_ID="new-app").output


@pytest.mark.parametrize(
    ("endpoint", "resource"),
    [
        ("https://books.logto.app", "https://books.logto.app/api"),
        ("https://login.books.example", "https://default.logto.app/api"),
    ],
)
def test_each_tenant_has_its_management_api(endpoint: str, resource: str) -> None:
    assert default_resource(endpoint) == resource


def test_the_connector_file_has_no_secret() -> None:
    assert connector.load({})["clientSecret"] == "<client-secret>"
