"""Two gateway processes behind one door: who is cut off from one resumes on the other, where nobody had listened."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import keys
from cryptopulse.common.contracts.candles import CandleBatch
from cryptopulse.common.contracts.indicators import IndicatorBatch, IndicatorUpdate, Signal, Warmup
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.contracts.ticks import TickBatch
from cryptopulse.common.contracts.topics import CANDLES, INDICATORS, SIGNALS, TICKS
from cryptopulse.common.testing.builders import a_candle, a_trade
from cryptopulse.common.testing.servers.ports import free_port

MINUTE = 60_000
FOLLOWING_SECONDS = 3.0
"""Replicas look once a second whose trades the others follow."""
CHANNELS = ("trades", "candles:1s", "candles:1m", "indicators:1m", "indicators:rsi_14:1m", "signals")


@dataclass
class Replicas:
    """Two processes and what feeds them."""

    ports: list[int]
    bus: RabbitBus
    seen: dict[str, list[int]] = field(default_factory=lambda: {channel: [] for channel in CHANNELS})

    async def publish(self, first: int, last: int) -> None:
        """As the ingestor and the shard's owner number it: `first..last` of every channel."""
        offsets = list(range(first, last + 1))
        trades = [a_trade(symbol="BTC-USD", trade_id=number) for number in offsets]
        ticks = TickBatch(venue="coinbase", shard=0, epoch=5, seq=first, sent_us=0, trades=trades,
                          offsets={"BTC-USD": first})  # fmt: skip
        await self.bus.publish(TICKS, ticks, key="batch.0.coinbase", cc=["tick.coinbase.BTC-USD"])
        bars = [a_candle("BTC-USD", open_time=number * MINUTE) for number in offsets]
        batch = CandleBatch(shard=0, epoch=5, interval="1m", candles=bars, offsets=offsets)
        await self.bus.publish(CANDLES, batch, key="batch.1m.0")
        seconds = [a_candle("BTC-USD", interval="1s", open_time=number * 1_000) for number in offsets]
        batch = CandleBatch(shard=0, epoch=5, interval="1s", candles=seconds, offsets=offsets)
        await self.bus.publish(CANDLES, batch, key="live.1s.0")
        values = [
            IndicatorUpdate(
                symbol="BTC-USD", source="consolidated", interval="1m", open_time=number * MINUTE, closed=True, revision=0,
                as_of_us=0, seq=number, values={"rsi_14": 50.0}, warmup=Warmup(have=90, needed=15, converged=True),
            )
            for number in offsets
        ]  # fmt: skip
        told = IndicatorBatch(shard=0, epoch=5, interval="1m", updates=values, offsets=offsets)
        await self.bus.publish(INDICATORS, told, key="closed.1m.0")
        for number in offsets:
            signal = Signal(
                id=f"sg_{number}", kind="ema_cross", symbol="BTC-USD", source="consolidated", interval="1m",
                open_time=number * MINUTE, status="confirmed", direction="up", at_us=0, epoch=5, offset=number,
            )  # fmt: skip
            await self.bus.publish(SIGNALS, signal, key="signal.ema_cross.BTC-USD")

    async def listen(self, port: int, until: int, places: dict[str, Any]) -> dict[str, Any]:
        """Subscribe to all channels, from their places; the new places once every channel has told `until`."""
        async with connect(f"ws://127.0.0.1:{port}/v1/ws", proxy=None) as ws:
            asked = [
                {
                    "ch": channel,
                    "symbols": ["BTC-USD"],
                    "resume": {"BTC-USD": places[channel]} if places else {},
                }
                for channel in CHANNELS
            ]
            await ws.send(json.dumps({"op": "subscribe", "channels": asked}))
            found: dict[int, str] = {}
            where: dict[str, Any] = {}
            while not found or any(seen[-1:] != [until] for seen in self.seen.values()):
                message = json.loads(await asyncio.wait_for(ws.recv(), 15))
                if message["type"] == "ack":
                    assert message["ok"], message["rejected"]
                    assert all(row["recovered"] for row in message["subscribed"] if places), message
                    for row in message["subscribed"]:
                        found[row["sid"]] = row["ch"]
                        where[row["ch"]] = {"epoch": row["epoch"], "offset": row["offset"]}
                    if not places:
                        await asyncio.sleep(FOLLOWING_SECONDS)
                        await self.publish(1, until)
                elif message.get("sid") in found:
                    channel = found[message["sid"]]
                    where[channel] = {
                        "epoch": message.get("epoch", where[channel]["epoch"]),
                        "offset": message["offset"],
                    }
                    self.seen[channel].append(message["offset"])
            return where


@pytest_asyncio.fixture
async def replicas(
    rabbit_vhost: str, redis_db: str, postgres_db: str, tmp_path: Path
) -> AsyncIterator[Replicas]:
    """Two gateways on the same servers, both ready."""
    redis = Redis.from_url(redis_db)
    catalogue = Catalogue(version=1, pairs=[Pair("BTC-USD", ["coinbase"])])
    await redis.set(keys.CATALOGUE, msgspec.msgpack.encode(catalogue))
    await redis.set(keys.CATALOGUE_VERSION, 1)
    await redis.aclose()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOPULSE_")}
    settings = kept | {
        "RABBITMQ_URL": rabbit_vhost,
        "REDIS_URL": redis_db,
        "DATABASE_URL": postgres_db,
        "JWT_SECRET": "a-secret-of-at-least-thirty-two-bytes",
        "INTERNAL_JWT_SECRET": "another-secret-of-at-least-32-bytes",
        "CRYPTOPULSE_GATEWAY_READY_AFTER_SECONDS": "2",
    }
    command = [sys.executable, "-m", "cryptopulse.gateway"]
    await asyncio.to_thread(
        subprocess.run, [*command, "migrate"], env=settings, check=True, capture_output=True, timeout=60
    )
    ports, processes, bus = [], [], RabbitBus(rabbit_vhost, service="indicators")
    try:
        for name in ("first", "second"):
            public, internal = free_port(), free_port()
            env = settings | {"PORT": str(public), "CRYPTOPULSE_GATEWAY_PORT": str(internal)}
            with (tmp_path / name).open("wb") as log:
                processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))  # noqa: ASYNC220 - started in a moment
            ports.append(public)
            await _until_ready(internal, tmp_path / name)
        await bus.start()
        assert await bus.wait_connected(20)
        yield Replicas(ports, bus)
    finally:
        await bus.close()
        for process in processes:
            process.terminate()
        for process in processes:
            await asyncio.to_thread(process.wait, 20)


async def _until_ready(port: int, log: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(400):
            try:
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"not ready: {log.read_text()[-2000:]}")


async def test_who_is_cut_off_resumes_on_the_other_replica_without_gap_or_double(replicas: Replicas) -> None:
    first, second = replicas.ports
    places = await replicas.listen(first, 3, {})
    await replicas.publish(4, 6)
    await asyncio.sleep(0.5)
    await replicas.listen(second, 6, places)
    assert replicas.seen == {channel: [1, 2, 3, 4, 5, 6] for channel in CHANNELS}
