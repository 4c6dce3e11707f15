"""The files for production: the Dockerfile, the compose file, and the pipelines."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import ROOT, every_combination
from conftest import Bake, environment, mypy_cache
from images import instructions, uv_variables, with_lock_file
from joserfc.jwk import ECKey
from processes import free_port

FRAMEWORKS = ["flask", "quart"]
API = "https://api.bookstore.example/"
SCHEMAS = {
    "compose.yaml": ["vendor.compose-spec"],
    ".github/workflows/ci.yml": [
        "vendor.github-workflows",
        "custom.github-workflows-require-timeout",
    ],
    ".github/dependabot.yml": ["vendor.dependabot"],
    ".gitlab-ci.yml": ["vendor.gitlab-ci"],
    "renovate.json": ["vendor.renovate"],
}


def tool(*command: str, cwd: Path) -> None:
    """Run a linter. Raises AssertionError with its output if it finds a problem."""
    env = environment()
    path = shutil.which(command[0], path=env["PATH"])
    assert path, f"{command[0]} is not installed"
    done = subprocess.run(
        [path, *command[1:]],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


# Published schemas and linters


@pytest.mark.xdist_group("schemas")
@pytest.mark.parametrize(
    ("name", "schema"), [(name, schema) for name, schemas in SCHEMAS.items() for schema in schemas]
)
def test_every_pipeline_and_compose_file_is_valid_by_its_schema(
    bake: Bake, name: str, schema: str
) -> None:
    projects = [
        bake(**answers)
        for answers in every_combination()
        if not answers["catalog_owner"] and answers["framework"] == "flask"
    ]
    files = [str(project.path / name) for project in projects if name in project.contents]
    assert files
    tool("check-jsonschema", "--builtin-schema", schema, *files, cwd=ROOT)


def test_the_answers_decide_which_files_exist(bake: Bake) -> None:
    docker = {"Dockerfile", ".dockerignore", "compose.yaml", "Caddyfile"}
    github = {".github/workflows/ci.yml", ".github/dependabot.yml"}
    gitlab = {".gitlab-ci.yml", "renovate.json"}
    for answers, expected in (
        ({"ci": "github", "use_docker": True}, docker | github),
        ({"ci": "gitlab", "use_docker": False}, gitlab),
        ({"ci": "none", "use_docker": False}, set()),
    ):
        names = set(bake(**answers).contents)
        assert names & (docker | github | gitlab) == expected
        assert ".pre-commit-config.yaml" in names


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_hadolint_finds_nothing_in_the_dockerfile(bake: Bake, framework: str) -> None:
    tool("hadolint", "Dockerfile", cwd=bake(framework=framework).path)


def test_the_proxy_accepts_its_configuration(bake: Bake) -> None:
    tool("caddy", "validate", "--config", "Caddyfile", cwd=bake().path)


def test_the_proxy_offers_http_3_only_where_compose_publishes_udp(bake: Bake) -> None:
    project = bake()
    adapted = json.loads(project.run("caddy", "adapt", "--config", "Caddyfile").stdout)
    [server] = adapted["apps"]["http"]["servers"].values()
    ports = yaml.safe_load(project.read("compose.yaml"))["services"]["proxy"]["ports"]
    published = any(port.endswith("/udp") for port in ports)
    # Without a list of protocols, Caddy offers all three.
    assert ("h3" in server.get("protocols", ["h1", "h2", "h3"])) is published


def docker_compose() -> list[str]:
    """Return the command of Docker Compose, or skip the test if it is not installed."""
    for compose in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(compose[0]):
            done = subprocess.run([*compose, "version"], capture_output=True)
            if done.returncode == 0:
                return compose
    pytest.skip("not installed: docker compose. To install: apt-get install docker-compose")


def test_docker_compose_accepts_its_configuration(bake: Bake) -> None:
    tool(*docker_compose(), "--profile", "logto", "config", "--quiet", cwd=bake().path)


def test_docker_compose_without_an_env_file_says_what_to_do(bake: Bake, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".env")
    clone = shutil.copytree(bake().path, tmp_path / "clone", ignore=ignored)
    command = [*docker_compose(), "config", "--quiet"]
    done = subprocess.run(command, cwd=clone, capture_output=True, encoding="utf-8")
    assert done.returncode != 0
    assert "copy .env.example to .env" in done.stderr


# The pipelines


def github(bake: Bake) -> dict[str, Any]:
    """Read the workflow for GitHub."""
    pipeline: dict[str, Any] = yaml.safe_load(bake(ci="github").read(".github/workflows/ci.yml"))
    return pipeline


def test_every_action_is_pinned_to_a_commit_and_says_its_version(bake: Bake) -> None:
    used = re.findall(r"uses: (.*)", bake(ci="github").read(".github/workflows/ci.yml"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_the_pipeline_on_github_has_only_the_permission_to_read(bake: Bake) -> None:
    pipeline = github(bake)
    assert pipeline["permissions"] == {"contents": "read"}
    for job in pipeline["jobs"].values():
        assert "permissions" not in job
        checkout = next(step for step in job["steps"] if "checkout" in step.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_both_pipelines_run_the_same_commands(bake: Bake) -> None:
    steps = [step.get("run", "") for step in github(bake)["jobs"]["check"]["steps"]]
    gitlab = yaml.safe_load(bake(ci="gitlab").read(".gitlab-ci.yml"))["check"]["script"]
    assert [step for step in steps if step] == [
        line.removeprefix("TEST_SESSION_URL=redis://redis:6379/0 ") for line in gitlab
    ]


def test_zizmor_finds_nothing_in_the_workflow_and_the_dependabot_file(bake: Bake) -> None:
    for answers in ({"use_docker": True}, {"use_docker": False}):
        command = ["zizmor", "--offline", "--no-progress", "--quiet", "."]
        tool(*command, cwd=bake(ci="github", **answers).path)


def test_zizmor_finds_nothing_in_the_workflows_of_this_repository() -> None:
    tool("zizmor", "--offline", "--no-progress", "--quiet", ".github", cwd=ROOT)


def install_step(bake: Bake, ci: str) -> str:
    """Return the script of the pipeline step that installs the project."""
    if ci == "github":
        steps = [step.get("run", "") for step in github(bake)["jobs"]["check"]["steps"]]
    else:
        steps = yaml.safe_load(bake(ci="gitlab").read(".gitlab-ci.yml"))["check"]["script"]
    [step] = [step for step in steps if "-e ." in step]
    return str(step)


# Write the arguments of pip into the file `installed`, and run nothing. uv needs the real Python.
RECORDING_PYTHON = f"""#!/bin/sh
test "$1" = -m && echo "$@" >>installed || exec {sys.executable} "$@"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_the_pipeline_installs_the_versions_of_the_lock_file_if_there_is_one(
    bake: Bake, ci: str, tmp_path: Path
) -> None:
    script = install_step(bake, ci)
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(RECORDING_PYTHON)
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{environment()['PATH']}"
    unlocked = replace(bake(), path=Path(shutil.copytree(bake().path, tmp_path / "unlocked")))
    locked = with_lock_file(bake(), tmp_path, "python-dotenv==1.1.0")

    unlocked.run("sh", "-ec", script, PATH=path)
    assert unlocked.read("installed") == "-m pip install -e . --group dev\n"

    locked.run("sh", "-ec", script, PATH=path, **uv_variables())
    _, *installed = locked.read("installed").splitlines()
    assert installed == [
        "-m pip install --requirement requirements.txt",
        "-m pip install --no-deps -e .",
    ]
    assert "\npython-dotenv==1.1.0 \\\n    --hash=sha256:" in locked.read("requirements.txt")
    assert "\npytest==" in locked.read("requirements.txt")

    settings = locked.path / "pyproject.toml"
    settings.write_text(settings.read_text("utf-8").replace('"secure>=2"', '"secure>2"'), "utf-8")
    stale = locked.attempt("sh", "-ec", script, PATH=path, **uv_variables())
    assert stale.returncode != 0
    assert "needs to be updated" in stale.stderr


def test_the_pipeline_builds_an_image_only_with_a_dockerfile(bake: Bake) -> None:
    for ci, name in (("github", ".github/workflows/ci.yml"), ("gitlab", ".gitlab-ci.yml")):
        assert "docker" in bake(ci=ci).read(name)
        assert "docker" not in bake(ci=ci, use_docker=False).read(name)


@pytest.mark.xdist_group("flask processes")
def test_the_commands_of_the_pipeline_pass_in_a_bake(bake: Bake) -> None:
    # Another test runs the pytest command.
    steps = [step.get("run", "") for step in github(bake)["jobs"]["check"]["steps"]]
    commands = [step for step in steps if step.startswith(("ruff", "mypy"))]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        cache = ["--no-cache"] if words[0] == "ruff" else ["--cache-dir", mypy_cache("flask")]
        bake(ci="github").run("python", "-m", *words, *cache)


# The compose file


@pytest.mark.parametrize("endpoint", ["http://localhost:3001", "https://bookstore.logto.app"])
def test_compose_passes_all_required_settings_to_the_app(bake: Bake, endpoint: str) -> None:
    project = bake(logto_endpoint=endpoint, api_resource=API)
    compose = yaml.safe_load(project.read("compose.yaml"))
    passed = compose["services"]["app"]["environment"]
    listed = set(re.findall(r"^([A-Z_]+)=", project.read(".env.example"), re.MULTILINE))
    optional = {"APPLICATION_ROOT", "LOG_FORMAT", "SESSION_IDLE_HOURS", "SESSION_LIFETIME_HOURS"}
    commands = {
        name for name in listed if name.startswith(("LOGTO_M2M", "LOGTO_MANAGEMENT", "AZURE"))
    }
    assert set(passed) == listed - optional - commands
    assert passed["LOGTO_CALLBACK_URL"].startswith("https://localhost:3443/")
    assert passed["SESSION_URL"].startswith("redis://redis:")
    assert passed["LOGTO_APP_SECRET"].startswith("${LOGTO_APP_SECRET:?")


def test_logto_starts_only_with_its_profile(bake: Bake) -> None:
    services = yaml.safe_load(bake().read("compose.yaml"))["services"]
    always = {name for name, service in services.items() if "profiles" not in service}
    assert always == {"proxy", "app", "redis"}
    assert {name for name in services if services[name].get("profiles") == ["logto"]} == {
        "logto",
        "postgres",
    }
    assert services["app"]["deploy"]["replicas"] == 2
    assert services["app"]["read_only"] is True
    # A sign-in waits up to 10 s for Logto. Docker kills a container after 10 s by default.
    assert services["app"]["stop_grace_period"] == "15s"
    for service in services.values():
        assert re.fullmatch(r"[\w/-]+:\d[\w.-]*", service.get("image", "x:1"))


def test_only_the_database_is_in_the_internal_network(bake: Bake) -> None:
    compose = yaml.safe_load(bake().read("compose.yaml"))
    # podman-compose puts a service without networks into the first network of this list.
    assert [*compose["networks"]] == ["default", "database"]
    internal = {name for name, network in compose["networks"].items() if network}
    assert internal == {"database"}
    members = {
        name
        for name, service in compose["services"].items()
        if "database" in service.get("networks", [])
    }
    assert members == {"logto", "postgres"}


@pytest.mark.parametrize("endpoint", ["http://localhost:3001", "https://bookstore.logto.app"])
def test_compose_requires_every_setting_without_a_default(bake: Bake, endpoint: str) -> None:
    text = bake(logto_endpoint=endpoint, api_resource=API).read("compose.yaml")
    assert not re.findall(r"\$\{[A-Z_]+\}", text)
    required = set(re.findall(r"\$\{([A-Z_]+):\?[^}]*\.env\.example", text))
    given = {"LOGTO_ENDPOINT"} if "logto.app" in endpoint else set()
    assert required == given | {"LOGTO_APP_ID", "LOGTO_APP_SECRET", "LOGTO_API_RESOURCE"}


# Stopping the server


class SlowDiscovery(BaseHTTPRequestHandler):
    """A Logto that responds after 1.5 seconds."""

    requested = threading.Event()

    def do_GET(self) -> None:
        self.requested.set()
        threading.Event().wait(1.5)
        host = f"http://{self.headers['Host']}/oidc"
        key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
        names = ("authorization", "token", "userinfo", "end_session")
        document: dict[str, Any] = {"issuer": host, "jwks_uri": f"{host}/jwks"}
        for name in ("response_types", "subject_types", "id_token_signing_alg_values"):
            document[f"{name}_supported"] = ["ES384"]
        document["keys"] = [key.as_dict(private=False)]
        document |= {f"{name}_endpoint": f"{host}/{name}" for name in names}
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_stopping_server_still_responds_to_a_request_in_flight(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    port = free_port()
    logto = ThreadingHTTPServer(("127.0.0.1", 0), SlowDiscovery)
    SlowDiscovery.requested.clear()
    threading.Thread(target=logto.serve_forever, daemon=True).start()
    project = bake(framework=framework)
    dockerfile = dict(instructions(project.read("Dockerfile")))
    command = json.loads(dockerfile["CMD"])
    variables = {
        "GRANIAN_PORT": str(port),
        "LOGTO_ENDPOINT": f"http://127.0.0.1:{logto.server_port}",
        "LOGTO_APP_SECRET": "hush",
        "SESSION_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    }
    locations = []

    def sign_in() -> None:
        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            urllib.request.build_opener(NoRedirect).open(f"http://localhost:{port}/sign-in")
        except urllib.error.HTTPError as redirect:
            locations.append(redirect.headers["Location"])

    with project.start(*command, **variables) as process:
        process.wait_for(f"http://127.0.0.1:{port}/healthz")
        visitor = threading.Thread(target=sign_in)
        visitor.start()
        assert SlowDiscovery.requested.wait(10)
        process.send(signal.SIGTERM)
        visitor.join(20)
        assert process.exit_code() == 0
    logto.shutdown()
    assert [location.split("?")[0].rpartition("/")[2] for location in locations] == [
        "authorization"
    ]
