"""Backends of our own for one measurement, on the servers that the environment names."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from cryptopulse.common.testing.backends import RedisDatabases, VhostMaker
from tools.harness.system import Backends


@contextmanager
def fresh_redis() -> Iterator[str]:
    """The URL of an empty Redis db that nobody else uses; emptied afterwards."""
    databases = RedisDatabases(os.environ["REDIS_URL"])
    url = databases.take()
    try:
        yield url
    finally:
        databases.give_back(url)
        databases.close()


@asynccontextmanager
async def fresh_backends() -> AsyncIterator[Backends]:
    """A vhost, an empty Redis db and a database; gone afterwards."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    vhosts = VhostMaker(os.environ["RABBITMQ_URL"], os.environ["RABBITMQ_MANAGEMENT_URL"])
    vhost = vhosts.make()
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        with fresh_redis() as redis_url:
            yield Backends(
                rabbitmq=vhost,
                redis=redis_url,
                postgres=os.environ["DATABASE_URL"].rsplit("/", 1)[0] + f"/{name}",
            )
    finally:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.close()
        vhosts.remove(vhost)
