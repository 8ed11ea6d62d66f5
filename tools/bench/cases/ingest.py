"""Ingest on recorded Binance trades: parse, normalise and guard to a sink that does nothing, and on to RabbitMQ with confirms.

cryptofeed's figures are taken where it is installed (`tools/bench/requirements.in`): to a callback that does nothing, and by
its own RabbitMQ backend, which sends a confirmed message per trade. Bare aio-pika sends the same batches as we do.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aio_pika
import msgspec

from cryptopulse.common.bus.codec import encode
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.ticks import Quote, TickBatch, Trade
from cryptopulse.ingestor.adapters.binance.parse import BinanceParser
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.publish import FLUSH_TICKS, ShardPublisher, TickTopics
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.ordering import TradeGuard
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved

TITLE = "Ingest: recorded Binance trades, parsed and guarded; and on to RabbitMQ with confirms"
NAMES = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}
NOW_US = 1_723_161_254_087_896
PAUSE_EVERY = 4_096
ONE_BY_ONE = 1_000
"""So many trades of each round go through cryptofeed's backend: it sends them one by one."""


def recorded() -> list[bytes]:
    """The recorded trade frames, BTC then ETH."""
    folder = Path(os.environ.get("CRYPTOPULSE_SHARED", "../shared")) / "recordings" / "binance_spot_ws"
    frames: list[bytes] = []
    for name in ("btcusdt", "ethusdt"):
        with gzip.open(folder / f"{name}_20240808.gz", "rb") as lines:
            frames += [line.partition(b" ")[2].strip() for line in lines if b"@trade" in line[:60]]
    return frames


class Sink:
    """The guard, and nothing behind it."""

    def __init__(self) -> None:
        self.guard = TradeGuard()
        self.passed = 0

    def trade(self, trade: Trade, /) -> None:
        """Count what passes."""
        self.passed += 1 if self.guard.offer(trade) else len(self.guard.settle(trade))

    def trades(self, trades: Sequence[Trade], /) -> None:
        """Not used by this venue."""
        for trade in trades:
            self.trade(trade)

    def quote(self, quote: Quote, /) -> None:
        """Nothing."""

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        """Nothing."""

    def control(self, answer: object, /) -> None:
        """Nothing."""

    def sequence_hole(self, missing: int, /) -> None:
        """Nothing."""

    def refused(self, reason: object, frame: bytes, detail: str, /) -> None:
        """A recorded trade that is refused ends the run."""
        raise RuntimeError(f"{reason}: {detail}: {frame[:200]!r}")


async def run() -> list[Row]:
    """Both cases, each interleaved with its yardsticks."""
    frames = recorded()
    parsers = [Contender("CryptoPulse parse + guard", lambda: _ours(frames))]
    if find_spec("cryptofeed") is not None:
        parsers.append(Contender("cryptofeed 2.4.1", lambda: _cryptofeed(frames)))
    rows = await interleaved("ingest-parse", "trades/s", parsers, rounds=9, hold=">= 400,000")
    url = os.environ["RABBITMQ_URL"]
    bus = RabbitBus(url, service="bench")
    await bus.start()
    if not await bus.wait_connected(20):
        raise RuntimeError("RabbitMQ did not answer")
    batches = _batches(frames)
    async with await aio_pika.connect(url) as connection:
        rabbit = _cryptofeed_backend(url) if find_spec("cryptofeed") is not None else None
        try:
            senders = [
                Contender("CryptoPulse frame to confirmed batch", lambda: _to_bus(bus, frames)),
                Contender("bare aio-pika, ready batches", lambda: _bare(connection, batches)),
            ]
            if rabbit is not None:
                await rabbit.connect()
                few = frames[:ONE_BY_ONE]
                senders.append(
                    Contender("cryptofeed 2.4.1, its RabbitMQ backend", lambda: _cryptofeed(few, rabbit))
                )
            rows += await interleaved("ingest-bus", "ticks/s", senders, hold=">= 50,000")
        finally:
            if rabbit is not None and rabbit.conn is not None:
                await rabbit.conn.channel._connection.close()  # noqa: SLF001 - the backend keeps no way to close it
            await bus.close()
    return rows


def _ours(frames: list[bytes]) -> Sample:
    sink = Sink()
    parse = BinanceParser(NAMES, sink).parse
    watch = Stopwatch()
    for frame in frames:
        parse(frame, NOW_US)
    sample = watch.sample(len(frames))
    if sink.passed != len(frames):
        raise RuntimeError(f"{sink.passed} of {len(frames)} trades passed")
    return sample


def _cryptofeed_backend(url: str) -> Any:
    """Cryptofeed's backend for trades, on our exchange."""
    backend = import_module("cryptofeed.backends.rabbitmq").TradeRabbit
    return backend(
        host=url.removeprefix("amqp://"),
        exchange_mode=True,
        exchange_name="market.ticks",
        routing_key="batch.0.bench",
    )


async def _cryptofeed(
    frames: list[bytes], backend: Callable[[Any, float], Awaitable[None]] | None = None
) -> Sample:
    """The same trades under the names of the aggregate stream, which is the one that it reads."""
    defines, exchanges = import_module("cryptofeed.defines"), import_module("cryptofeed.exchanges")
    symbols = import_module("cryptofeed.symbols").Symbols
    symbols.set(defines.BINANCE, {ours: native for native, ours in NAMES.items()}, {"instrument_type": {}})
    got = 0

    async def count(trade: Any, receipt: float) -> None:
        nonlocal got
        got += 1
        if backend is not None:
            await backend(trade, receipt)

    feed = exchanges.Binance(callbacks={defines.TRADES: count})
    feed.requires_authentication = False
    texts = [
        frame.decode()
        .replace("@trade", "@aggTrade")
        .replace('"e":"trade"', '"e":"aggTrade"')
        .replace('"t":', '"a":')
        for frame in frames
    ]
    watch = Stopwatch()
    for text in texts:
        await feed.message_handler(text, None, 1_723_161_254.0)
    sample = watch.sample(len(frames))
    if got != len(frames):
        raise RuntimeError(f"cryptofeed passed {got} of {len(frames)} trades")
    return sample


async def _to_bus(bus: RabbitBus, frames: list[bytes]) -> Sample:
    """Everything between a frame in hand and a confirmed batch, on one loop."""
    clock, offset = SystemClock(), ClockOffset()
    publishers = [
        ShardPublisher(
            bus,
            clock,
            venue="bench",
            shard=shard,
            part="1/1",
            limit=len(frames) + 1,
            flush_seconds=0.005,
            topics=TickTopics.parse("none"),
            simulated=True,
            offset=offset,
        )
        for shard in range(4)
    ]
    ingest = Ingest("bench", clock, publishers, hold_us=0, shards=4)
    sink: Any = Sink()
    sink.trade = ingest.trade
    parse = BinanceParser(NAMES, sink).parse
    tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]
    watch = Stopwatch()
    for at, frame in enumerate(frames):
        parse(frame, clock.now_us())
        if at % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    for publisher in publishers:
        await publisher.drained()
    while bus._in_flight:  # noqa: ASYNC110, SLF001 - the confirms belong to what is measured
        await asyncio.sleep(0.001)
    sample = watch.sample(len(frames))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sample


def _batches(frames: list[bytes]) -> list[bytes]:
    sink: Any = Sink()
    kept: list[Trade] = []
    sink.trade = kept.append
    parser = BinanceParser(NAMES, sink)
    for frame in frames:
        parser.parse(frame, NOW_US)
    batches = [kept[at : at + FLUSH_TICKS] for at in range(0, len(kept), FLUSH_TICKS)]
    return [
        encode(TickBatch(venue="bench", shard=0, epoch=1, seq=seq, sent_us=NOW_US, trades=trades))
        for seq, trades in enumerate(batches)
    ]


async def _bare(connection: Any, batches: list[bytes]) -> Sample:
    channel = await connection.channel(publisher_confirms=True)
    exchange = await channel.get_exchange("market.ticks")
    window = asyncio.Semaphore(64)

    async def send(body: bytes) -> None:
        async with window:
            await exchange.publish(aio_pika.Message(body), "batch.0.bench", mandatory=False)

    trades = sum(len(msgspec.msgpack.decode(body)["trades"]) for body in batches)
    watch = Stopwatch()
    await asyncio.gather(*(send(body) for body in batches))
    sample = watch.sample(trades)
    await channel.close()
    return sample
