"""An app that has only the home page of a bake: same framework, same template, no session.

The user of the page never changes. Run this app in a bake, because it uses the template there.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def create_app() -> Any:
    """Build the app with the framework in BARE_FRAMEWORK."""
    framework: Any = __import__(os.environ["BARE_FRAMEWORK"])
    kind = getattr(framework, os.environ["BARE_FRAMEWORK"].capitalize())
    app = kind("app", root_path=str(Path.cwd() / "app"))
    picture = os.environ["BARE_PICTURE"]
    user = SimpleNamespace(display_name="Alice Archer", initial="A", picture=picture)
    page = {"app_name": "Bookstore", "current_user": user}

    def home() -> Any:
        return framework.render_template("home.html", **page)

    async def home_on_the_loop() -> Any:
        return await home()

    view = home_on_the_loop if kind.__name__ == "Quart" else home
    app.add_url_rule("/", endpoint="pages.home", view_func=view)
    # The page has links to these views.
    for name in ("auth.sign_in", "auth.sign_out", "auth.sign_up", "pages.profile"):
        app.add_url_rule(f"/{name}", endpoint=name, view_func=home)
    return app
