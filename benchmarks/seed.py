"""Fill a session store with copies of one session. Run this script in a bake.

    python seed.py SESSION_URL COUNT < {"data": ..., "sub": ...}

The sessions have the cookies `cookie-0`, `cookie-1` and so on. The script prints the bytes per
session.
"""

import asyncio
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from app.server.sessions import store_key
from app.server.stores import (
    SQLiteStore,
    open_store,
)

BATCH = 1000


def finished(result: Any) -> Any:
    """Return the result of a call, which can be a coroutine."""
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def fill_sqlite(store: Any, sample: dict[str, Any], count: int) -> float:
    finished(store.ping())
    connection = store._connect()
    data = json.dumps(sample["data"])
    expiry = time.time() + 12 * 3600
    connection.execute("PRAGMA synchronous = OFF")
    for start in range(0, count, BATCH):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
            (
                (store_key(f"cookie-{i}"), data, expiry + i / 100, f"{i:012}", f"{i:021}")
                for i in range(start, start + BATCH)
            ),
        )
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return Path(store.path).stat().st_size / count


def fill_redis(url: str, sample: dict[str, Any], count: int) -> float:
    from redis import Redis

    redis: Any = Redis.from_url(url)
    from app.server.stores import PREFIX

    before = redis.info("memory")["used_memory"]
    fields = {name: json.dumps(value) for name, value in sample["data"].items()}
    for start in range(0, count, BATCH):
        pipeline = redis.pipeline(transaction=False)
        for i in range(start, start + BATCH):
            name = f"{PREFIX}session:{store_key(f'cookie-{i}')}"
            pipeline.hset(name, mapping=fields)
            pipeline.expire(name, 12 * 3600 + i // 100)
            for index, value in (("sub", f"{i:012}"), ("sid", f"{i:021}")):
                pipeline.zadd(f"{PREFIX}{index}:{value}", {name: time.time() + 12 * 3600})
                pipeline.expire(f"{PREFIX}{index}:{value}", 12 * 3600)
        pipeline.execute()
    return float(redis.info("memory")["used_memory"] - before) / count


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    sample = json.load(sys.stdin)
    store = open_store(url, ".")
    if isinstance(store, SQLiteStore):
        print(fill_sqlite(store, sample, count))
    else:
        print(fill_redis(url, sample, count))


if __name__ == "__main__":
    main()
