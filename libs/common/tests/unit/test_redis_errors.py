"""Which answers of Redis mean an outage, and which a mistake of ours."""

from __future__ import annotations

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cryptopulse.common.cache.client import store_errors, unavailable
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
