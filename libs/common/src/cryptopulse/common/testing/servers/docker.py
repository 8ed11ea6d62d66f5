"""Backends in containers, where a Docker engine answers; behind a small seam, so that the choice is tested without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cryptopulse.common.testing.servers.faults import ServerFailedError
from cryptopulse.common.testing.servers.ports import speaks_amqp, speaks_http, speaks_postgres, speaks_redis
from cryptopulse.common.testing.servers.server import DATABASE, USER

IMAGES: Mapping[str, str] = {
    "rabbitmq": "rabbitmq:4-management",
    "redis": "redis:7-alpine",
    "postgres": "postgres:16-alpine",
}
_ENGINE_SECONDS = 3
_READY_SECONDS = 90.0
_POLL_SECONDS = 0.2


class Engine(Protocol):
    """What the choice of a backend asks of Docker."""

    def answers(self) -> bool:
        """Whether an engine is there; never raises, returns within seconds."""
        ...

    def offers(self, image: str) -> bool:
        """Whether the engine has the image, or could pull it now; never raises."""
        ...


class DockerEngine:
    """The engine that the environment points at (`DOCKER_HOST`, a context, or the usual socket)."""

    def __init__(self) -> None:
        self._client: Any = None
        self._asked = False

    def answers(self) -> bool:
        """Ping it, once; without the Docker library there is no engine for us."""
        if not self._asked:
            self._asked = True
            self._client = self._connect()
        return self._client is not None

    def offers(self, image: str) -> bool:
        """Look for the image, then pull it."""
        if not self.answers():
            return False
        for attempt in (self._client.images.get, self._client.images.pull):
            try:
                attempt(image)
            except Exception:  # noqa: S112 - whatever is said, the next way is tried
                continue
            return True
        return False

    @staticmethod
    def _connect() -> Any:
        try:
            import docker

            client = docker.from_env(timeout=_ENGINE_SECONDS)
            client.ping()
            # The pull of an image takes longer than an answer may.
            return docker.from_env(timeout=300)
        except Exception:
            return None


class ContainerServer:
    """One backend in a container that testcontainers removes again, also after we were killed (its reaper does)."""

    def __init__(self, name: str, image: str) -> None:
        self.name = name
        self.image = image
        self.notes: list[str] = []
        self._container: Any = None

    def start(self) -> dict[str, str]:
        """Run the container and wait until the server in it does its work; the variables that lead to it."""
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(self.image)
        prepare: dict[str, Callable[[Any], None]] = {
            "rabbitmq": _prepare_rabbitmq,
            "redis": _prepare_redis,
            "postgres": _prepare_postgres,
        }
        prepare[self.name](container)
        self._container = container.start()
        return self._wait()

    def stop(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None

    def _wait(self) -> dict[str, str]:
        host = self._container.get_container_host_ip()
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            urls = self._ready_urls(host)
            if urls:
                return urls
            time.sleep(_POLL_SECONDS)
        self.stop()
        raise ServerFailedError(
            f"{self.name}: the container of {self.image} was not ready in {_READY_SECONDS:.0f} s"
        )

    def _ready_urls(self, host: str) -> dict[str, str]:
        def port(inner: int) -> int:
            return int(self._container.get_exposed_port(inner))

        if self.name == "rabbitmq":
            if speaks_amqp(host, port(5672)) and speaks_http(host, port(15672)):
                account = f"{USER}:{USER}"
                return {
                    "RABBITMQ_URL": f"amqp://{account}@{host}:{port(5672)}/",
                    "RABBITMQ_MANAGEMENT_URL": f"http://{account}@{host}:{port(15672)}",
                }
        elif self.name == "redis":
            if speaks_redis(host, port(6379)):
                return {"REDIS_URL": f"redis://{host}:{port(6379)}/0"}
        elif speaks_postgres(host, port(5432), USER, DATABASE):
            return {"DATABASE_URL": f"postgresql://{USER}:{USER}@{host}:{port(5432)}/{DATABASE}"}
        return {}


def _prepare_rabbitmq(container: Any) -> None:
    container.with_env("RABBITMQ_DEFAULT_USER", USER).with_env("RABBITMQ_DEFAULT_PASS", USER)
    container.with_exposed_ports(5672, 15672)


def _prepare_redis(container: Any) -> None:
    container.with_command('redis-server --save "" --databases 256 --maxmemory-policy noeviction')
    container.with_exposed_ports(6379)


def _prepare_postgres(container: Any) -> None:
    for key in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"):
        container.with_env(key, USER)
    container.with_command("postgres -c max_connections=250")
    container.with_exposed_ports(5432)
