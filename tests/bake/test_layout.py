"""The layers of a generated project: their sizes, and the direction of their imports."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from answers import everything
from conftest import Bake, BakedProject

FRAMEWORKS = ("flask", "quart")
LARGEST = {"app": 2250, "logto_setup": 880, "dev": 1500}
LAYERS = {"config": 0, "server": 1, "auth": 2, "pages": 3, "api": 3, "__init__": 4}

SIGN_IN = """
import json, pathlib, sys, threading

from conftest import CALLBACK, HOME, Auth
from app import create_app
from app.config import Config
from dev.local_logto import LocalLogto

ROOT = str(pathlib.Path("app").resolve())
seen = set()


def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(ROOT) and code.co_name[0] != "<":
        seen.add((code.co_filename, code.co_qualname))


def watched(app):
    threading.setprofile(note)
    sys.setprofile(note)
    return Auth(app.test_client())


with LocalLogto(
    app_id="test-app", redirect_uris=[CALLBACK], post_logout_redirect_uris=[HOME]
) as logto:
    app = create_app(
        Config(
            LOGTO_ENDPOINT=logto.endpoint,
            LOGTO_APP_ID="test-app",
            LOGTO_APP_SECRET="secret",
            LOGTO_CALLBACK_URL=CALLBACK,
            SESSION_URL=sys.argv[1],
        )
    )
    if "flask" in sys.modules and type(app).__module__.startswith("flask"):
        response = watched(app).sign_in()
    else:
        import asyncio
        response = asyncio.run(watched(app).sign_in())
    sys.setprofile(None)
    threading.setprofile(None)
assert response.headers["Location"] == "/", response.status
print(json.dumps([len(seen), len({file for file, _ in seen}), sorted(name for _, name in seen)]))
"""


def bare(bake: Bake, framework: str) -> BakedProject:
    """Bake a framework without any option."""
    (answers,) = [one for one in everything(on=False) if one["framework"] == framework]
    return bake(**answers)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_folder_has_too_many_lines(bake: Bake, framework: str) -> None:
    contents = bare(bake, framework).contents
    for folder, limit in LARGEST.items():
        python = [
            t for n, t in contents.items() if n.startswith(f"{folder}/") and n.endswith(".py")
        ]
        assert sum(text.count(b"\n") for text in python) <= limit, folder


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_sign_in_runs_few_functions_in_few_files(
    bake: Bake, framework: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    project = bare(bake, framework)
    done = project.run("python", "-c", SIGN_IN, url, PYTHONPATH="tests")
    functions, files, names = json.loads(done.stdout.splitlines()[-1])
    assert functions <= 50, names
    assert files <= 10, names


def imports(path: Path, root: Path) -> Iterator[str]:
    """Return every module of the project that a file imports, such as `app.server.errors`."""
    package = list(path.relative_to(root).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                below = root.joinpath(*name.split("."), alias.name)
                is_module = below.with_suffix(".py").exists() or below.is_dir()
                yield f"{name}.{alias.name}" if is_module else name


def layer_of(module: str) -> int:
    """Return the layer of a module of the app. `app` itself, with `create_app`, is the highest."""
    parts = module.split(".")
    return LAYERS[parts[1] if len(parts) > 1 else "__init__"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_imports_run_one_way(bake: Bake, framework: str) -> None:
    (answers,) = [one for one in everything(on=True) if one["framework"] == framework]
    root = bake(**answers).path
    for path in (root / "app").rglob("*.py"):
        layer = layer_of(".".join(path.relative_to(root).with_suffix("").parts))
        for module in imports(path, root):
            assert not module.startswith(("dev", "logto_setup")), path
            if module.split(".")[0] == "app":
                # Modules of `auth` may import each other, and so may modules of `server`.
                imported = layer_of(module)
                assert imported < layer or imported == layer in (1, 2), (path, module)


@pytest.mark.parametrize("folder", ["app", "dev", "logto_setup"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_modules_import_each_other(bake: Bake, framework: str, folder: str) -> None:
    (answers,) = [one for one in everything(on=True) if one["framework"] == framework]
    root = bake(**answers).path
    graph = {}
    for path in (root / folder).rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {module for module in imports(path, root) if module.startswith(folder)}
    # Leave packages out: a package imports its modules, and `from . import x` names the package.
    packages = {name for name in graph if (root / name.replace(".", "/")).is_dir()}
    while removable := {
        name for name, needed in graph.items() if not needed & (graph.keys() - packages)
    }:
        for name in removable:
            del graph[name]
    assert not graph, f"these modules import each other: {sorted(graph)}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_object_hides_a_module(bake: Bake, framework: str) -> None:
    (answers,) = [one for one in everything(on=True) if one["framework"] == framework]
    project = bake(**answers)
    script = """
import importlib, pathlib, types
for path in [*pathlib.Path("app").rglob("*.py"), *pathlib.Path("logto_setup").rglob("*.py")]:
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    assert isinstance(importlib.import_module(name), types.ModuleType)
    package, _, module = name.rpartition(".")
    if package:
        found = getattr(importlib.import_module(package), module)
        assert isinstance(found, types.ModuleType), name
"""
    project.run("python", "-c", script)
