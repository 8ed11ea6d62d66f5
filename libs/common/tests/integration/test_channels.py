"""One channel never stops the others of its connection."""

from __future__ import annotations

import asyncio
import contextlib

import aio_pika
import pytest
from aiormq.abc import DeliveredMessage

from cryptopulse.common.bus.link import open_channel


async def test_a_channel_that_nobody_reads_stops_no_other(
    rabbit_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await aio_pika.connect(rabbit_vhost)
    try:
        stuck = await open_channel(connection, confirms=False)
        declared = await stuck.queue_declare(exclusive=True)
        name = declared.queue or ""

        async def taken(_: DeliveredMessage) -> None: ...

        await stuck.basic_consume(name, taken, no_ack=True)
        monkeypatch.setattr(stuck, "_get_frame", asyncio.Event().wait)
        publisher = await open_channel(connection, confirms=False)
        for _ in range(50):
            await publisher.basic_publish(b"x", routing_key=name)

        async with asyncio.timeout(5):
            other = await open_channel(connection, confirms=False)
            assert (await other.queue_declare(exclusive=True)).queue
    finally:
        with contextlib.suppress(TimeoutError):  # the stuck channel answers no close
            await asyncio.wait_for(connection.close(), 2)
