"""The report of `logto check` about a Redis that may drop sessions or is a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Bake
from logto_commands import Commands, commands
from redis_servers import connect, redis_cluster
from sites import redis_server

pytestmark = [
    pytest.mark.xdist_group("check of redis"),
    pytest.mark.parametrize("logto", ["flask", "quart"], indirect=True),
]


@pytest.fixture(scope="module")
def logto(
    request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Commands]:
    with commands(bake(framework=request.param), tmp_path_factory.mktemp("redis")) as started:
        yield started


def test_a_redis_that_may_drop_sessions_is_named(logto: Commands, tmp_path: Path) -> None:
    with redis_server(tmp_path, "--maxmemory-policy", "volatile-lru") as (port, _):
        url = f"redis://localhost:{port}/0"
        row = logto.check(SESSION_URL=url).checks["session_store"]
        assert row["ok"]
        assert "maxmemory-policy to noeviction" in row["found"]
        connect(port).config_set("maxmemory-policy", "noeviction")
        assert logto.check(SESSION_URL=url).checks["session_store"]["found"] == "redis"


def test_a_redis_user_without_permission_for_info_passes_the_check(
    logto: Commands, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as (port, _):
        connect(port).acl_setuser(
            "app", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"]
        )
        row = logto.check(SESSION_URL=f"redis://app:pw@localhost:{port}/0").checks["session_store"]
    assert (row["ok"], row["found"]) == (True, "redis")


def test_a_cluster_needs_a_cluster_url_for_each_of_its_servers(
    logto: Commands, tmp_path: Path
) -> None:
    with redis_cluster(tmp_path) as servers:
        for port in servers:
            row = logto.check(SESSION_URL=f"redis://localhost:{port}").checks["session_store"]
            assert row["ok"] is False
            assert "redis+cluster:// or rediss+cluster://" in row["found"]
            url = f"redis+cluster://localhost:{port}"
            assert logto.check(SESSION_URL=url).checks["session_store"]["found"] == "redis+cluster"
        # The last server may drop sessions.
        connect(port).config_set("maxmemory-policy", "allkeys-lru")
        row = logto.check(SESSION_URL=url).checks["session_store"]
        assert "maxmemory-policy to noeviction" in row["found"]
