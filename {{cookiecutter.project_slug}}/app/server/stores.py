{% filter replace("async ", cookiecutter.__async) %}
{% filter replace("await ", cookiecutter.__await) %}
"""The session stores: SQLite for one machine, Redis for several machines.

Both stores keep a session as JSON, with the framework's tags for `datetime`, `UUID` and others,
until its time to live ends. All methods can raise `StoreUnavailable`. All times are in seconds.
"""

{% if cookiecutter.__async %}
import asyncio
{% endif %}
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

{% if cookiecutter.__async %}
from quart.sessions import session_json_serializer as tagged
from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
{% else %}
from flask.sessions import session_json_serializer as tagged
from redis import BlockingConnectionPool, Redis, RedisCluster, exceptions
{% endif %}
from redis.backoff import NoBackoff
{% if not cookiecutter.__async %}
from redis.retry import Retry
{% endif %}

TIME_LIMIT = 3.0  # Seconds to wait for a locked file, or for Redis.
CONNECTIONS = 50  # The most connections of one process to Redis.
IS_CLUSTER = "this Redis is a cluster: begin SESSION_URL with redis+cluster:// or rediss+cluster://"
APP = "{{ cookiecutter.project_slug }}"
Index = Mapping[str, str | None]
"""The values by which `delete_all` finds a session: `sub` (user) and `sid` (provider's session)."""


class StoreUnavailable(Exception):
    """The session store cannot be reached, read or written."""


class StoreFull(StoreUnavailable):
    """Redis has no memory for new data. Redis can still delete data."""


def _loads(text: str) -> Any:
    # All tags begin with a space. For a text without tags, `tagged` takes three times as long.
    return tagged.loads(text) if '{" ' in text else json.loads(text)


class SQLiteStore:
    """Sessions in one SQLite file, which several processes may share."""

    SCHEMA = """
        CREATE TABLE IF NOT EXISTS sessions (
            key TEXT PRIMARY KEY, data TEXT NOT NULL, expires_at REAL NOT NULL, sub TEXT, sid TEXT
        );
        CREATE INDEX IF NOT EXISTS sessions_by_expiry ON sessions (expires_at);
        CREATE INDEX IF NOT EXISTS sessions_by_sub ON sessions (sub) WHERE sub IS NOT NULL;
        CREATE INDEX IF NOT EXISTS sessions_by_sid ON sessions (sid) WHERE sid IS NOT NULL;
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self._prefix = prefix
        {% if cookiecutter.__async %}
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1)  # SQLite has one writer at a time.
        {% else %}
        self._idle: list[sqlite3.Connection] = []
        {% endif %}

    async def load(self, key: str) -> dict[str, Any] | None:
        """Return the session under the key, or None if there is none or it has expired."""
        found = "SELECT data FROM sessions WHERE key = ? AND expires_at > ?"
        rows = await self._execute(found, self._prefix + key, time.time())
        return _loads(rows[0][0]) if rows else None

    async def create(self, key: str, data: dict[str, Any], ttl: int, index: Index) -> None:
        """Save a new session for `ttl` seconds. `delete_all` finds the session by `index`."""
        key, now, text = self._prefix + key, time.time(), tagged.dumps(data)
        row = (key, text, now + ttl, index.get("sub"), index.get("sid"))
        await self._execute("REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", *row)
        # Delete only some expired rows at a time, so that the write lock is held for a short time.
        old = "SELECT rowid FROM sessions WHERE expires_at <= ? LIMIT 100"
        await self._execute(f"DELETE FROM sessions WHERE rowid IN ({old})", now)

    async def update(self, key: str, changed: dict[str, Any], removed: list[str]) -> None:
        """Set and remove these entries in one step. Do nothing if the session has ended."""
        merged = "UPDATE sessions SET data = merged(data, ?, ?) WHERE key = ?"
        changes = (tagged.dumps(changed), tagged.dumps(removed))
        await self._execute(merged, *changes, self._prefix + key)

    async def delete(self, key: str) -> bool:
        """Delete a session or a lock. Return whether it existed: of two calls, one returns True."""
        ended = "DELETE FROM sessions WHERE key = ?"
        return bool(await self._execute(ended, self._prefix + key))

    async def delete_all(self, index: Index) -> int:
        """End all sessions with this `sid`, and those of this `sub` that have no `sid`. Without a
        `sid`, end all sessions of this `sub`. Return how many sessions have ended."""
        sid, sub = index.get("sid"), index.get("sub")
        which = "(sid = ?2 OR (sub = ?3 AND sid IS NULL))" if sid else "sub = ?3"
        ended = f"DELETE FROM sessions WHERE {which} AND key LIKE ?1"
        return int(await self._execute(ended, f"{self._prefix}%", sid, sub))

    async def lock(self, key: str, ttl: int) -> bool:
        """Take a lock for `ttl` seconds, or until `delete`. Return False if it is already taken."""
        taken = """INSERT INTO sessions VALUES (?1, '', ?2 + ?3, NULL, NULL) ON CONFLICT (key)
            DO UPDATE SET expires_at = excluded.expires_at WHERE expires_at <= ?2"""
        return bool(await self._execute(taken, self._prefix + key, time.time(), ttl))

    async def ping(self) -> None:
        """Check that the store can be written."""
        # SQLite writes nothing if a statement changes no row.
        await self._execute("REPLACE INTO sessions VALUES ('ping', '', 0, NULL, NULL)")

    async def close(self) -> None:
        """Close all connections."""
        {% if cookiecutter.__async %}
        self._thread.shutdown()
        for connection in filter(None, [self._reader, self._writer]):
            connection.close()
        {% else %}
        while self._idle:
            self._idle.pop().close()
        {% endif %}

    {% if cookiecutter.__async %}
    async def _execute(self, sql: str, *values: Any) -> Any:
        """Run one statement as a transaction. Return the rows, or the number of changed rows."""
        # With write-ahead logging, a read never waits. In a thread it would take ten times as long.
        if sql.startswith("SELECT"):
            with suppress(sqlite3.Error):
                self._reader = self._reader or sqlite3.connect(
                    f"{self.path.as_uri()}?mode=rw", timeout=0, isolation_level=None, uri=True
                )
                return self._reader.execute(sql, values).fetchall()
        # Use a thread for writes and for refused reads, because these may wait for a lock.
        try:
            async with asyncio.timeout(TIME_LIMIT + 1):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._run, sql, values)
        except (sqlite3.Error, OSError) as error:
            # Drop the connections: if the file was replaced, they still use the old file.
            self._reader = self._writer = None
            reason = str(error) or "too many requests wait for this file"
            raise StoreUnavailable(f"{self.path}: {reason}") from error

    def _run(self, sql: str, values: tuple[Any, ...]) -> Any:
        writer = self._writer = self._writer or self._connect()
        cursor = writer.execute(sql, values)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    {% else %}
    def _execute(self, sql: str, *values: Any) -> Any:
        """Run one statement as a transaction. Return the rows, or the number of changed rows."""
        connection = None
        try:
            with suppress(IndexError):
                connection = self._idle.pop()
            connection = connection or self._connect()
            cursor = connection.execute(sql, values)
            result = cursor.fetchall() if cursor.description else cursor.rowcount
        except (sqlite3.Error, OSError) as error:
            if connection:
                connection.close()
            raise StoreUnavailable(f"{self.path}: {error}") from error
        self._idle.append(connection)
        return result

    {% endif %}
    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            # The file holds refresh tokens. SQLite copies its mode to the `-wal` and `-shm` files.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, timeout=TIME_LIMIT, isolation_level=None, check_same_thread=False
        )
        # With write-ahead logging, readers do not wait for writers, and a killed process loses
        # nothing. If several processes create the file at once, only one can set this mode.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")  # Overwrite deleted tokens.
        connection.executescript(self.SCHEMA)
        connection.create_function("merged", 3, _merged, deterministic=True)
        return connection


def _merged(data: str, changed: str, removed: str) -> str:
    entries = tagged.loads(data) | tagged.loads(changed)
    for name in tagged.loads(removed):
        entries.pop(name, None)
    return tagged.dumps(entries)


class RedisStore:
    """Sessions in Redis, one hash per session. The class has the methods of SQLiteStore."""

    # KEYS[1]: the session. ARGV[1]: the number of names and values to set, which follow. The
    # other arguments are the names to remove.
    UPDATE = """
        if redis.call('EXISTS', KEYS[1]) == 0 then return end
        local set = tonumber(ARGV[1])
        for i = 2, set, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
        for i = set + 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url.replace("+cluster:", ":", 1)
        self._prefix = prefix
        self._cluster = self._url != url
        # Try again once: the server may have closed an idle connection, or have become a replica.
        again = Retry(NoBackoff(), 1, (exceptions.ConnectionError, exceptions.ReadOnlyError))
        self.options: dict[str, Any] = {"retry": again, "decode_responses": True}
        self.options |= {"socket_timeout": TIME_LIMIT, "socket_connect_timeout": TIME_LIMIT}
        self.options["max_connections"] = CONNECTIONS
        {% if cookiecutter.__async %}
        self._turns = asyncio.Semaphore(CONNECTIONS)
        {% else %}
        self._threads = ThreadPoolExecutor(CONNECTIONS)
        {% endif %}

    @cached_property
    def _redis(self) -> Any:
        """The client, created at the first use: a client for a cluster may connect immediately."""
        if self._cluster:
            return RedisCluster.from_url(self._url, **self.options)
        {% if cookiecutter.__async %}
        return Redis.from_url(self._url, **self.options)
        {% else %}
        # If all connections are in use, a request waits for a free connection and does not fail.
        pool: Any = BlockingConnectionPool.from_url(self._url, timeout=TIME_LIMIT, **self.options)
        return Redis.from_pool(pool)
        {% endif %}

    async def load(self, key: str) -> dict[str, Any] | None:
        entries = await self._call("hgetall", self._name("session", key))
        return {name: _loads(value) for name, value in entries.items()} or None

    async def create(self, key: str, data: dict[str, Any], ttl: int, index: Index) -> None:
        name, now = self._name("session", key), time.time()
        sub, sid = index.get("sub"), index.get("sid")
        kinds = {"sub": sub, "sid" if sid else "no-sid": sid or sub}

        def save() -> Any:
            pipeline = self._redis.pipeline(transaction=not self._cluster)
            for kind, value in kinds.items() if sub else ():
                index_name = self._name(kind, value)
                pipeline.zremrangebyscore(index_name, 0, now)
                pipeline.zadd(index_name, {name: now + ttl})
                pipeline.expire(index_name, ttl)
            pipeline.hset(name, mapping={k: tagged.dumps(v) for k, v in data.items()})
            pipeline.expire(name, ttl)
            return pipeline.execute()

        await self._run(save)

    async def update(self, key: str, changed: dict[str, Any], removed: list[str]) -> None:
        values = [text for item in changed.items() for text in (item[0], tagged.dumps(item[1]))]
        args = [self._name("session", key), len(values), *values, *removed]
        await self._call("eval", self.UPDATE, 1, *args)

    async def delete(self, key: str) -> bool:
        return bool(await self._call("delete", self._name("session", key)))

    async def delete_all(self, index: Index) -> int:
        sub, sid, ended = index.get("sub"), index.get("sid"), 0
        for kind, value in {"sid": sid, "no-sid": sub}.items() if sid else [("sub", sub)]:
            index_name = self._name(kind, value)
            for name in await self._call("zrange", index_name, 0, -1):
                ended += await self._call("delete", name)
                await self._call("zrem", index_name, name)
        return ended

    async def lock(self, key: str, ttl: int) -> bool:
        name, owner = self._name("session", key), secrets.token_hex(8)
        if await self._call("set", name, owner, nx=True, ex=ttl):
            return True
        # A first attempt may have taken the lock although its response was lost.
        return bool(await self._call("get", name) == owner)

    async def ping(self) -> None:
        await self._call("set", self._name("ping", secrets.token_hex(4)), "", ex=1)

    async def info(self) -> list[dict[str, Any]]:
        """Return the response to INFO of each Redis server."""
        nodes = {"target_nodes": RedisCluster.PRIMARIES} if self._cluster else {}
        found = await self._call("info", **nodes)
        return [found] if "redis_version" in found else list(found.values())

    async def close(self) -> None:
        if client := vars(self).get("_redis"):
            await client.{{ "aclose" if cookiecutter.__async else "close" }}()

    def _name(self, kind: str, value: str | None) -> str:
        return f"{APP}:{kind}:{self._prefix}{value}"

    async def _call(self, command: str, *args: Any, **options: Any) -> Any:
        return await self._run(lambda: getattr(self._redis, command)(*args, **options))

    async def _run(self, send: Callable[[], Any]) -> Any:
        """Return the result of `send`. The time limit includes the wait for a connection."""
        try:
            {% if cookiecutter.__async %}
            async with asyncio.timeout(TIME_LIMIT + 1), self._turns:
                return await send()
            {% else %}
            if not self._cluster:
                return send()
            # If a cluster does not respond, redis-py tries each server in turn and blocks all other
            # requests. So requests wait in threads, and only for a few seconds.
            result = self._threads.submit(send)
            try:
                return result.result(TIME_LIMIT + 1)
            finally:
                result.cancel()
            {% endif %}
        except (exceptions.MovedError, exceptions.ClusterCrossSlotError) as error:
            raise StoreUnavailable(IS_CLUSTER) from error
        except exceptions.OutOfMemoryError as error:
            raise StoreFull(str(error)) from error
        except (exceptions.RedisError, exceptions.RedisClusterException, TimeoutError) as error:
            raise StoreUnavailable(str(error) or "Redis does not respond") from error


Store = SQLiteStore | RedisStore


def open_store(url: str, folder: str, prefix: str) -> Store:
    """Return the store for a SESSION_URL. A relative SQLite path starts in the folder."""
    if url.startswith("sqlite:///"):
        return SQLiteStore(Path(folder, url.removeprefix("sqlite:///")), prefix)
    return RedisStore(url, prefix)
{% endfilter %}
{% endfilter %}
