"""A consumer is set up within bounds, whatever the connection is worth."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cryptopulse.common.bus import consumer as module
from cryptopulse.common.bus.consumer import Consumer
from cryptopulse.common.bus.deliveries import Received
from cryptopulse.common.bus.protocols import Delivery, Handler
from cryptopulse.common.contracts.topics import TICKS, Queue
from cryptopulse.common.errors import BusUnavailable, Retryable


def a_consumer(handler: Handler) -> Consumer:
    queue = Queue(consumer="test", topic=TICKS, bindings=("batch.#",), exclusive=True)
    return Consumer(queue, handler, prefetch=1, manual_ack=False, name="", now_us=lambda: 0)


async def never(*_: Any, **__: Any) -> Any:
    """No answer."""
    await asyncio.Event().wait()


async def test_a_connection_that_answers_nothing_any_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one whose reader has just ended: open by its own word, and no answer will ever be read."""
    monkeypatch.setattr(module, "ANSWERED_WITHIN_SECONDS", 0.05)

    connection: Any = SimpleNamespace(transport=SimpleNamespace(connection=SimpleNamespace(channel=never)))
    consumer = a_consumer(never)
    with pytest.raises(BusUnavailable, match="does not answer"):
        await asyncio.wait_for(consumer.establish(connection), 5)
    assert not consumer.active


async def test_a_binding_that_nobody_answers_is_kept_for_the_next_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWERED_WITHIN_SECONDS", 0.05)

    async def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError

    for answer in (never, refused):
        consumer = a_consumer(never)
        channel: Any = SimpleNamespace(is_closed=False, consumers={"tag": None}, queue_bind=answer)
        consumer._channel, consumer._tag = channel, "tag"
        before = consumer.active
        await asyncio.wait_for(consumer.bind("market.ticks", "tick.*.BTC-USD"), 5)
        assert (before, consumer.active) == (True, False)
        assert consumer.bindings == [("market.ticks", "tick.*.BTC-USD")]


class _Channel:
    """As one of a connection whose writer has ended: what is sent waits for ever for room in its queue."""

    def __init__(self) -> None:
        self.is_closed = False
        self.consumers: dict[str, Any] = {}
        self.deliver: Any = None
        self.stuck = asyncio.Event()

    async def basic_ack(self, *_: Any, **__: Any) -> None:
        self.stuck.set()
        await asyncio.Event().wait()

    basic_nack = basic_ack

    async def basic_consume(self, _queue: str, deliver: Any) -> Any:
        self.deliver = deliver
        self.consumers["tag"] = deliver
        return SimpleNamespace(consumer_tag="tag")

    async def basic_qos(self, **_: Any) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("error", [None, Retryable("later"), ValueError("never")])
async def test_an_ack_that_a_dead_channel_never_takes_does_not_hold_up_the_next_channel(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Seen after a pause of the process: the consumer was deaf, and whoever wanted another one waited behind it."""
    monkeypatch.setattr(module, "ANSWERED_WITHIN_SECONDS", 0.5)
    monkeypatch.setattr(module, "_received", lambda _raw, epoch: Received(None, "", "", tag=1, epoch=epoch))

    async def opened(connection: Any, **_: Any) -> Any:
        return connection

    async def declared(*_: Any) -> str:
        return "queue"

    async def handler(_: Delivery) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(module, "open_channel", opened)
    monkeypatch.setattr(module, "declare_queue", declared)
    consumer = a_consumer(handler)
    first, second = _Channel(), _Channel()
    raw = SimpleNamespace(delivery_tag=1, header=SimpleNamespace(properties=SimpleNamespace(message_id="1")))
    await consumer.establish(cast("Any", first))
    await first.deliver(raw)
    await asyncio.wait_for(first.stuck.wait(), 5)
    first.is_closed = True
    await asyncio.wait_for(consumer.establish(cast("Any", second)), 5)
    assert consumer.active
    await asyncio.wait_for(consumer.ack(Received(None, "", "", tag=1, epoch=2)), 5)
    assert second.stuck.is_set()  # by hand it was asked for, and given up
    await asyncio.wait_for(consumer.close(), 5)
