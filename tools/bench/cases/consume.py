"""The indicator service beside a consumer that receives and acks: the same batches of ticks, waiting in RabbitMQ.

Ours is the service as a process, with its stores: it decodes, folds, prices, stores, publishes, snapshots and acks. It is
stopped while the batches are published and then works them off; what is counted is its CPU time. The bare consumer only receives and
acks the same bodies with the same prefetch.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from decimal import Decimal
from functools import partial
from pathlib import Path

import aio_pika
import psutil

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.ticks import Quote, TickBatch, Trade
from cryptopulse.common.contracts.topics import DEFAULT_SHARDS, TICKS, shard_of
from tools.bench.backends import fresh_backends
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved, sized
from tools.harness.system import System

TITLE = "Indicators: ticks worked off by the service, beside receive-and-ack"
FLUSHES = sized(1_000, 20)
"""Batches of each venue and shard in a round."""
SIZES = {25: ">= 0.5x receive-and-ack", 100: ""}
"""Trades of a batch, beside the newest quote of each of its symbols, and what is to hold. 25 are 10 ms of 20,000 trades/s in four
shards of two venues, which is the load of the design; 100 are those of 80,000.
"""
VENUES = ("binance", "coinbase")
SYMBOLS = tuple(
    f"{base}-USD" for base in ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")
)
SERVICE = "indicators"
FLUSH_US = 1_000
BARE_PREFETCH = 1_500
LONGEST_SECONDS = 60
IDLE_SECONDS = 0.1
HANDLED = 'cryptopulse_bus_messages_handled_total{consumer="indicators",outcome="ok",topic="ticks"'


class Market:
    """Batches as the ingestor would send them, a millisecond of market each: none is late."""

    def __init__(self) -> None:
        self._dice = random.Random(5)
        self._seq = 0
        self._ids: dict[tuple[str, str], int] = {}
        self._prices = dict.fromkeys(SYMBOLS, 100_000)

    def round(self, size: int) -> list[TickBatch]:
        """The next `FLUSHES` batches of each venue and shard; the last end now."""
        start_us = time.time_ns() // 1000 - FLUSHES * FLUSH_US
        return [
            self._batch(venue, shard, start_us + flush * FLUSH_US, size)
            for flush in range(FLUSHES)
            for shard in range(DEFAULT_SHARDS)
            for venue in VENUES
        ]

    def _batch(self, venue: str, shard: int, at_us: int, size: int) -> TickBatch:
        self._seq += 1
        names = [symbol for symbol in SYMBOLS if shard_of(symbol.partition("-")[0]) == shard]
        trades, quotes = [], {}
        for symbol in self._dice.choices(names, k=size):
            number = self._ids[venue, symbol] = self._ids.get((venue, symbol), 0) + 1
            self._prices[symbol] += self._dice.randint(-3, 3)
            price = Decimal(self._prices[symbol]).scaleb(-2)
            trades.append(Trade(symbol, number, price, Decimal("0.00123"), "buy", at_us, at_us))
            quotes[symbol] = Quote(symbol, price, Decimal(1), price + 1, Decimal(1), at_us, at_us)
        return TickBatch(
            venue=venue,
            shard=shard,
            epoch=1,
            seq=self._seq,
            sent_us=at_us,
            trades=trades,
            quotes=list(quotes.values()),
        )


async def run() -> list[Row]:
    """For each size of batch: ours, then receive-and-ack."""
    settings = {"LOG_LEVEL": "ERROR", "CRYPTOPULSE_INDICATORS_WITNESS_SECONDS": "0"}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            fresh_backends() as backends,
            System(
                backends, Path(folder), settings=settings, with_simulator=False, services=(SERVICE,)
            ) as system,
            await aio_pika.connect(backends.rabbitmq) as connection,
        ):
            bus = RabbitBus(backends.rabbitmq, service="bench", confirm_window=64)
            await bus.start()
            if not await bus.wait_connected(20):
                raise RuntimeError("RabbitMQ did not answer")
            try:
                market = Market()
                await system.until(
                    lambda: _all_consume(system, bus, market), what="all shards consume", of=SERVICE
                )
                for size, hold in SIZES.items():
                    same = market.round(size)
                    contenders = [
                        Contender(
                            f"the service, batches of {size} trades",
                            partial(_ours, system, bus, market, size),
                        ),
                        Contender(f"receive-and-ack, {size}", partial(_bare, connection, bus, same)),
                    ]
                    rows += await interleaved("consume", "ticks/s", contenders, rounds=3, hold=hold)
            finally:
                await bus.close()
    return rows


async def _all_consume(system: System, bus: RabbitBus, market: Market) -> bool:
    """Whether a batch of every shard arrives: a queue that is not declared yet would lose what is measured."""
    before, batches = await _metric(system, HANDLED), market.round(1)[: DEFAULT_SHARDS * len(VENUES)]
    await _publish(bus, batches, "batch.{shard}.{venue}")
    await asyncio.sleep(0.5)
    return await _metric(system, HANDLED) - before == len(batches)


async def _metric(system: System, name: str) -> float:
    """The sum over the labels of a metric of the service."""
    answer = await system.client.get(f"http://127.0.0.1:{system.ports[SERVICE]}/metrics")
    lines = [line for line in answer.text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def _ours(system: System, bus: RabbitBus, market: Market, size: int) -> Sample:
    batches = market.round(size)
    process = system.processes[SERVICE]
    wanted = await _metric(system, HANDLED) + len(batches)
    process.send_signal(signal.SIGSTOP)
    try:
        await _publish(bus, batches, "batch.{shard}.{venue}")
        before, started = _cpu(process.pid), time.perf_counter()
    finally:
        process.send_signal(signal.SIGCONT)
    while True:
        # Asked only when it is no longer busy: an answer of `/metrics` would count as work on ticks.
        cpu, wall = await _until_idle(process.pid) - before, time.perf_counter() - started
        if await _metric(system, HANDLED) >= wanted:
            return Sample(_ticks(batches), cpu, wall)
        if wall > LONGEST_SECONDS:
            raise RuntimeError("the service did not work its batches off")


async def _until_idle(pid: int) -> float:
    """CPU seconds of a process once it has used less than half a core for a moment."""
    used = _cpu(pid)
    while True:
        await asyncio.sleep(IDLE_SECONDS)
        now = _cpu(pid)
        if now - used < IDLE_SECONDS / 2:
            return now
        used = now


async def _bare(
    connection: aio_pika.abc.AbstractConnection, bus: RabbitBus, batches: list[TickBatch]
) -> Sample:
    channel = await connection.channel()
    await channel.set_qos(BARE_PREFETCH)
    exchange = await channel.get_exchange(TICKS.exchange, ensure=False)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, "bare.#")
    await _publish(bus, batches, "bare.{shard}.{venue}")
    got, done = 0, asyncio.Event()

    async def count(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal got
        await message.ack()
        got += 1
        if got == len(batches):
            done.set()

    watch = Stopwatch()
    tag = await queue.consume(count)
    await asyncio.wait_for(done.wait(), LONGEST_SECONDS)
    sample = watch.sample(_ticks(batches))
    await queue.cancel(tag)
    await queue.delete(if_unused=False, if_empty=False)
    await channel.close()
    return sample


async def _publish(bus: RabbitBus, batches: list[TickBatch], pattern: str) -> None:
    settled, done = 0, asyncio.Event()

    def settle(confirmed: bool) -> None:
        nonlocal settled
        if not confirmed:
            raise RuntimeError("a batch was not confirmed")
        settled += 1
        if settled == len(batches):
            done.set()

    for batch in batches:
        key = pattern.format(shard=batch.shard, venue=batch.venue)
        await bus.publish(TICKS, batch, key=key, on_settled=settle)
    await asyncio.wait_for(done.wait(), LONGEST_SECONDS)


def _ticks(batches: list[TickBatch]) -> int:
    return sum(len(batch.trades) for batch in batches)


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
