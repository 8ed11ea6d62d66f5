"""A venue's pings are answered at once while there is room for a message, and never faster than the venue takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import picows
import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.ingestor.adapters.sockets import PicowsSockets
from cryptopulse.ingestor.application.pacing import Pace

PER_SECOND = 10.0


class Pinging(picows.WSListener):
    """A venue that notes what it hears, with the time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard: list[tuple[float, str]] = []

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_frame(self, _transport: Any, frame: Any) -> None:
        text = frame.get_payload_as_bytes().decode()
        self.heard.append((asyncio.get_running_loop().time(), text))


@pytest.fixture
async def venue() -> AsyncIterator[tuple[Pinging, str]]:
    found = Pinging()
    server = await picows.ws_create_server(lambda _request: found, "127.0.0.1", 0)
    yield found, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()


async def test_pongs_count_as_messages_and_the_newest_ping_is_answered(venue: tuple[Pinging, str]) -> None:
    peer, url = venue
    pace = Pace(SystemClock(), PER_SECOND)
    wire = await PicowsSockets(SystemClock()).open(url, lambda _: None, lambda _: None, pace.claim)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def subscribe() -> None:
        for number in range(5):
            await pace.turn()
            wire.send(f"subscribe {number}".encode())

    asking = asyncio.create_task(subscribe())
    asked = {}
    for number in range(40):
        asked[f"ping {number}"] = loop.time()
        peer.transport.send_ping(f"ping {number}".encode())
        await asyncio.sleep(0.02)
    await asking
    await asyncio.sleep(2.5 / PER_SECOND)
    pongs = [(at, text) for at, text in peer.heard if text.startswith("ping")]
    assert len(peer.heard) <= (loop.time() - began) * PER_SECOND + 1
    assert {text for _, text in peer.heard} >= {f"subscribe {number}" for number in range(5)}
    assert pongs[-1][1] == "ping 39"
    assert all(at - asked[text] < 3 / PER_SECOND for at, text in pongs)
    await wire.close()


async def test_a_single_ping_is_answered_at_once(venue: tuple[Pinging, str]) -> None:
    peer, url = venue
    wire = await PicowsSockets(SystemClock()).open(
        url, lambda _: None, lambda _: None, Pace(SystemClock(), 0.01).claim
    )
    peer.transport.send_ping(b"1700000000000")
    async with asyncio.timeout(5):
        while not peer.heard:
            await asyncio.sleep(0.005)
    assert peer.heard[0][1] == "1700000000000"
    await wire.close()
