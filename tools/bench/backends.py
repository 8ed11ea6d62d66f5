"""Backends of our own for one measurement, on the servers that the environment names."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import httpx
from redis.asyncio import Redis

from tools.harness.system import Backends

REDIS_DB = 13


@asynccontextmanager
async def fresh_backends() -> AsyncIterator[Backends]:
    """A vhost, a cleared Redis db and a database; gone afterwards."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    management = urlsplit(os.environ["RABBITMQ_MANAGEMENT_URL"])
    auth = (management.username or "guest", management.password or "guest")
    redis_url = os.environ["REDIS_URL"].rsplit("/", 1)[0] + f"/{REDIS_DB}"
    async with (
        httpx.AsyncClient(
            base_url=f"http://{management.hostname}:{management.port}", auth=auth, trust_env=False, timeout=30
        ) as client,
        Redis.from_url(redis_url) as redis,
    ):
        (await client.put(f"/api/vhosts/{name}")).raise_for_status()
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        (await client.put(f"/api/permissions/{name}/{auth[0]}", json=rights)).raise_for_status()
        await redis.flushdb()
        connection = await asyncpg.connect(os.environ["DATABASE_URL"])
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
            yield Backends(
                rabbitmq=os.environ["RABBITMQ_URL"].rstrip("/") + f"/{name}",
                redis=redis_url,
                postgres=os.environ["DATABASE_URL"].rsplit("/", 1)[0] + f"/{name}",
            )
        finally:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.close()
            await redis.flushdb()
            await client.delete(f"/api/vhosts/{name}")
