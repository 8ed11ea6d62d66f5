"""A broker of its own that is killed, stays away, or raises its memory alarm under load: the ledger is complete afterwards.

`CRYPTOPULSE_BROKER_AWAY_SECONDS` says how long it stays away (60); beyond the buffer's bound trades are conflated, with
exact ranges, and never missing.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from cryptopulse.common.testing.servers.binaries import find_rabbitmq
from cryptopulse.common.testing.servers.rabbitmq import RabbitServer
from cryptopulse.common.testing.servers.server import Profile
from tools.venue_sim.testing import running_simulator

AWAY_SECONDS = float(os.environ.get("CRYPTOPULSE_BROKER_AWAY_SECONDS", "60"))
RATE = 2_000
MARKETS = (("binance", "BTC-USDT"), ("binance", "ETH-USDT"), ("coinbase", "BTC-USD"), ("coinbase", "ETH-USD"))
SYMBOLS = "BTC-USDT,ETH-USDT,BTC-USD,ETH-USD"

pytestmark = [pytest.mark.ingest, pytest.mark.timeout(180 + 3 * AWAY_SECONDS)]


class OwnBroker:
    """A RabbitMQ node that may be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self._server = RabbitServer(folder, Profile(durable=True, management=False), os.environ)

    async def start(self) -> None:
        self._server.choose_ports()
        self._server.launch()
        await self._ready()

    async def kill(self) -> None:
        node = self._server.children[-1]
        node.signal(signal.SIGKILL)
        assert await asyncio.to_thread(node.join, 10)

    async def revive(self) -> None:
        await asyncio.to_thread(self._server.join)
        self._server.launch()
        await self._ready()

    async def _ready(self) -> None:
        async with asyncio.timeout(90):
            while not await asyncio.to_thread(self._server.is_ready):
                assert self._server.is_running(), self._server.log_tail()
                await asyncio.sleep(0.1)

    async def ctl(self, *arguments: str) -> None:
        found = find_rabbitmq(os.environ)
        assert found is not None
        env = self._server.environment()
        env.pop("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS")
        command = [str(found.server.with_name("rabbitmqctl")), *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def url(self) -> str:
        return self._server.urls()["RABBITMQ_URL"]

    def stop(self) -> None:
        self._server.ask_to_stop()
        self._server.join()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[OwnBroker]:
    if find_rabbitmq(os.environ) is None:
        pytest.skip("no rabbitmq-server is installed here: a broker that may be killed needs one")
    (tmp_path / "servers").mkdir()
    found = OwnBroker(tmp_path / "servers")
    await found.start()
    try:
        yield found
    finally:
        await asyncio.to_thread(found.stop)


@pytest.fixture
async def survivor(broker: OwnBroker, make_collector: Any) -> Any:
    """A collector whose queue outlives the broker, as those of the services do."""
    return await make_collector(broker.url, survives=True)


async def _booked(sim: Any, collector: Any, eventually: Any) -> str:
    """The market stops; every trade that the venues sent is covered, none with other figures. What it took, in words."""
    await asyncio.sleep(2)
    await sim.control.pause()
    sent = doubled = folded = 0
    for venue, symbol in MARKETS:
        newest = (await sim.control.trades(venue, symbol, limit=1))[-1]["id"]
        await eventually(
            lambda v=venue, s=symbol, n=newest: n in _covered(collector, v, s), 60, f"{symbol} {newest}"
        )
        every = collector.trades[venue, symbol]
        covered = _covered(collector, venue, symbol)
        first = every[0].trade_id
        missing = sorted(set(range(first, newest + 1)) - covered)
        assert missing == [], (venue, symbol, len(missing), missing[:5], missing[-5:])
        booked = {trade.trade_id: trade for trade in every}
        for at in range(first, newest + 1, 1_000):
            for row in await sim.control.trades(venue, symbol, from_id=at, limit=1_000):
                if trade := booked.get(row["id"]):
                    told = (Decimal(row["price"]), Decimal(row["size"]), row["taker"])
                    assert told == (trade.price, trade.size, trade.side)
        sent += newest - first + 1
        doubled += len(every) - len(booked)
        folded += len(covered) - len(booked)
    return f"sent {sent}, conflated {folded}, doubles for consumers to drop {doubled}, lost 0"


def _covered(collector: Any, venue: str, symbol: str) -> set[int]:
    ids = {trade.trade_id for trade in collector.trades[venue, symbol]}
    for batch in collector.batches:
        for bar in batch.conflated:
            if (batch.venue, bar.symbol) == (venue, symbol):
                assert bar.trades == bar.last_id - bar.first_id + 1
                ids |= set(range(bar.first_id, bar.last_id + 1))
    return ids


async def test_a_broker_killed_under_load_loses_no_trade(
    broker: OwnBroker, survivor: Any, ingestor: Any, eventually: Any, figures: list[str]
) -> None:
    async with running_simulator(process=True, rate=RATE, symbols=SYMBOLS) as sim:
        ingestor.environment |= sim.environment() | {"RABBITMQ_URL": broker.url}
        await ingestor.start(SYMBOLS=SYMBOLS)
        for market in MARKETS:
            await eventually(lambda m=market: len(survivor.trades[m]) > 100, 20)
        resident = [psutil.Process(ingestor.pid).memory_info().rss >> 20]
        for _ in range(3 if AWAY_SECONDS < 10 else 1):
            await asyncio.sleep(2)
            await broker.kill()
            for _ in range(math.ceil(AWAY_SECONDS)):
                await asyncio.sleep(1)
                resident.append(psutil.Process(ingestor.pid).memory_info().rss >> 20)
            await broker.revive()
            have = len(survivor.batches)
            await eventually(lambda n=have: len(survivor.batches) > n + 20, 60, "the flow comes back")
        memory = psutil.Process(ingestor.pid).memory_info().rss >> 20
        booked = await _booked(sim, survivor, eventually)
    figures.append(
        f"broker away {AWAY_SECONDS:.0f} s: {booked}; memory of the ingestor {resident[0]} MB before, "
        f"{max(resident)} MB at most, {memory} MB after"
    )
    assert "trades are missing" not in ingestor.log
    assert max(*resident, memory) < 400
    if AWAY_SECONDS < 10:
        assert survivor.conflated == []


async def test_a_memory_alarm_stops_the_publishes_and_loses_no_trade(
    broker: OwnBroker, survivor: Any, ingestor: Any, eventually: Any, figures: list[str]
) -> None:
    async with running_simulator(process=True, rate=RATE, symbols=SYMBOLS) as sim:
        ingestor.environment |= sim.environment() | {"RABBITMQ_URL": broker.url}
        await ingestor.start(SYMBOLS=SYMBOLS)
        for market in MARKETS:
            await eventually(lambda m=market: len(survivor.trades[m]) > 100, 20)
        await broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        await asyncio.sleep(4)
        stopped = len(survivor.batches)
        await asyncio.sleep(2)
        assert len(survivor.batches) == stopped
        await broker.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        await eventually(lambda: len(survivor.batches) > stopped + 20, 30, "the flow comes back")
        booked = await _booked(sim, survivor, eventually)
    figures.append(f"memory alarm: {booked}")
    assert "trades are missing" not in ingestor.log
