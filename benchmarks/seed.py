"""Fill the session store of a baked Flask app with copies of one session. Run this in the bake.

    python seed.py COUNT < {"data": ..., "sub": ...}

The environment has the variables of the app. The session cookies are the numbers from 0, in 43
digits. The script prints the bytes per session.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109

from app import create_app
from app.server.sessions import store_key
from app.server.stores import SQLiteStore

BATCH = 1000
LIFETIME = 12 * 3600


def key(number: int) -> str:
    """Return the key of a session for the store."""
    return str(store_key(f"{number:043}"))


def fill_sqlite(store: Any, sample: dict[str, Any], count: int) -> float:
    store.ping()
    connection = store._connect()
    data = json.dumps(sample["data"])
    expiry = time.time() + LIFETIME
    connection.execute("PRAGMA synchronous = OFF")
    for start in range(0, count, BATCH):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
            (
                (store._prefix + key(i), data, expiry + i / 100, f"{i:012}", f"{i:021}")
                for i in range(start, start + BATCH)
            ),
        )
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return Path(store.path).stat().st_size / count


def fill_redis(store: Any, sample: dict[str, Any], count: int) -> float:
    redis = store._redis
    before = redis.info("memory")["used_memory"]
    fields = {name: json.dumps(value) for name, value in sample["data"].items()}
    for start in range(0, count, BATCH):
        pipeline = redis.pipeline(transaction=False)
        for i in range(start, start + BATCH):
            name = store._name("session", key(i))
            pipeline.hset(name, mapping=fields)
            pipeline.expire(name, LIFETIME + i // 100)
            for kind, value in (("sub", f"{i:012}"), ("sid", f"{i:021}")):
                pipeline.zadd(store._name(kind, value), {name: time.time() + LIFETIME})
                pipeline.expire(store._name(kind, value), LIFETIME)
        pipeline.execute()
    return float(redis.info("memory")["used_memory"] - before) / count


def main() -> None:
    count, sample = int(sys.argv[1]), json.load(sys.stdin)
    store = create_app().extensions["session_store"]
    fill = fill_sqlite if isinstance(store, SQLiteStore) else fill_redis
    print(fill(store, sample, count))


if __name__ == "__main__":
    main()
