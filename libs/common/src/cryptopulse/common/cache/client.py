"""The Redis client of the house: bounded waiting, quick reconnects, one kind of error, and a check for `/readyz`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import hiredis
import redis.asyncio as redis_asyncio
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.typing import EncodableT

from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter

TIMEOUT_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 2.0
HEALTH_CHECK_SECONDS: Final = 15
PING_SECONDS: Final = 2.0
STALE_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 50

_ERRORS: Final = counter(
    "cryptopulse_store_errors_total",
    "Calls to a store that failed in a way that may pass.",
    ("store", "reason"),
)
log = get_logger(__name__)


def connect(
    url: str,
    *,
    name: str = "cryptopulse",
    max_connections: int = MAX_CONNECTIONS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Redis:
    """A client with a pool of at most `max_connections`; nothing is opened before the first command.

    Answers are bytes. A command is tried again once when its connection turns out to be dead, waits at most
    `timeout_seconds` for an answer, and a caller waits as long for a free connection. Use it inside `store_errors()`.
    """
    pool: redis_asyncio.BlockingConnectionPool = redis_asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_seconds,
        decode_responses=False,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_keepalive=True,
        health_check_interval=HEALTH_CHECK_SECONDS,
        client_name=name,
        retry=Retry(ExponentialBackoff(cap=0.25, base=0.02), retries=1),
    )
    pool.connection_class = connection_of(pool.connection_class)
    return Redis.from_pool(pool)


def connection_of(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """A kind of connection that is packed in C, and says `ConnectionError` when it was closed under the client.

    The client reads with hiredis and packs in Python, at several times the cost. Of a closed transport uvloop says `RuntimeError`,
    which the client lets through: then nothing is tried again, and nobody takes it for an outage.
    """

    class Connection(kind):  # type: ignore[valid-type, misc]  # whichever the URL asks for, plain or TLS
        def pack_command(self, *args: EncodableT) -> list[bytes]:
            name = args[0]
            # "CONFIG GET" is two words to the server.
            words = name.split() if isinstance(name, (str, bytes)) else [name]
            try:
                return [hiredis.pack_command((*words, *args[1:]))]
            except TypeError:  # a kind that only the client knows to write, or to refuse
                packed: list[bytes] = super().pack_command(*args)
                return packed

        def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
            return [b"".join(chunk for command in commands for chunk in self.pack_command(*command))]

        async def send_packed_command(
            self, command: bytes | str | Iterable[bytes], check_health: bool = True
        ) -> None:
            try:
                await super().send_packed_command(command, check_health)
            except RuntimeError as error:
                if "closed" not in str(error):
                    raise
                raise RedisConnectionError("the connection was closed") from error

    return Connection


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turn what may pass into `StoreUnavailable`; wrong commands and script errors go through as they are."""
    try:
        yield
    except RedisError as error:
        translated = unavailable(error)
        if translated is None:
            raise
        raise translated from error
    except OSError as error:
        # Includes TimeoutError: the client lets some through while it connects.
        _ERRORS.labels("redis", "away").inc()
        raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from error


def unavailable(error: RedisError) -> StoreUnavailable | None:
    """The error as `StoreUnavailable` when it may pass, None for a mistake of ours."""
    if isinstance(error, ReadOnlyError):
        reason, text = "read-only", "Redis is read-only (a fail-over is under way)"
    elif isinstance(error, OutOfMemoryError):
        reason, text = "full", "Redis has no memory left"
    elif isinstance(error, RedisTimeoutError):
        reason, text = "slow", "Redis did not answer in time"
    elif isinstance(error, (RedisConnectionError, BusyLoadingError, ClusterDownError, TryAgainError)):
        reason, text = (
            ("not-prepared" if isinstance(error, AuthenticationError) else "away"),
            "Redis does not answer",
        )
    elif isinstance(error, ResponseError) and str(error).startswith(
        ("LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN")
    ):
        reason, text = "away", "Redis takes no writes at the moment"
    else:
        return None
    _ERRORS.labels("redis", reason).inc()
    return StoreUnavailable(f"{text}: {type(error).__name__}")


class Pinger:
    """Pings Redis in the background, so that `/readyz` answers at once.

    `start` is called by the first `check` inside a running loop; `close` ends it.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._result = Check(ok=False, detail="not asked yet")
        self._at = time.monotonic()

    async def start(self) -> None:
        """Ping once now, then every two seconds."""
        await self._ping()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="redis-pinger")

    def check(self) -> Check:
        """What the last ping said."""
        age = time.monotonic() - self._at
        if self._result.ok and age > STALE_SECONDS:
            return Check(ok=False, detail="the last ping is too old", age_seconds=age)
        return Check(ok=self._result.ok, detail=self._result.detail, age_seconds=age)

    async def close(self) -> None:
        """Stop pinging."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS * random.uniform(0.5, 1.0))
            await self._ping()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS + CONNECT_SECONDS), store_errors():
                await self._client.ping()
            result = Check(ok=True)
        except StoreUnavailable as error:
            result = Check(ok=False, detail=str(error))
        except Exception as error:  # whatever it was: without pings the service would be unready for ever
            result = Check(ok=False, detail=type(error).__name__)
        if result.ok != self._result.ok:
            log.info("redis state changed", up=result.ok, detail=result.detail)
        self._result = result
        self._at = time.monotonic()


async def check(client: Redis) -> Check:
    """Ask Redis now: for a readiness check where no `Pinger` runs."""
    try:
        async with asyncio.timeout(1.5), store_errors():
            await client.ping()
    except (StoreUnavailable, RedisError, TimeoutError) as error:
        return Check(ok=False, detail=str(error) or type(error).__name__)
    return Check(ok=True)
