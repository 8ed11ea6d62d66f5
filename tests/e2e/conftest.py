"""One running system for all tests that leave it as well as they found it; on a vhost, Redis db and database of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from cryptopulse.common.testing.backends import Databases, RedisDatabases, VhostMaker
from tools.harness.system import Backends, System

UNLIMITED = ",".join(f"free.{bucket}=600000/60:10000" for bucket in ("reads", "writes", "imports", "auth"))
"""Users may ask as much as they like, so that no test waits for another one's limits."""


@contextlib.contextmanager
def corners(rabbitmq: str, management: str, redis: str, postgres: str) -> Iterator[Backends]:
    """A vhost, a Redis db and a database, removed at the end."""
    vhosts, redis_dbs, databases = (
        VhostMaker(rabbitmq, management),
        RedisDatabases(redis),
        Databases(postgres),
    )
    with contextlib.ExitStack() as stack:
        stack.callback(redis_dbs.close)
        vhost, redis_db, database = vhosts.make(), redis_dbs.take(), databases.make()
        stack.callback(redis_dbs.give_back, redis_db)
        stack.callback(vhosts.remove, vhost)
        stack.callback(databases.drop, database)
        yield Backends(vhost, redis_db, database)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_system(
    rabbitmq_url: str,
    rabbitmq_management_url: str,
    redis_url: str,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[System]:
    """The whole system on the simulator, stopped at the end."""
    settings = {"CRYPTOPULSE_GATEWAY_LIMITS": UNLIMITED}
    with corners(rabbitmq_url, rabbitmq_management_url, redis_url, database_url) as backends:
        async with System(backends, tmp_path_factory.mktemp("system"), settings=settings) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="session")
async def system(shared_system: System) -> System:
    """The shared system with all five ready, whatever the test before did to it."""
    await shared_system.revive()
    return shared_system
