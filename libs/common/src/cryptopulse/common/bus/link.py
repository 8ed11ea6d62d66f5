"""One connection to the broker that is kept alive: connect, tell, wait for its end, back off, again.

Built on aio-pika's plain `connect`, not `connect_robust`: what must come back after a loss (topology, consumers,
bindings) is ours to know, so it is restored from values, in one place (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import cast

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq import Channel

from cryptopulse.common.bus.retry import Backoff
from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

HEARTBEAT_SECONDS = 4
"""aiormq gives up after three of these plus grace: a silent partition is found within 15 s."""
CONNECT_TIMEOUT_SECONDS = 5.0
WATCH_SECONDS = 1.0
UNBLOCKED_WITHIN_SECONDS = 0.25

OnUp = Callable[[AbstractConnection], Awaitable[None]]


class Link:
    """Keeps one connection; `up` is set while it is usable. `on_up` runs after every connect, before `up` is set."""

    def __init__(
        self, url: str, *, name: str, clock: Clock, on_up: OnUp, on_tick: Callable[[], Awaitable[None]]
    ) -> None:
        self._url = url
        self._name = name
        self._clock = clock
        self._on_up = on_up
        self._on_tick = on_tick
        self._task: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self.up = asyncio.Event()
        self.blocked = False
        self.down_since_us: int | None = clock.now_us()
        self.connects = 0

    @property
    def connection(self) -> AbstractConnection | None:
        """The live connection, None while it is down."""
        return self._connection if self.up.is_set() else None

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"bus-{self._name}")

    async def close(self) -> None:
        """Stop, and close the connection within two seconds."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        connection, self._connection = self._connection, None
        self.up.clear()
        if connection is not None:
            with contextlib.suppress(
                Exception
            ):  # a dying connection may raise anything; it is gone either way
                await asyncio.wait_for(connection.close(), 2.0)

    async def _keep(self) -> None:
        backoff = Backoff(base_seconds=0.2, cap_seconds=2.0)
        while True:
            try:
                await self._one_connection(backoff)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever the broker or the network does, the answer is to try again
                log.warning(
                    "bus connection failed", link=self._name, error=f"{type(error).__name__}: {error}"[:300]
                )
            self._mark_down()
            await asyncio.sleep(backoff.next())

    async def _one_connection(self, backoff: Backoff) -> None:
        connection = await aio_pika.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            client_properties={"connection_name": f"cryptopulse-{self._name}"},
        )
        self._connection = connection
        try:
            await asyncio.wait_for(self._on_up(connection), 30.0)
            backoff.reset()
            self.connects += 1
            self.down_since_us = None
            self.up.set()
            log.info("bus connected", link=self._name)
            await self._watch(connection)
        finally:
            self._mark_down()
            with contextlib.suppress(Exception):  # see close()
                await asyncio.wait_for(connection.close(), 2.0)

    async def _watch(self, connection: AbstractConnection) -> None:
        closed = asyncio.ensure_future(_closed(connection))
        try:
            await self._on_tick()  # what was asked for while the connection was being set up
            while not closed.done():
                await asyncio.wait({closed}, timeout=WATCH_SECONDS)
                if closed.done():
                    break
                self.blocked = not await _is_unblocked(connection)
                await self._on_tick()
        finally:
            closed.cancel()
        log.warning("bus connection lost", link=self._name)

    def _mark_down(self) -> None:
        if self.down_since_us is None:
            self.down_since_us = self._clock.now_us()
        self.blocked = False
        self.up.clear()


async def open_channel(connection: AbstractConnection, *, confirms: bool) -> Channel:
    """A fresh channel. Raises `BusUnavailable` when the connection closed meanwhile.

    By default aiormq holds ten frames of a channel and then reads nothing more of the whole connection: one channel whose reader
    has ended would stop all others for ever, with heartbeats still going out. Here nothing waits for a channel; what one may hold is
    bounded by its prefetch, or by the window of confirms.
    """
    if connection.transport is None:
        raise BusUnavailable("the connection closed")
    opened = await connection.transport.connection.channel(publisher_confirms=confirms, frame_buffer_size=0)
    return cast("Channel", opened)


async def _closed(connection: AbstractConnection) -> None:
    with contextlib.suppress(Exception):  # the reason is logged by aio-pika; here only the end matters
        await connection.closed()


async def _is_unblocked(connection: AbstractConnection) -> bool:
    """False while the broker has an alarm (`connection.blocked`): publishes would wait."""
    try:
        async with asyncio.timeout(UNBLOCKED_WITHIN_SECONDS):
            transport = connection.transport
            if transport is not None:
                await transport.connection.ready()
    except TimeoutError:
        return False
    return True
