"""The Redis client waits in bounded time, heals by itself, and speaks of outages in one word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cryptopulse.common.cache import client as module
from cryptopulse.common.cache.client import Pinger, check, connect, store_errors
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.testing.tcp_proxy import TcpProxy


@asynccontextmanager
async def opened(url: str, *, max_connections: int = 5, timeout_seconds: float = 2.0) -> AsyncIterator[Redis]:
    client = connect(url, max_connections=max_connections, timeout_seconds=timeout_seconds)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    async with TcpProxy(parts.hostname, parts.port or 6379) as proxy:
        account = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        yield proxy, urlunsplit(parts._replace(netloc=f"{account}127.0.0.1:{proxy.port}"))


async def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.02)


async def set_one(client: Redis) -> None:
    async with store_errors():
        await client.set("k", b"\xff\x00v")


async def get_one(client: Redis) -> bytes | None:
    async with store_errors():
        value = await client.get("k")
    assert value is None or isinstance(value, bytes)
    return value


async def test_values_are_bytes(redis_db: str) -> None:
    async with opened(redis_db) as client:
        await set_one(client)

        assert await get_one(client) == b"\xff\x00v"
        assert (await check(client)).ok


async def test_a_mistake_of_ours_is_not_called_an_outage(redis_db: str) -> None:
    async with opened(redis_db) as client:
        await set_one(client)
        with pytest.raises(ResponseError):
            async with store_errors():
                await client.lpush("k", "x")


async def test_a_connection_that_was_cut_is_replaced_without_the_caller_seeing(redis_db: str) -> None:
    async with proxied(redis_db) as (proxy, through), opened(through) as client:
        await set_one(client)
        proxy.reset()
        await asyncio.sleep(0.05)

        assert await get_one(client) == b"\xff\x00v"


async def test_a_redis_that_is_away_is_an_outage_at_once_and_comes_back(redis_db: str) -> None:
    async with proxied(redis_db) as (proxy, through), opened(through) as client:
        await set_one(client)
        proxy.toxics.refuse = True
        proxy.reset()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await get_one(client)
        assert time.monotonic() - began < 1.5
        assert not (await check(client)).ok
        proxy.toxics.refuse = False

        assert await get_one(client) == b"\xff\x00v"


async def test_a_silent_partition_ends_in_bounded_time(redis_db: str) -> None:
    async with proxied(redis_db) as (proxy, through), opened(through, timeout_seconds=0.3) as client:
        await set_one(client)
        proxy.toxics.blackhole = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await get_one(client)

        assert time.monotonic() - began < 5


async def test_more_callers_than_connections_wait_their_turn(redis_db: str) -> None:
    async with opened(redis_db, max_connections=2) as client:
        await set_one(client)

        assert await asyncio.gather(*(get_one(client) for _ in range(200))) == [b"\xff\x00v"] * 200


async def test_callers_do_not_wait_for_ever_for_a_connection(redis_db: str) -> None:
    async with opened(redis_db, max_connections=1, timeout_seconds=0.3) as client:

        async def holds_the_connection() -> None:
            async with store_errors():
                await client.blpop(["nothing"], timeout=0.25)

        holder = asyncio.create_task(holds_the_connection())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await asyncio.gather(get_one(client), return_exceptions=True)
        assert time.monotonic() - began < 2
        await asyncio.gather(holder, return_exceptions=True)


async def test_the_pinger_follows_the_state_of_redis(redis_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.1)
    async with proxied(redis_db) as (proxy, through), opened(through) as client:
        pinger = Pinger(client)
        await pinger.start()
        assert pinger.check().ok
        proxy.toxics.refuse = True
        proxy.reset()
        await until(lambda: not pinger.check().ok)
        assert "does not answer" in pinger.check().detail
        proxy.toxics.refuse = False
        await until(lambda: pinger.check().ok)
        await pinger.close()


async def test_a_ping_that_is_too_old_counts_as_down(redis_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(redis_db) as client:
        pinger = Pinger(client)
        await pinger.start()
        await pinger.close()
        assert pinger.check().ok
        monkeypatch.setattr(module, "STALE_SECONDS", 0.0)

        assert pinger.check().detail == "the last ping is too old"
