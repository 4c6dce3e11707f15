"""What takes a bake into production: image, compose file, pipelines, hooks for git."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from answers import ROOT, every_combination
from conftest import Bake, BakedProject, environment, types_cache
from joserfc.jwk import ECKey
from processes import Process, free_port, running

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
VARIABLES = {
    "LOGTO_ENDPOINT": "https://bookstore.logto.app",
    "LOGTO_APP_ID": "bookstore",
    "LOGTO_APP_SECRET": "hush-hush",
    "LOGTO_CALLBACK_URL": "https://bookstore.example/callback",
}


def tool(*command: str, cwd: Path) -> None:
    """Run a linter. Raises AssertionError with what it says against the project."""
    env = environment()
    path = shutil.which(command[0], path=env["PATH"])
    assert path, f"there is no {command[0]}"
    done = subprocess.run(
        [path, *command[1:]],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


# What the published schemas and linters say


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


def test_the_files_are_there_when_they_are_asked_for(bake: Bake) -> None:
    docker = {"Dockerfile", ".dockerignore", "compose.yaml", "Caddyfile"}
    github = {".github/workflows/ci.yml", ".github/dependabot.yml"}
    gitlab = {".gitlab-ci.yml", "renovate.json"}
    for answers, there in (
        ({"ci": "github", "use_docker": True}, docker | github),
        ({"ci": "gitlab", "use_docker": False}, gitlab),
        ({"ci": "none", "use_docker": False}, set()),
    ):
        names = set(bake(**answers).contents)
        assert names & (docker | github | gitlab) == there
        assert ".pre-commit-config.yaml" in names


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_hadolint_has_nothing_against_the_dockerfile(bake: Bake, framework: str) -> None:
    tool("hadolint", "Dockerfile", cwd=bake(framework=framework).path)


def test_the_proxy_accepts_its_configuration(bake: Bake) -> None:
    tool("caddy", "validate", "--config", "Caddyfile", cwd=bake().path)


def test_docker_compose_accepts_its_configuration(bake: Bake) -> None:
    for compose in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(compose[0]):
            asked = subprocess.run([*compose, "version"], capture_output=True)
            if asked.returncode == 0:
                tool(*compose, "--profile", "logto", "config", "--quiet", cwd=bake().path)
                return
    pytest.skip("no docker compose here; to get it: apt-get install docker-compose")


# The pipelines


def github(bake: Bake) -> dict[str, Any]:
    pipeline: dict[str, Any] = yaml.safe_load(bake(ci="github").read(".github/workflows/ci.yml"))
    return pipeline


def test_every_action_is_pinned_to_a_commit_and_says_its_version(bake: Bake) -> None:
    used = re.findall(r"uses: (.*)", bake(ci="github").read(".github/workflows/ci.yml"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_the_pipeline_on_github_may_read_and_nothing_else(bake: Bake) -> None:
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
        line.split(" ")[-1] if "=" in line else line for line in gitlab
    ]


def test_an_image_is_built_only_where_there_is_a_dockerfile(bake: Bake) -> None:
    for ci, name in (("github", ".github/workflows/ci.yml"), ("gitlab", ".gitlab-ci.yml")):
        assert "docker" in bake(ci=ci).read(name)
        assert "docker" not in bake(ci=ci, use_docker=False).read(name)


@pytest.mark.xdist_group("flask processes")
def test_the_commands_of_the_pipeline_pass_in_a_bake(bake: Bake) -> None:
    # Its pytest has a test of its own.
    steps = [step.get("run", "") for step in github(bake)["jobs"]["check"]["steps"]]
    commands = [step for step in steps if step.startswith(("ruff", "mypy"))]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        cache = ["--no-cache"] if words[0] == "ruff" else ["--cache-dir", types_cache("flask")]
        bake(ci="github").run("python", "-m", *words, *cache)


# The hooks for git


@pytest.mark.xdist_group("flask processes")
def test_the_hooks_for_git_run_the_projects_own_tools(bake: Bake) -> None:
    config = yaml.safe_load(bake().read(".pre-commit-config.yaml"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "mypy"]
    for hook in hooks:
        words = [word for word in shlex.split(hook["entry"]) if word != "--fix"]
        files = [] if hook.get("pass_filenames") is False else ["app/__init__.py"]
        cache = ["--cache-dir", types_cache("flask")] if "mypy" in words else ["--no-cache"]
        bake().run(*words, *cache, *files)


# The compose file


@pytest.mark.parametrize("endpoint", ["http://localhost:3001", "https://bookstore.logto.app"])
def test_the_app_in_compose_is_told_all_that_it_needs(bake: Bake, endpoint: str) -> None:
    project = bake(logto_endpoint=endpoint, api_resource=API)
    compose = yaml.safe_load(project.read("compose.yaml"))
    told = compose["services"]["app"]["environment"]
    wanted = set(re.findall(r"^([A-Z_]+)=", project.read(".env.example"), re.MULTILINE))
    optional = {"LOG_FORMAT", "SESSION_IDLE_HOURS", "SESSION_LIFETIME_HOURS"}
    commands = {
        name for name in wanted if name.startswith(("LOGTO_M2M", "LOGTO_MANAGEMENT", "AZURE"))
    }
    assert set(told) == wanted - optional - commands
    assert told["LOGTO_CALLBACK_URL"].startswith("https://localhost:3443/")
    assert told["SESSION_URL"].startswith("redis://redis:")
    assert "SECRET}" in told["LOGTO_APP_SECRET"]


def test_only_the_profile_starts_a_logto(bake: Bake) -> None:
    services = yaml.safe_load(bake().read("compose.yaml"))["services"]
    always = {name for name, service in services.items() if "profiles" not in service}
    assert always == {"proxy", "app", "redis"}
    assert {name for name in services if services[name].get("profiles") == ["logto"]} == {
        "logto",
        "postgres",
    }
    assert services["app"]["deploy"]["replicas"] == 2
    assert services["app"]["read_only"] is True
    for service in services.values():
        assert re.fullmatch(r"[\w/-]+:\d[\w.-]*", service.get("image", "x:1"))


# The image: no engine is needed to do what its Dockerfile says


@dataclass
class Stage:
    """A stage of the image: a folder for its root, and what the Dockerfile has set."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def within(self, text: str) -> str:
        """The text with the image's own paths led into its folder."""
        return re.sub(r"(?<![\w/.])(///)?/(venv|build|data|srv)\b", rf"\1{self.root}/\2", text)

    def path(self, path: str) -> Path:
        """Where a path of the image is here."""
        return Path(self.root, os.path.join(self.workdir, path).lstrip("/"))  # noqa: PTH118

    def environment(self, **variables: str) -> dict[str, str]:
        own = {name: self.within(value) for name, value in self.env.items()}
        path = os.pathsep.join([own.pop("PATH", "").removesuffix(":$PATH"), os.defpath])
        # Only what brings pip to its packages is taken from here.
        kept = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "HTTP"))}
        return {**kept, "PATH": path, "HOME": "/nowhere", **own, **variables}


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, without comments, each on one line."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def copied(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def built(project: BakedProject, folder: Path) -> Stage:
    """Do what the Dockerfile says, with this machine's Python in the place of the image's."""
    context = folder / "context"
    sent = project.read(".dockerignore").splitlines()
    assert next(line for line in sent if not line.startswith("#")) == "*"
    for line in sent:
        if line.startswith("!"):
            copied(project.path / line[1:], context / line[1:])
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(project.read("Dockerfile")):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "image"
            stage = stages[name] = Stage(folder / name)
            stage.root.mkdir()
        elif word == "WORKDIR":
            stage.workdir = rest
            stage.path(".").mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "COPY" and rest.startswith("--from="):
            origin, source, target = rest.removeprefix("--from=").split()
            # A virtual environment knows where it is, so here it stays where it was made.
            stage.path(target).parent.mkdir(parents=True, exist_ok=True)
            stage.path(target).symlink_to(stages[origin].path(source))
        elif word == "COPY":
            source, target = rest.split()
            copied(context / source, stage.path(target))
        elif word == "RUN":
            mine = stage.within(rest)
            if not is_root():
                mine = re.sub(r"--(owner|group) \d+", "", mine)
            mine = re.sub(r"^python -m venv", f"{sys.executable} -m venv --without-pip", mine)
            # By a pip that is there already and keeps what it has downloaded: a third of the time.
            pip = f"{sys.executable} -m pip --python {stage.path('/venv/bin/python')}"
            mine = mine.replace("pip install --no-cache-dir", f"{pip} install -q --no-compile")
            env = stage.environment(HOME=str(Path.home()))
            subprocess.run(["sh", "-ec", mine], cwd=stage.path("."), env=env, check=True)
        elif word == "USER":
            stage.user = rest
        elif word == "VOLUME":
            stage.volumes = rest.split()
        elif word == "HEALTHCHECK":
            stage.healthcheck = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "CMD":
            stage.cmd = json.loads(rest)
        else:
            assert word == "EXPOSE", word
    return stages["image"]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def image(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Stage:
    return built(bake(framework=request.param), tmp_path_factory.mktemp("image"))


# Everything is read-only but the volume, which is $0, and the user may read it all: what the
# image holds is not in a place of its own here.
CONFINED = """
mount --bind "$0" "$0"
mount -o remount,bind,ro /
exec setpriv --reuid {0} --regid {1} --clear-groups \\
    --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search -- "$@"
"""


def confined(stage: Stage) -> list[str]:
    """What runs a command as the image's user, where that is allowed; else nothing."""
    volume = str(stage.path(*stage.volumes))
    script = CONFINED.format(*stage.user.split(":"))
    words = ["unshare", "--mount", "sh", "-ec", script, volume]
    if not is_root() or not shutil.which("setpriv"):
        return []
    tried = subprocess.run([*words, "test", "-w", volume], capture_output=True)
    return [] if tried.returncode else words


@contextmanager
def started(stage: Stage, port: int, **variables: str) -> Iterator[Process]:
    """Start the image's CMD on a port of this machine."""
    command = [word.replace("3000", str(port)) for word in stage.cmd]
    env = stage.environment(**VARIABLES, **variables)
    command[0] = shutil.which(command[0], path=env["PATH"]) or command[0]
    with running([*confined(stage), *command], stage.path("."), env) as process:
        process.wait_for(f"http://127.0.0.1:{port}/healthz")
        yield process


def files(root: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_holds_the_app_and_its_packages_only(image: Stage) -> None:
    assert {path.name for path in image.root.iterdir()} == {"venv", "srv", "data"}
    assert {path.name for path in image.path(".").iterdir()} == {"app"}
    packages = {path.name for path in image.path("/venv").glob("lib/*/site-packages/*")}
    assert "granian" in packages
    assert not packages & {"pytest", "mypy", "ruff", "joserfc"}
    assert image.user.split(":")[0].isdigit()
    assert not [name for name in image.env if "SECRET" in name]


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_serves_stays_healthy_and_writes_to_its_volume_only(image: Stage) -> None:
    port = free_port()
    before = files(image.path("/srv")) | files(image.path("/venv"))
    assert image.volumes == ["/data"]
    with started(image, port) as process:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert b"Sign in" in answer.read()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        no_websocket = urllib.request.Request(f"http://127.0.0.1:{port}/readyz", headers=handshake)
        urllib.request.urlopen(no_websocket).close()  # noqa: S310
        check = [word.replace("3000", str(port)) for word in image.healthcheck]
        program = str(image.path("/venv/bin") / check[0])
        subprocess.run([program, *check[1:]], env=image.environment(), check=True)
        process.send(signal.SIGTERM)
        assert process.exit_code() == 0
        lines = [json.loads(line) for line in process.output.splitlines()]
    assert "exception" not in [name for line in lines for name in line]
    assert "/healthz" in [line.get("path") for line in lines]
    assert files(image.path("/srv")) | files(image.path("/venv")) == before
    assert list(image.path("/data").glob("sessions.sqlite3*"))
    assert subprocess.run([program, *check[1:]], capture_output=True).returncode != 0


# Stopping


class SlowDiscovery(BaseHTTPRequestHandler):
    """A Logto that takes its time."""

    asked = threading.Event()

    def do_GET(self) -> None:
        self.asked.set()
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
def test_a_request_in_flight_is_answered_when_the_server_is_told_to_stop(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    port = free_port()
    logto = ThreadingHTTPServer(("127.0.0.1", 0), SlowDiscovery)
    SlowDiscovery.asked.clear()
    threading.Thread(target=logto.serve_forever, daemon=True).start()
    project = bake(framework=framework)
    dockerfile = dict(instructions(project.read("Dockerfile")))
    command = [word.replace("3000", str(port)) for word in json.loads(dockerfile["CMD"])]
    variables = {
        "LOGTO_ENDPOINT": f"http://127.0.0.1:{logto.server_port}",
        "LOGTO_APP_SECRET": "hush",
        "SESSION_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
    }
    locations = []

    def sign_in() -> None:
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            urllib.request.build_opener(Stay).open(f"http://localhost:{port}/sign-in")
        except urllib.error.HTTPError as redirect:
            locations.append(redirect.headers["Location"])

    with project.start(*command, **variables) as process:
        process.wait_for(f"http://127.0.0.1:{port}/healthz")
        visitor = threading.Thread(target=sign_in)
        visitor.start()
        assert SlowDiscovery.asked.wait(10)
        process.send(signal.SIGTERM)
        visitor.join(20)
        assert process.exit_code() == 0
    logto.shutdown()
    assert [location.split("?")[0].rpartition("/")[2] for location in locations] == [
        "authorization"
    ]
