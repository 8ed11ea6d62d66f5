"""What the benchmark of the route looks at while it runs: one client's sockets, Redis, and trades that make an alert fire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import websockets
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.prices import PriceUpdate
from tools.bench.measure import percentile
from tools.harness.system import System

WATCHED = "BTC-USDT"
LOOK_SECONDS = 0.005
CROSS_SECONDS = 0.25
SLOW = 4008
"""The close code of who does not read fast enough."""
_decode = msgspec.msgpack.Decoder(PriceUpdate).decode


@dataclass
class Seen:
    """Latencies in ms by where they end, and the trade ids of the watched pair by venue."""

    socket_ms: list[float] = field(default_factory=list)
    received_ms: list[float] = field(default_factory=list)
    redis_ms: list[float] = field(default_factory=list)
    alert_ms: list[float] = field(default_factory=list)
    ids: dict[str, list[int]] = field(default_factory=dict)
    is_settling: bool = False
    """True once no further trade may be made and nothing is looked at anew: what arrives late is waited for."""
    conflated: int = 0
    """Trades of the watched pair that came folded into bars, for the route had more than it could carry."""
    cut: int = 0
    """Closures of the client's own socket: it reads too slowly, on a machine that is more than full."""

    def clear(self) -> None:
        """Forget the latencies of the warm-up; the ids stay."""
        for values in (self.socket_ms, self.received_ms, self.redis_ms, self.alert_ms):
            values.clear()

    def figures(self) -> dict[str, float]:
        """Percentiles of what was seen since the last `clear`."""
        ways = {"": self.socket_ms, "rx ": self.received_ms, "redis ": self.redis_ms, "alert ": self.alert_ms}
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        return {
            f"{way}{name} ms": percentile(values, share)
            for way, values in ways.items()
            for name, share in shares.items()
            if len(values) > (0 if share < 0.999 else 1_000)
        } | {"timed": len(self.socket_ms), "alerts": len(self.alert_ms), "cut": self.cut}


@contextlib.asynccontextmanager
async def probes(system: System, headers: dict[str, str], seen: Seen) -> AsyncIterator[None]:
    """All of them, until the block ends; a probe that fails fails the run."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work)
            for work in (_listen(system, headers, seen), _look(system, seen), _cross(system, seen))
        ]
        try:
            yield
        finally:
            seen.is_settling = True
            for task in tasks:
                task.cancel()


async def _listen(system: System, headers: dict[str, str], seen: Seen) -> None:
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None, max_queue=None) as socket:
        channels = [{"ch": "trades", "symbols": [WATCHED]}, {"ch": "alerts"}]
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": channels}))
        try:
            async for frame in socket:
                _note(json.loads(frame), seen)
        except websockets.ConnectionClosedError as error:
            if error.rcvd is None or error.rcvd.code != SLOW:
                raise
            seen.cut += 1


def _note(body: dict[str, Any], seen: Seen) -> None:
    now = time.time() * 1000
    event = body.get("event") or {}
    # A summary of what was held back is of the minute before.
    if event.get("type") == "alert.triggered" and not event["late"]:
        seen.alert_ms.append(now - event["at_ms"])
    data = body.get("data") or {}
    if body.get("type") == "update" and "id" in data:
        seen.received_ms.append(now - data["rx"])
        if data["src"] == "binance":
            seen.socket_ms.append(now - data["ts"])
        # What an overload has made one stands for all of its ids.
        seen.ids.setdefault(data["src"], []).extend(range(data.get("first_id", data["id"]), data["id"] + 1))
        seen.conflated += data.get("n", 0)


@contextlib.asynccontextmanager
async def following(url: str, seen: Seen) -> AsyncIterator[None]:
    """A socket on which nothing but trades come, until the block ends."""

    async def note() -> None:
        async for frame in socket:
            _note(json.loads(frame), seen)

    async with websockets.connect(url, proxy=None, max_queue=None) as socket:
        task = asyncio.create_task(note())
        try:
            yield
        finally:
            task.cancel()


async def _look(system: System, seen: Seen) -> None:
    """The age of the newest trade when its price is first seen in Redis; a look every 5 ms."""
    known = 0
    async with Redis.from_url(system.backends.redis) as redis:
        # Not for ever: the client loses a cancellation at times, and the group waits for its tasks.
        while not seen.is_settling:
            await asyncio.sleep(LOOK_SECONDS)
            stored = await redis.get(keys.venue_price(WATCHED, "binance"))
            if not isinstance(stored, bytes):
                continue
            update = _decode(stored)
            if update.seq != known:
                known = update.seq
                seen.redis_ms.append(time.time() * 1000 - update.event_us / 1000)


async def _cross(system: System, seen: Seen) -> None:
    """A trade far above the market every quarter of a second: the rule that waits there fires on it."""
    price = float((await system.price("BTC"))["price"])
    while not seen.is_settling:
        order = {"venue": "binance", "symbol": WATCHED, "price": f"{price * 1.06:.2f}"}
        await system.control("POST", "/trade", json=order)
        await asyncio.sleep(CROSS_SECONDS)
