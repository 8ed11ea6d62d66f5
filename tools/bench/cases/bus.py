"""Batches of ticks to RabbitMQ with confirms, and back: ours beside bare aio-pika with the same bodies."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal

import aio_pika

from cryptopulse.common.bus.codec import encode
from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.common.contracts.topics import TICKS, Queue
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved

TITLE = "Bus: ticks in batches of 256 to RabbitMQ with confirms, and consumed"
BATCHES, SIZE, WINDOW = 200, 256, 64
AT_US = 1_700_000_000_000_000


def batch(seq: int) -> TickBatch:
    """A batch of one symbol."""
    trades = [
        Trade(
            "BTC-USDT", seq * SIZE + i, Decimal("67000.10"), Decimal("0.00123"), "buy", AT_US + i, AT_US + i
        )
        for i in range(SIZE)
    ]
    return TickBatch(venue="bench", shard=9, epoch=1, seq=seq, sent_us=AT_US, trades=trades)


async def run() -> list[Row]:
    """Ours and bare aio-pika, interleaved."""
    url = os.environ["RABBITMQ_URL"]
    batches = [batch(seq) for seq in range(BATCHES)]
    bus = RabbitBus(url, service="bench", confirm_window=WINDOW)
    await bus.start()
    if not await bus.wait_connected(20):
        raise RuntimeError("RabbitMQ did not answer")
    async with await aio_pika.connect(url) as connection:
        try:
            contenders = [
                Contender("CryptoPulse bus", lambda: _ours(bus, batches)),
                Contender("bare aio-pika", lambda: _bare(connection, batches)),
            ]
            return await interleaved("bus", "ticks/s", contenders)
        finally:
            await bus.close()


async def _ours(bus: RabbitBus, batches: list[TickBatch]) -> Sample:
    got, done = 0, asyncio.Event()

    async def count(delivery: Delivery) -> None:
        nonlocal got
        got += len(delivery.message.trades)
        if got == len(batches) * SIZE:
            done.set()

    queue = Queue("bench", TICKS, ("batch.9.#",), exclusive=True, max_length=len(batches) * 2)
    subscription = await bus.subscribe(queue, count, prefetch=200)
    watch = Stopwatch()
    for message in batches:
        await bus.publish(TICKS, message, key="batch.9.bench")
    await asyncio.wait_for(done.wait(), 60)
    sample = watch.sample(got)
    await subscription.close()
    return sample


async def _bare(connection: aio_pika.abc.AbstractConnection, batches: list[TickBatch]) -> Sample:
    channel = await connection.channel()
    await channel.set_qos(200)
    exchange = await channel.get_exchange(TICKS.exchange, ensure=False)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, "batch.9.#")
    got, done = 0, asyncio.Event()

    async def count(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal got
        got += SIZE
        await message.ack()
        if got == len(batches) * SIZE:
            done.set()

    tag = await queue.consume(count)
    window = asyncio.Semaphore(WINDOW)

    async def publish(body: bytes) -> None:
        await exchange.publish(aio_pika.Message(body), "batch.9.bench", mandatory=False)
        window.release()

    watch = Stopwatch()
    tasks = set()
    for message in batches:
        await window.acquire()
        tasks.add(asyncio.create_task(publish(encode(message))))
    await asyncio.wait_for(done.wait(), 60)
    await asyncio.gather(*tasks)
    sample = watch.sample(got)
    await queue.cancel(tag)
    await queue.delete(if_unused=False, if_empty=False)
    await channel.close()
    return sample
