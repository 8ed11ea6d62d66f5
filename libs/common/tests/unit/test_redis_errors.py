"""Which answers of Redis mean an outage, and which a mistake of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection, Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cryptopulse.common.cache.client import Pinger, connect, connection_of, store_errors, unavailable
from cryptopulse.common.errors import StoreUnavailable


def answered(text: str) -> RedisError:
    """The error that the client makes of an answer."""
    error = BaseParser.parse_error(text)  # type: ignore[no-untyped-call] # the library's own parser has no types
    assert isinstance(error, RedisError)
    return error


@pytest.mark.parametrize(
    "answer",
    [
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots",
        "CLUSTERDOWN The cluster is down",
        "MASTERDOWN Link with MASTER is down",
        "NOREPLICAS Not enough good replicas to write.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
    ],
)
def test_an_answer_that_may_pass_is_an_outage(answer: str) -> None:
    error = answered(answer)

    assert isinstance(unavailable(error), StoreUnavailable)


@pytest.mark.parametrize(
    "answer",
    [
        "WRONGTYPE Operation against a key",
        "ERR unknown command",
        "NOSCRIPT No matching script.",
        "ERR epoch is old",
    ],
)
def test_an_answer_that_will_not_pass_is_our_mistake(answer: str) -> None:
    assert unavailable(answered(answer)) is None


@pytest.mark.parametrize(
    "error", [RedisConnectionError("x"), RedisTimeoutError("x"), ConnectionResetError("x"), TimeoutError()]
)
async def test_a_dead_line_is_an_outage(error: Exception) -> None:
    with pytest.raises(StoreUnavailable):
        async with store_errors():
            raise error


@pytest.mark.parametrize("error", [DataError("x"), ValueError("x")])
async def test_what_is_no_outage_goes_through(error: Exception) -> None:
    with pytest.raises((RedisError, ValueError)) as caught:
        async with store_errors():
            raise error

    assert caught.value is error


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0"])
async def test_a_line_that_was_closed_under_the_client_is_an_outage(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"
    )

    async def send(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", send)
    client = connect(url)
    line = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # the library's own has no types

    with pytest.raises(RedisConnectionError):
        await line.send_packed_command([b"PING"])

    said = "something else"
    with pytest.raises(RuntimeError, match=said):
        await line.send_packed_command([b"PING"])
    await client.aclose()


WORDS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False))


@given(st.lists(st.tuples(st.sampled_from(["SET", b"HSET", "CONFIG GET"]), WORDS, WORDS), max_size=5))
def test_commands_are_packed_as_the_client_packs_them(commands: list[tuple[Any, ...]]) -> None:
    ours = connection_of(Connection)()
    expected = b"".join(chunk for command in commands for chunk in Connection().pack_command(*command))

    assert b"".join(ours.pack_commands(commands)) == expected


def test_what_the_client_refuses_to_pack_is_refused_still() -> None:
    ours = connection_of(Connection)()

    assert b"".join(ours.pack_command("SET", "k", memoryview(b"x"))).endswith(b"$1\r\nx\r\n")
    for value in (True, None, ["x"]):
        with pytest.raises(DataError):
            ours.pack_command("SET", "k", value)  # type: ignore[arg-type]  # what the signature refuses as well


async def test_no_error_ends_the_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptopulse.common.cache.client.PING_SECONDS", 0.0)
    answers: list[Exception | None] = [None, RuntimeError("whatever"), None]
    asked = asyncio.Event()

    class Client:
        async def ping(self) -> None:
            if not answers:
                asked.set()
                return
            if (answer := answers.pop(0)) is not None:
                raise answer

    pinger = Pinger(Client())  # type: ignore[arg-type]  # all that it asks of a client
    await pinger.start()
    try:
        await asyncio.wait_for(asked.wait(), 2)
        assert pinger.check().ok
    finally:
        await pinger.close()
