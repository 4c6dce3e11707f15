"""The Kubernetes example in docs/production.md is valid and fits the app and its image."""

import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from answers import ROOT
from conftest import Bake

RUNBOOK = (ROOT / "docs/production.md").read_text("utf-8")
VERSIONS = ("1.33", "1.37")


@cache
def resources() -> dict[str, dict[str, Any]]:
    """Return the resources of the example, by kind."""
    [example] = re.findall(r"^```yaml\n(.*?)^```", RUNBOOK, re.M | re.S)
    return {each["kind"]: each for each in yaml.safe_load_all(example)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_the_api_of_kubernetes_accepts_the_example(kind: str, version: str) -> None:
    kubernetes_validate.validate(resources()[kind], version, strict=True)


def test_the_schema_finds_a_mistake() -> None:
    text = yaml.safe_dump(resources()["Deployment"]).replace("httpGet", "httpget")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(yaml.safe_load(text), VERSIONS[-1], strict=True)


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_the_example_runs_the_image_as_it_was_built(bake: Bake, framework: str) -> None:
    project = bake(framework=framework)
    dockerfile, settings = project.read("Dockerfile"), project.read(".env.example")
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    user = pod["securityContext"]
    assert f"\nUSER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    [port] = container["ports"]
    assert f"\nEXPOSE {port['containerPort']}\n" in dockerfile
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert set(container["resources"]) == {"requests", "limits"}
    health = project.read("app/server/health.py")
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
        assert f'"{path}"' in health
    variables = {each["name"] for each in container["env"]}
    assert variables <= set(re.findall(r"^([A-Z_]+)=", settings, re.M))
    assert {"LOGTO_ENDPOINT", "LOGTO_APP_ID", "LOGTO_APP_SECRET", "LOGTO_CALLBACK_URL"} <= variables
    # No secret is a value in the file.
    [secret] = [each for each in container["env"] if each["name"].endswith("_SECRET")]
    assert "value" not in secret


def test_a_pod_that_stops_has_time_to_finish_a_sign_in(bake: Bake) -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    [limit] = re.findall(r"GRANIAN_WORKERS_KILL_TIMEOUT=(\d+)", bake().read("Dockerfile"))
    assert pause + int(limit) <= pod["terminationGracePeriodSeconds"]
    [waiting] = re.findall(r"^TIME_LIMIT = (\d+)", bake().read("app/auth/oidc.py"), re.M)
    assert int(waiting) < int(limit)


def test_the_service_sends_requests_to_the_pods() -> None:
    deployment, service = resources()["Deployment"]["spec"], resources()["Service"]["spec"]
    assert service["selector"] == deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == service["selector"]
    [port] = service["ports"]
    assert port["targetPort"] == deployment["template"]["spec"]["containers"][0]["ports"][0]["name"]


def test_the_runbook_quotes_the_messages_of_the_log(bake: Bake) -> None:
    contents = b"\n".join(bake().contents.values()).decode("utf-8", "replace")
    for words in ("check this machine's clock",):
        assert words in RUNBOOK
        assert words in contents
