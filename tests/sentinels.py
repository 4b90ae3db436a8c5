"""A Redis that sentinels watch, with a replica that takes over when it dies; all of them real processes on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from recsys.demo.services import find_redis_server
from tests.services import OwnServer, RedisServer, kept_port, start_process, wait_until

MASTER = "shop-redis"
USER, PASSWORD = "recsys", "of-the-servers"
SENTINEL_PASSWORD = "of-the-sentinels"  # noqa: S105 - on loopback, as long as a test
_DEAD_AFTER_MS, _NEVER_DEAD_MS = 1000, 3_600_000


class Sentinel(OwnServer):
    """One sentinel: the program of the server, in another mode."""

    def __init__(self, folder: Path, primary: RedisServer, quorum: int) -> None:
        self.port = kept_port()
        self._folder = folder
        self._configuration = folder / f"sentinel-{self.port}.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} {quorum}\n"
            f"sentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} {_DEAD_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 10000\n"
        )
        self.client: Any = redis.Redis(
            port=self.port, password=SENTINEL_PASSWORD, socket_timeout=5, decode_responses=True
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [find_redis_server(), str(self._configuration), "--sentinel"]
        self._process = start_process(command, self._folder / f"sentinel-{self.port}.log", os.environ)

        def answers() -> bool:
            try:
                return bool(self.client.ping())
            except redis.RedisError:
                return False

        wait_until(answers, "the sentinel answers")


class WatchedRedis:
    """Two servers that keep every write on disk, one the replica of the other, and three sentinels that watch them.

    Servers and sentinels ask for passwords, each for another one. The user `USER` may do what services need.
    """

    def __init__(self, folder: Path) -> None:
        kept = ("--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD, "--masterauth", PASSWORD)
        self.servers = [RedisServer(folder, *kept), RedisServer(folder, *kept)]
        for server in self.servers:
            server.client = redis.Redis(port=server.port, password=PASSWORD, socket_timeout=5)
        self.sentinels = [Sentinel(folder, self.servers[0], quorum=2) for _ in range(3)]

    @property
    def settings(self) -> dict[str, str]:
        """What services are told."""
        return {
            "RECSYS_REDIS__URL": f"redis://{USER}:{PASSWORD}@watched/0",
            "RECSYS_REDIS__SENTINEL": ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels),
            "RECSYS_REDIS__SENTINEL_MASTER": MASTER,
            "RECSYS_REDIS__SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    @property
    def primary(self) -> RedisServer:
        """The server that takes writes, as the sentinels say."""
        port = self.master_port()
        return next(server for server in self.servers if server.port == port)

    def master_port(self) -> int:
        """Return the port of the master that a living sentinel names."""
        _, port = self.sentinels[-1].client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(port)

    def start(self) -> None:
        """Start everything and wait until all sentinels know the replica and one another."""
        primary, replica = self.servers
        primary.start()
        replica.start("--replicaof", f"127.0.0.1 {primary.port}")
        for server in self.servers:
            self._admit(server)
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the sentinels know everyone")

    def start_again(self, server: RedisServer) -> None:
        """Start a server that was killed; users that were made while it ran are gone with it."""
        server.start()
        self._admit(server)

    def _admit(self, server: RedisServer) -> None:
        server.client.execute_command(
            "ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "+@all", "-@dangerous", "+info"
        )

    def _knows_all(self, sentinel: Sentinel) -> bool:
        found = sentinel.client.execute_command("SENTINEL MASTERS")[MASTER]
        return bool(found["num-slaves"] == 1 and found["num-other-sentinels"] == len(self.sentinels) - 1)

    def await_replica(self) -> None:
        """Wait until the primary has a replica that follows it."""
        wait_until(
            lambda: self.primary.client.info("replication").get("slave0", {}).get("state") == "online",
            "the replica follows",
        )

    def settle(self) -> None:
        """Wait until the failover is over, and let no other one begin: a busy machine may make a server late.

        Whoever was the primary takes writes once more when it is started again, until the sentinels make it a replica.
        """
        self.await_replica()
        for sentinel in self.sentinels:
            sentinel.client.execute_command("SENTINEL SET", MASTER, "down-after-milliseconds", _NEVER_DEAD_MS)

    def kill_primary(self) -> RedisServer:
        """Kill the primary, wait until the other server is chosen, and return the one that is dead."""
        dead = self.primary
        dead.kill()
        wait_until(lambda: self.master_port() != dead.port, "the sentinels have chosen the other server")
        return dead

    def kill(self) -> None:
        """Kill everything."""
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.servers:
            server.kill()


@contextmanager
def watched_redis(folder: Path) -> Iterator[WatchedRedis]:
    """Run a watched Redis until the block ends."""
    watched = WatchedRedis(folder)
    try:
        watched.start()
        yield watched
    finally:
        watched.kill()
