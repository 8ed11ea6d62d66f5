"""The whole gateway as it is deployed, in this process: real RabbitMQ, Redis and Postgres; the other services are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from redis.asyncio import Redis

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.runtime import Runtime
from cryptopulse.common.runtime.shutdown import Signals
from cryptopulse.gateway import bootstrap
from cryptopulse.gateway.settings import Settings

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"


class NoSignals(Signals):
    """Stops when told by the test."""

    def install(self) -> None:
        pass

    def remove(self) -> None:
        pass


@dataclass
class Running:
    """A running gateway and ways to its surroundings."""

    http: httpx.AsyncClient
    url: str
    bus: RabbitBus
    redis: Redis
    runtime: Runtime
    signals: Signals
    settings: Settings
    task: asyncio.Task[None]


async def until(check: Any, seconds: float = 10) -> None:
    """Wait until something holds."""
    for _ in range(int(seconds / 0.05)):
        found = check()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen in time")


@pytest_asyncio.fixture
async def gateway(rabbit_vhost: str, redis_db: str, postgres_db: str) -> AsyncIterator[Running]:
    """A gateway that is ready."""
    await migrate(postgres_db, schema="identity", role="cryptopulse_identity", directory=MIGRATIONS)
    settings = Settings.load(
        {
            "RABBITMQ_URL": rabbit_vhost,
            "REDIS_URL": redis_db,
            "DATABASE_URL": postgres_db,
            "JWT_SECRET": "a-secret-of-at-least-thirty-two-bytes",
            "INTERNAL_JWT_SECRET": "another-secret-of-at-least-32-bytes",
            "CRYPTOPULSE_GATEWAY_ARGON2_MEMORY_KIB": "64",
            "CRYPTOPULSE_GATEWAY_LIMITS": "pro.reads=60/60:10",
            "CRYPTOPULSE_GATEWAY_READY_AFTER_SECONDS": "0",
            "PORT": "0",
        }
    )
    runtime = Runtime("gateway")
    servers: list[Any] = []
    serve = runtime.serve

    def remembered(*args: Any, **options: Any) -> Any:
        server = serve(*args, **options)
        servers.append(server)
        return server

    runtime.serve = remembered  # type: ignore[method-assign]  # to learn the free port that was taken
    signals = NoSignals()
    task = asyncio.create_task(
        runtime.run(
            bootstrap.build(settings, runtime), host="127.0.0.1", port=0, port_setting="X", signals=signals
        )
    )
    await until(lambda: task.done() or (servers and runtime.health.phase.value == "running"))
    if task.done():
        task.result()
    url = f"127.0.0.1:{servers[0].port}"
    bus = RabbitBus(rabbit_vhost, service="indicators", clock=SystemClock())
    await bus.start()
    redis = Redis.from_url(redis_db)
    async with httpx.AsyncClient(base_url=f"http://{url}", trust_env=False, timeout=10) as http:

        async def is_ready() -> bool:
            return bus.is_connected and (await runtime.health.readiness())[0]

        await until(is_ready, 20)
        await asyncio.sleep(0.3)
        yield Running(http, url, bus, redis, runtime, signals, settings, task)
    await bus.close()
    await redis.aclose()
    signals.stop.set()
    await asyncio.wait_for(task, 30)
