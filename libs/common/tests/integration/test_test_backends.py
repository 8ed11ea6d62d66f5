"""Each test gets a corner of its own on the real servers, and only what a test made is removed."""

from __future__ import annotations

import os
from collections.abc import Callable

import aio_pika
import asyncpg
import pytest
import redis

from cryptopulse.common.testing.backends import Databases, RedisDatabases, VhostMaker


async def _declare(url: str, name: str, *, passive: bool) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True, passive=passive)


async def test_vhosts_do_not_see_each_other(make_rabbit_vhost: Callable[[], str]) -> None:
    first, second = make_rabbit_vhost(), make_rabbit_vhost()
    await _declare(first, "orders", passive=False)
    await _declare(first, "orders", passive=True)
    with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
        await _declare(second, "orders", passive=True)


async def test_a_removed_vhost_takes_no_more_connections(
    rabbitmq_url: str, rabbitmq_management_url: str
) -> None:
    maker = VhostMaker(rabbitmq_url, rabbitmq_management_url)
    url = maker.make()
    await _declare(url, "orders", passive=False)
    maker.remove(url)
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await _declare(url, "orders", passive=True)


def test_two_redis_databases_are_two(redis_url: str) -> None:
    databases = RedisDatabases(redis_url)
    first, second = databases.take(), databases.take()
    try:
        with redis.Redis.from_url(first) as one, redis.Redis.from_url(second) as other:
            one.set("key", "value")
            assert other.get("key") is None
    finally:
        databases.give_back(first)
        databases.give_back(second)
        databases.close()


def test_a_redis_database_comes_empty_and_is_emptied(redis_url: str) -> None:
    databases = RedisDatabases(redis_url)
    url = databases.take()
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 0
        client.set("key", "value")
        databases.give_back(url)
        databases.close()
        assert client.dbsize() == 0


def test_a_redis_database_with_data_of_others_is_left_alone(redis_url: str) -> None:
    databases = RedisDatabases(redis_url)
    url = databases.take()
    number = url.rsplit("/", 1)[1]
    with redis.Redis.from_url(url) as theirs, redis.Redis.from_url(redis_url) as leases:
        theirs.set("theirs", "precious")
        leases.delete(f"cryptopulse:test-db:{number}")  # as if no test had ever used it
        try:
            other = databases.take()
            assert other != url
            databases.give_back(other)
            assert theirs.get("theirs") == b"precious"
        finally:
            leases.set(f"cryptopulse:test-db:{number}", "x")
            databases.give_back(url)
            databases.close()


def test_the_lease_of_a_dead_test_process_is_taken_over(redis_url: str) -> None:
    databases = RedisDatabases(redis_url)
    url = databases.take()
    number = url.rsplit("/", 1)[1]
    with redis.Redis.from_url(url) as left, redis.Redis.from_url(redis_url) as leases:
        left.set("left", "behind")
        leases.set(f"cryptopulse:test-db:{number}", f"{os.getpid()}|another boot:1")
        taken = [databases.take()]
        while taken[-1] != url and len(taken) < 50:
            taken.append(databases.take())
        assert url in taken
        assert left.dbsize() == 0
    for one in taken:
        databases.give_back(one)
    databases.close()


async def test_databases_are_apart_and_empty(make_postgres_db: Callable[[], str]) -> None:
    for url in (make_postgres_db(), make_postgres_db()):
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE once (id int)")
        await connection.close()


async def test_a_dropped_database_is_gone_whoever_is_connected(database_url: str) -> None:
    databases = Databases(database_url)
    url = databases.make()
    connection = await asyncpg.connect(url)
    databases.drop(url)
    databases.drop(url)  # no error twice
    connection.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
