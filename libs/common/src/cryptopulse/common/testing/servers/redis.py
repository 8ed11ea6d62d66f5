"""A private Redis. It holds state (shard snapshots, last trade ids), so nothing is ever evicted."""

from __future__ import annotations

from cryptopulse.common.testing.servers.binaries import REDIS_SETTING, find_redis
from cryptopulse.common.testing.servers.children import spawn
from cryptopulse.common.testing.servers.faults import MissingBinaryError
from cryptopulse.common.testing.servers.ports import free_port, speaks_redis
from cryptopulse.common.testing.servers.server import LocalServer, write_private

_HOST = "127.0.0.1"
DATABASES = 256  # tests take one each


class RedisServer(LocalServer):
    """One redis-server on loopback; its password stands in a file of its own, not on the command line."""

    name = "redis"
    port = 0

    def choose_ports(self) -> None:
        """One port."""
        self.port = free_port()

    def launch(self) -> None:
        """Start it on its folder."""
        binary = find_redis(self._environ)
        if binary is None:
            raise MissingBinaryError(f"no redis-server here: install it, or set {REDIS_SETTING}")
        self.prepare_folders()
        configuration = self.folder / "redis.conf"
        write_private(configuration, self._configuration())
        self.children = [
            spawn(
                self.name,
                [binary, configuration],
                pid_folder=self._pid_folder,
                cwd=self.folder,
                env=self._environ,
                log=self._log,
            )
        ]

    def is_ready(self) -> bool:
        """Whether it answers PING."""
        return speaks_redis(_HOST, self.port)

    def urls(self) -> dict[str, str]:
        """`REDIS_URL`."""
        account = f":{self.secret()}@" if self.profile.durable else ""
        return {"REDIS_URL": f"redis://{account}{_HOST}:{self.port}/0"}

    def _configuration(self) -> str:
        lines = [
            f"port {self.port}",
            f"bind {_HOST}",
            f'dir "{self.folder}"',
            'save ""',
            f"appendonly {'yes' if self.profile.durable else 'no'}",
            "appendfsync everysec",
            f"databases {DATABASES}",
            "maxmemory 512mb",
            "maxmemory-policy noeviction",
            "daemonize no",
        ]
        if self.profile.durable:
            lines.append(f"requirepass {self.secret()}")
        return "\n".join(lines) + "\n"
