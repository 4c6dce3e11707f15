"""Static files have the right MIME types, even if other programs changed those of the system."""

import json

import pytest
from conftest import Bake

# On Windows, Python reads the types from the registry, where other programs change them.
TYPES = """
import asyncio, inspect, json, mimetypes

for suffix in (".css", ".svg"):
    mimetypes.add_type("text/plain", suffix)

from app import create_app

async def get(path):
    response = client.get(path)
    return await response if inspect.isawaitable(response) else response

client = create_app().test_client()
responses = [asyncio.run(get(f"/static/{name}")) for name in ("style.css", "icon.svg")]
print(json.dumps([[response.status_code, response.mimetype] for response in responses]))
"""


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_the_types_of_static_files_do_not_come_from_the_system(bake: Bake, framework: str) -> None:
    done = bake(framework=framework).run("python", "-c", TYPES, LOGTO_APP_SECRET="hush")
    assert json.loads(done.stdout) == [[200, "text/css"], [200, "image/svg+xml"]]
