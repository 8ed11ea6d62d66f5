"""Half-open sockets: peers that vanish without a goodbye are found by the missing pong and closed with 4012."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from websockets.asyncio.client import connect

from cryptopulse.common.testing.tcp_proxy import TcpProxy
from cryptopulse.gateway.entrypoints.socket_protocol import CLOSED

VANISHED = 5


@pytest_asyncio.fixture
async def pinging(gateway: Any) -> AsyncIterator[Any]:
    """A gateway that pings often."""
    found = type(gateway)()
    found.knows("BTC-USD")
    found.ping_seconds = 0.5
    await found.start()
    yield found
    await found.stop()


async def test_peers_that_vanish_are_closed_for_want_of_a_pong_and_others_stay(
    pinging: Any, listen: Any
) -> None:
    before = CLOSED.labels("4012")._value.get()
    host, _, port = pinging.url.partition(":")
    async with (
        TcpProxy(host, int(port)) as proxy,
        pinging.ws() as living,
        contextlib.AsyncExitStack() as held,
    ):
        gone = [
            await held.enter_async_context(connect(f"ws://127.0.0.1:{proxy.port}/v1/ws", proxy=None))
            for _ in range(VANISHED)
        ]
        for ws in (*gone, living):
            await listen(ws, "welcome")
        assert len(pinging.hub.connections) == VANISHED + 1
        proxy.toxics.blackhole = True
        async with asyncio.timeout(30):
            while len(pinging.hub.connections) > 1:
                await asyncio.sleep(0.05)
        assert CLOSED.labels("4012")._value.get() - before == VANISHED
        assert (await living.ping()) is not None
        proxy.reset()
