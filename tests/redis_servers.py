"""Redis as cloud providers run it: a cluster, and a host name that moves after a failover."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from conftest import missing
from processes import Process, free_port, until
from sites import redis_server


class RedisName:
    """A port that forwards to a Redis, like a host name. A change of `to` moves new connections.

    If `lost` is not empty, the response to the next command that contains `lost` is dropped, and
    its connection ends.
    """

    def __init__(self, to: int) -> None:
        self.to = to
        self.lost = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                lost = threading.Event()
                for ends in ((client, server, lost), (server, client, lost)):
                    threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if lost.is_set():
                    break  # This is the response that gets lost.
                if self.lost and self.lost in data:
                    self.lost = b""
                    lost.set()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def redis_name(to: int) -> Iterator[RedisName]:
    """Start a RedisName that leads to the Redis on this port."""
    name = RedisName(to)
    try:
        yield name
    finally:
        name.close()


@contextmanager
def redis_without(url: str, command: str) -> Iterator[None]:
    """Let a Redis refuse this command until the end of the `with` block."""
    server: Any = redis.Redis.from_url(url)
    server.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        yield
    finally:
        server.execute_command("ACL", "SETUSER", "default", f"+{command}")
        server.close()


def connect(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True)


def make_replica(replica: int, master: int) -> None:
    """Make one Redis the replica of another, and wait until both have the same data."""
    connect(replica).replicaof("127.0.0.1", str(master))
    until(lambda: connect(replica).info("replication")["master_link_status"] == "up")
    until(lambda: connect(master).wait(1, 1000) == 1)


@contextmanager
def redis_cluster(folder: Path, ports: Sequence[int] = ()) -> Iterator[dict[int, Process]]:
    """Start a cluster of three servers. Yield its processes by port."""
    program = shutil.which("redis-cli")
    if not program:
        missing("redis-cli")
    assert program
    servers: dict[int, Process] = {}
    with ExitStack() as stack:
        for port in ports or [free_port() for _ in range(3)]:
            options = ["--cluster-enabled", "yes", "--cluster-config-file", f"{port}.conf"]
            options += ["--cluster-port", str(free_port()), "--port", str(port)]
            _, servers[port] = stack.enter_context(redis_server(folder, *options))
        nodes = [f"127.0.0.1:{port}" for port in servers]
        create = [program, "--cluster", "create", *nodes, "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True)
        until(lambda: all(is_up(port) for port in servers))
        yield servers


def is_up(port: int) -> bool:
    """Return whether the server on this port says that its cluster works."""
    server: Any = connect(port)
    return bool(server.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
