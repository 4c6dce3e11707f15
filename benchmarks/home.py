"""The home page of a signed-in user: the processor time per page, and the pages per second."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from processes import free_port

from . import measure, subjects
from .measure import Section, in_turns, ratio, spread
from .subjects import HERE, INTERFACES, LocalLogto, bake, environment, granian, logto_variables

PACKAGES = subjects.ROOT / "build" / "benchmarks" / "packages"
ROUNDS, PAGES = 60, 50


@dataclass(frozen=True)
class Subject:
    """One app with this page."""

    name: str
    framework: str
    target: str
    variables: dict[str, str]


def subjects_of(folder: Path, redis: str) -> list[Subject]:
    """Return all apps: the bare app, ours, and the app that a Flask developer would build."""
    found = []
    for number, framework in enumerate(INTERFACES):
        name = framework.capitalize()
        urls = {
            "SQLite": f"sqlite:///{folder / f'{framework}.sqlite3'}",
            "Redis": f"{redis}/{number}",
        }
        bare = {"BARE_FRAMEWORK": framework}
        found.append(Subject(f"{name}, the bare page", framework, "bare_app:create_app", bare))
        found += [
            Subject(f"{name}, ours on {store}", framework, "app:create_app", {"SESSION_URL": url})
            for store, url in urls.items()
        ]
    usual = {
        "files": str(folder / "flask-session"),
        "SQLAlchemy": f"sqlite:///{folder / 'flask-session.sqlite3'}",
        "Redis": f"{redis}/9",
    }
    for store, url in usual.items():
        variables = {"USUAL_STORE": store.lower(), "USUAL_URL": url}
        variables["PYTHONPATH"] = f"{HERE}:{PACKAGES}"
        for view in ("async", "sync"):
            name = f"Flask, Flask-Session on {store}" + (", plain view" if view == "sync" else "")
            variables = variables | {"USUAL_VIEW": view}
            found.append(Subject(name, "flask", "usual_app:create_app", variables))
    return found


@contextmanager
def in_one_process(
    subject: Subject, project: Path, cookies: str, variables: dict[str, str]
) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the microseconds of processor time per page."""
    command = [sys.executable, str(HERE / "one_page.py"), subject.target, cookies]
    log = project.parent / f"{subject.name}.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            cwd=project,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
        ) as process,
    ):

        def once() -> float:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{PAGES}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, log.read_text("utf-8")
            return float(line)

        yield once
        assert process.stdin
        process.stdin.close()


def home(folder: Path) -> Section:
    section = Section(
        "The home page of a signed-in user",
        ["app", "microseconds a page", "the bare page, by this", "Flask-Session, by this",
         "with a plain view", "requests/s"],
        notes=NOTES,
    )  # fmt: skip
    projects = {f: bake(folder / f, f"framework={f}", "api_resource=") for f in INTERFACES}
    with ExitStack() as stack:
        redis = stack.enter_context(subjects.redis(folder))
        apps = subjects_of(folder, redis)
        ports = {app.name: free_port() for app in apps}
        callbacks = [f"http://localhost:{port}/callback" for port in ports.values()]
        logto = stack.enter_context(LocalLogto(callbacks))
        costs: dict[str, Callable[[], float]] = {}
        loads: dict[str, Callable[[], float]] = {}
        for app in apps:
            port, project, cookies = ports[app.name], projects[app.framework], ""
            variables = logto_variables(logto.endpoint, port) | app.variables
            variables["BARE_PICTURE"] = f"{logto.endpoint}/avatars/alice.svg"
            interface = INTERFACES[app.framework]
            stack.enter_context(granian(app.target, interface, port, project, **variables))
            if "bare" not in app.name:
                cookies, page = subjects.signed_in(port)
                assert subjects.PAGE_OF_ALICE in page, (app.name, page)
            loads[app.name] = partial(per_second, f"http://localhost:{port}/", cookies)
            costs[app.name] = stack.enter_context(in_one_process(app, project, cookies, variables))
        taken, sent = in_turns(costs, ROUNDS), in_turns(loads)
    for app in apps:
        row = [app.name, spread(taken[app.name]), "", "", "", spread(sent[app.name])]
        for column, (other, target) in enumerate(COMPARED.get(app.name, []), start=2):
            factor = ratio(taken[other], taken[app.name])
            verdict = measure.against(factor, f"at least {target}", factor >= target)
            row[column] = verdict if target else f"{factor:.2f}"
        section.rows.append(row)
    return section


def per_second(url: str, cookies: str) -> float:
    return measure.load(url, cookies).per_second


COMPARED: dict[str, list[tuple[str, float]]] = {
    "Flask, ours on SQLite": [
        ("Flask, the bare page", 0.42),
        ("Flask, Flask-Session on files", 2.8),
        ("Flask, Flask-Session on files, plain view", 0),
    ],
    "Flask, ours on Redis": [
        ("Flask, the bare page", 0),
        ("Flask, Flask-Session on Redis", 1.6),
        ("Flask, Flask-Session on Redis, plain view", 0),
    ],
    "Quart, ours on SQLite": [("Quart, the bare page", 0.55)],
    "Quart, ours on Redis": [("Quart, the bare page", 0)],
}
"""The apps to compare an app with, and the least ratio of their cost to its cost (0: no target)."""

NOTES = [
    "The microseconds are processor time in one process that calls the app as a server does, with "
    "the headers of a browser. The requests per second are those of granian under load, where wrk "
    "uses a part of the same two cores.",
    "The bare page is the framework and the template, without session, headers and log. "
    "Flask-Session stands for the usual parts: the SDK's tutorial with Flask-Session, "
    "Flask-Talisman and a line in the log. Its view is `async def`, as in the tutorial. A "
    "developer who knows the cost of `async def` in Flask writes a plain view; the next column "
    "compares with a plain view.",
    "Earlier targets compared the page under load with the bare page and with the tutorial's app. "
    "But no real app is as bare as the bare page, and the tutorial's app starts an event loop for "
    "each page.",
]
