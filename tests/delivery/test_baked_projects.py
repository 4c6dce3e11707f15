"""A baked project works for a team: its tests pass, its types are correct, and it starts."""

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from answers import Answers
from company_network import UNREACHABLE_PROXY, proxies
from conftest import BARE, FULL, Bake, mypy_cache
from images import uv_variables
from processes import free_port, is_taken


def own_urls(port: int) -> dict[str, str]:
    """Return the variables for an app on this port and a Logto that does not run."""
    return {
        "LOGTO_CALLBACK_URL": f"http://localhost:{port}/callback",
        "LOGTO_ENDPOINT": f"http://localhost:{free_port()}",
    }


@pytest.mark.parametrize("answers", BARE + FULL)
def test_the_tests_of_a_project_pass_even_with_a_proxy_in_the_environment(
    bake: Bake, answers: Answers
) -> None:
    # With this option, Python's warning about an unclosed connection is an error.
    command = ["python", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    bake(**answers).run(*command, **proxies(https=UNREACHABLE_PROXY, http=UNREACHABLE_PROXY))


@pytest.mark.parametrize("answers", BARE + FULL)
def test_the_types_of_a_project_are_correct(bake: Bake, answers: Answers) -> None:
    bake(**answers).run("python", "-m", "mypy", "--cache-dir", mypy_cache(answers["framework"]))


@pytest.mark.parametrize("answers", FULL)
def test_a_project_starts_with_the_command_of_its_framework(bake: Bake, answers: Answers) -> None:
    port = free_port()
    command = [str(answers["framework"]), "run", "--port", str(port)]
    with bake(**answers).start(*command, **own_urls(port)) as process:
        process.wait_for(f"http://localhost:{port}/")
        assert "Sign in" in page(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("answers", FULL)
def test_the_app_listens_on_the_host_and_port_of_its_callback(
    bake: Bake, answers: Answers, host: str
) -> None:
    port = free_port()
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("IPv6 is off. To enable: sysctl net.ipv6.conf.lo.disable_ipv6=0")
    project = bake(**answers | {"callback_url": f"http://{host}:{port}/callback/"})
    with project.start(str(answers["framework"]), "run") as process:
        process.wait_for(f"http://{host}:{port}/")
        # Neither path redirects to the other: the redirect would use the untrusted Host header.
        for path in ("/callback/", "/callback"):
            assert httpx2.get(f"http://{host}:{port}{path}", timeout=10).status_code == 400


@pytest.mark.parametrize("answers", FULL)
def test_a_project_starts_on_granian(bake: Bake, answers: Answers) -> None:
    port = free_port()
    interface = {"flask": "wsgi", "quart": "asgi"}[str(answers["framework"])]
    command = ["granian", "--interface", interface, "--factory", "--port", str(port)]
    with bake(**answers).start(*command, "app:create_app", **own_urls(port)) as process:
        process.wait_for(f"http://localhost:{port}/")
        assert "Sign in" in page(port)


@pytest.mark.parametrize("answers", FULL)
def test_ctrl_c_ends_the_app_and_the_local_logto(bake: Bake, answers: Answers) -> None:
    port, logto_port = free_port(), free_port()
    command = ["-m", "dev", "--port", str(port), "--logto-port", str(logto_port)]
    with bake(**answers).start("python", *command) as process:
        process.wait_for(f"http://localhost:{port}/")
        process.wait_for(f"http://localhost:{logto_port}/oidc/.well-known/openid-configuration")
        process.press_ctrl_c()
        process.exit_code()
        assert not is_taken(port)
        assert not is_taken(logto_port)
        assert "Traceback" not in process.output


@pytest.mark.parametrize("answers", FULL)
def test_a_fresh_clone_without_an_env_file_runs_at_once(
    bake: Bake, answers: Answers, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(bake(**answers).path, clone, ignore=shutil.ignore_patterns(".env", "instance"))
    port = free_port()
    command = ["-m", "dev", "--port", str(port), "--logto-port", str(free_port())]
    with replace(bake(**answers), path=clone).start("python", *command) as process:
        process.wait_for(f"http://localhost:{port}/")
        assert "copy of .env.example" in process.output
    assert (clone / ".env").read_bytes() == (clone / ".env.example").read_bytes()
    # A team writes secrets into this file, so only its owner may read it.
    assert oct((clone / ".env").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("taken", ["--port", "--logto-port"])
@pytest.mark.parametrize("answers", FULL)
def test_the_message_for_a_taken_port_names_the_port_and_the_option(
    bake: Bake, answers: Answers, taken: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ports = {"--port": str(free_port()), "--logto-port": str(free_port()), taken: str(port)}
        arguments = [word for pair in ports.items() for word in pair]
        done = bake(**answers).attempt("python", "-m", "dev", *arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(rf"\b{port}\b", output)
    assert taken in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("answers", [each for each in FULL if str(each.id).startswith("quart")])
def test_a_project_names_all_packages_that_it_needs(
    bake: Bake, answers: Answers, tmp_path: Path
) -> None:
    # The environment of the other tests has the packages of both frameworks, so it hides a
    # missing requirement. This test finds it for Quart, and the workshop's test for Flask.
    # `make test-newest` installs projects of both frameworks with pip.
    project = bake(**answers)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    python = str(tmp_path / "bin/python")
    pip = ["uv", "pip", "install", "--quiet", "--python", python]
    project.run(*pip, "-e", ".", "--group", "dev", **uv_variables())
    # Import all tests of the project, but run only a few: another test runs them all.
    few = project.run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "sign_in")
    assert " passed" in few.stdout
    # The installation adds the `logto` command, which works without a valid configuration.
    command = str(tmp_path / "bin" / str(answers["framework"]))
    checked = project.attempt(command, "logto", "check", "--json", LOGTO_APP_SECRET="")
    assert json.loads(checked.stdout)["checks"][0]["name"] == "configuration"


def page(port: int) -> str:
    """Return the home page of the app on this port."""
    with urllib.request.urlopen(f"http://localhost:{port}/", timeout=10) as response:
        text: str = response.read().decode()
    return text
