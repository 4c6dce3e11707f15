"""Where sessions are kept: SQLite on one machine, Redis for many.

Both keep JSON under a key until its time to live is over, and raise `StoreUnavailable` when
they cannot do what was asked. All times are in seconds.
"""

{% if cookiecutter.framework == "quart" %}
import asyncio
{% endif %}
import json
import os
import sqlite3
import time
from collections.abc import Iterator
{% if cookiecutter.framework == "quart" %}
from concurrent.futures import ThreadPoolExecutor
{% endif %}
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

{% if cookiecutter.framework == "quart" %}
from redis.asyncio import BlockingConnectionPool, Redis
{% else %}
from redis import BlockingConnectionPool, Redis
{% endif %}
from redis.exceptions import RedisError

PROJECT_DIR = Path(__file__).resolve().parents[2]
TIME_LIMIT = 3.0
"""Seconds to wait for a locked file, or for Redis."""
PREFIX = "{{ cookiecutter.project_slug }}:"


class StoreUnavailable(Exception):
    """The session store cannot be reached, read or written."""


class Store(Protocol):
    """What a session store can do; add your own by writing these methods."""

    {{ cookiecutter.__async }}def load(self, key: str) -> dict[str, Any] | None:
        """The session under the key, None if there is none or its time is over."""

    {{ cookiecutter.__async }}def create(
        self,
        key: str,
        data: dict[str, Any],
        ttl: int,
        sub: str | None = None,
        sid: str | None = None,
    ) -> None:
        """Keep a new session, to be found by its user (`sub`) and Logto session (`sid`) as well."""

    {{ cookiecutter.__async }}def update(self, key: str, changed: dict[str, Any], removed: list[str]) -> None:
        """Set and remove these entries in one step; a session that has ended stays ended."""

    {{ cookiecutter.__async }}def delete(self, key: str) -> bool:
        """End a session; False if there was none, so that one of two callers gets True."""

    {{ cookiecutter.__async }}def delete_all(self, *, sub: str | None = None, sid: str | None = None) -> int:
        """End every session of a user (`sub`) or of a Logto session (`sid`); how many."""

    {{ cookiecutter.__async }}def claim(self, name: str, ttl: int) -> bool:
        """Take a name until it is released or its time is over; True for one caller only."""

    {{ cookiecutter.__async }}def release(self, name: str) -> None:
        """Give a claimed name back."""

    {{ cookiecutter.__async }}def ping(self) -> None:
        """See that the store can be written."""


def open_store(url: str) -> Store:
    """The store of a SESSION_URL; a relative SQLite path starts at the project folder."""
    if url.startswith("sqlite:///"):
        return SQLiteStore(PROJECT_DIR / url.removeprefix("sqlite:///"))
    return RedisStore(url)


class SQLiteStore:
    """Sessions in one SQLite file, which several processes may share."""

    SCHEMA = """
        CREATE TABLE IF NOT EXISTS sessions (
            key TEXT PRIMARY KEY, data TEXT NOT NULL, expires_at REAL NOT NULL, sub TEXT, sid TEXT
        );
        CREATE INDEX IF NOT EXISTS sessions_by_expiry ON sessions (expires_at);
        CREATE INDEX IF NOT EXISTS sessions_by_sub ON sessions (sub) WHERE sub IS NOT NULL;
        CREATE INDEX IF NOT EXISTS sessions_by_sid ON sessions (sid) WHERE sid IS NOT NULL;
        CREATE TABLE IF NOT EXISTS claims (name TEXT PRIMARY KEY, expires_at REAL NOT NULL);
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[tuple[sqlite3.Connection, os.stat_result]] = []
        {% if cookiecutter.framework == "quart" %}
        self._readers, self._writers = ThreadPoolExecutor(4), ThreadPoolExecutor(4)
        {% endif %}

    {{ cookiecutter.__async }}def load(self, key: str) -> dict[str, Any] | None:
        rows, _ = {{ cookiecutter.__await }}self._execute(
            "SELECT data FROM sessions WHERE key = ? AND expires_at > ?", key, time.time()
        )
        return json.loads(rows[0][0]) if rows else None

    {{ cookiecutter.__async }}def create(
        self,
        key: str,
        data: dict[str, Any],
        ttl: int,
        sub: str | None = None,
        sid: str | None = None,
    ) -> None:
        now = time.time()
        {{ cookiecutter.__await }}self._execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
            key,
            json.dumps(data),
            now + ttl,
            sub,
            sid,
        )
        # A few at a time, so that a long backlog never holds the write lock for long.
        for table in ("sessions", "claims"):
            {{ cookiecutter.__await }}self._execute(
                f"DELETE FROM {table} WHERE rowid IN"
                f" (SELECT rowid FROM {table} WHERE expires_at <= ? LIMIT 100)",
                now,
            )

    {{ cookiecutter.__async }}def update(self, key: str, changed: dict[str, Any], removed: list[str]) -> None:
        {{ cookiecutter.__await }}self._execute(
            "UPDATE sessions SET data = merged(data, ?, ?) WHERE key = ?",
            json.dumps(changed),
            json.dumps(removed),
            key,
        )

    {{ cookiecutter.__async }}def delete(self, key: str) -> bool:
        _, count = {{ cookiecutter.__await }}self._execute("DELETE FROM sessions WHERE key = ?", key)
        return count > 0

    {{ cookiecutter.__async }}def delete_all(self, *, sub: str | None = None, sid: str | None = None) -> int:
        ended = "DELETE FROM sessions WHERE sub = ? OR sid = ?"
        _, count = {{ cookiecutter.__await }}self._execute(ended, sub, sid)
        return count

    {{ cookiecutter.__async }}def claim(self, name: str, ttl: int) -> bool:
        now = time.time()
        _, count = {{ cookiecutter.__await }}self._execute(
            "INSERT INTO claims VALUES (?1, ?2 + ?3) ON CONFLICT (name)"
            " DO UPDATE SET expires_at = excluded.expires_at WHERE expires_at <= ?2",
            name,
            now,
            ttl,
        )
        return count > 0

    {{ cookiecutter.__async }}def release(self, name: str) -> None:
        {{ cookiecutter.__await }}self._execute("DELETE FROM claims WHERE name = ?", name)

    {{ cookiecutter.__async }}def ping(self) -> None:
        # A statement that changes no row would write nothing.
        {{ cookiecutter.__await }}self._execute("REPLACE INTO claims VALUES ('ping', 0)")

    {{ cookiecutter.__async }}def _execute(self, sql: str, *values: Any) -> tuple[list[Any], int]:
        {% if cookiecutter.framework == "quart" %}
        # SQLite blocks while it waits for the disk or for a lock: off the event loop, and readers,
        # who need no lock, not behind those who wait for one.
        threads = self._readers if sql.startswith("SELECT") else self._writers
        try:
            async with asyncio.timeout(TIME_LIMIT + 1):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, self._run, sql, values)
        except TimeoutError as error:
            raise StoreUnavailable(f"{self.path}: too many are waiting for it") from error

    def _run(self, sql: str, values: tuple[Any, ...]) -> tuple[list[Any], int]:
        {% endif %}
        """Run one statement, a transaction of its own: its rows, and how many it changed."""
        connection = None
        try:
            connection, file = self._take()
            cursor = connection.execute(sql, values)
            rows = cursor.fetchall()
        except (sqlite3.Error, OSError) as error:
            if connection:
                connection.close()
            raise StoreUnavailable(f"{self.path}: {error}") from error
        self._idle.append((connection, file))
        return rows, cursor.rowcount

    def _take(self) -> tuple[sqlite3.Connection, os.stat_result]:
        while True:
            try:
                connection, file = self._idle.pop()
            except IndexError:
                connection = self._connect()
                return connection, self.path.stat()
            # A file that was deleted lives on for those who have it open, and for nobody else.
            with suppress(FileNotFoundError):
                if os.path.samestat(file, self.path.stat()):
                    return connection, file
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        connection = sqlite3.connect(
            self.path, timeout=TIME_LIMIT, isolation_level=None, check_same_thread=False
        )
        # Write-ahead logging: readers never wait for a writer, and a killed process loses nothing.
        # Of several processes that create the file at once, one sets it and others are refused.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(self.SCHEMA)
        connection.create_function("merged", 3, _merged, deterministic=True)
        for suffix in ("", "-wal", "-shm") if new else ():
            # Refresh tokens are in it. (To open it here would undo the locks that SQLite holds.)
            with suppress(OSError):
                Path(f"{self.path}{suffix}").chmod(0o600)
        return connection


def _merged(data: str, changed: str, removed: str) -> str:
    entries = json.loads(data) | json.loads(changed)
    for name in json.loads(removed):
        entries.pop(name, None)
    return json.dumps(entries)


class RedisStore:
    """Sessions in Redis, one hash each, for an app that runs on several machines."""

    # KEYS[1]: the session; ARGV[1]: how many names and values are set; then those to remove.
    UPDATE = """
        if redis.call('EXISTS', KEYS[1]) == 0 then return end
        local set = tonumber(ARGV[1])
        for i = 2, set, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
        for i = set + 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
    """

    def __init__(self, url: str) -> None:
        # Blocking: when all connections are in use, requests wait for one and do not fail.
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=50,
            timeout=TIME_LIMIT,
            socket_timeout=TIME_LIMIT,
            socket_connect_timeout=TIME_LIMIT,
            decode_responses=True,
        )
        # The annotations of Redis take answers for bytes, whatever the pool decodes.
        self._redis: Any = Redis(connection_pool=pool)
        self._update = self._redis.register_script(self.UPDATE)

    {{ cookiecutter.__async }}def load(self, key: str) -> dict[str, Any] | None:
        with _redis_errors():
            entries = {{ cookiecutter.__await }}self._redis.hgetall(f"{PREFIX}session:{key}")
        return {name: json.loads(value) for name, value in entries.items()} or None

    {{ cookiecutter.__async }}def create(
        self,
        key: str,
        data: dict[str, Any],
        ttl: int,
        sub: str | None = None,
        sid: str | None = None,
    ) -> None:
        name, now = f"{PREFIX}session:{key}", time.time()
        pipeline = self._redis.pipeline()
        pipeline.hset(name, mapping={k: json.dumps(v) for k, v in data.items()})
        pipeline.expire(name, ttl)
        for index, value in (("sub", sub), ("sid", sid)):
            if value:
                pipeline.zremrangebyscore(f"{PREFIX}{index}:{value}", 0, now)
                pipeline.zadd(f"{PREFIX}{index}:{value}", {name: now + ttl})
                pipeline.expire(f"{PREFIX}{index}:{value}", ttl)
        with _redis_errors():
            {{ cookiecutter.__await }}pipeline.execute()

    {{ cookiecutter.__async }}def update(self, key: str, changed: dict[str, Any], removed: list[str]) -> None:
        name = f"{PREFIX}session:{key}"
        values = [text for item in changed.items() for text in (item[0], json.dumps(item[1]))]
        with _redis_errors():
            {{ cookiecutter.__await }}self._update(keys=[name], args=[len(values), *values, *removed])

    {{ cookiecutter.__async }}def delete(self, key: str) -> bool:
        with _redis_errors():
            return bool({{ cookiecutter.__await }}self._redis.delete(f"{PREFIX}session:{key}"))

    {{ cookiecutter.__async }}def delete_all(self, *, sub: str | None = None, sid: str | None = None) -> int:
        index = f"{PREFIX}sid:{sid}" if sid else f"{PREFIX}sub:{sub}"
        with _redis_errors():
            names = {{ cookiecutter.__await }}self._redis.zrange(index, 0, -1)
            if not names:
                return 0
            ended = int({{ cookiecutter.__await }}self._redis.delete(*names))
            # Not the whole index: a session may have joined it meanwhile.
            {{ cookiecutter.__await }}self._redis.zrem(index, *names)
        return ended

    {{ cookiecutter.__async }}def claim(self, name: str, ttl: int) -> bool:
        with _redis_errors():
            claimed = {{ cookiecutter.__await }}self._redis.set(f"{PREFIX}claim:{name}", "", nx=True, ex=ttl)
        return bool(claimed)

    {{ cookiecutter.__async }}def release(self, name: str) -> None:
        with _redis_errors():
            {{ cookiecutter.__await }}self._redis.delete(f"{PREFIX}claim:{name}")

    {{ cookiecutter.__async }}def ping(self) -> None:
        with _redis_errors():
            {{ cookiecutter.__await }}self._redis.set(f"{PREFIX}ping", "", ex=1)


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error
