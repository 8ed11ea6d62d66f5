"""A consumer is set up within bounds, whatever the connection is worth."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cryptopulse.common.bus import consumer as module
from cryptopulse.common.bus.consumer import Consumer
from cryptopulse.common.contracts.topics import TICKS, Queue
from cryptopulse.common.errors import BusUnavailable


async def test_a_connection_that_answers_nothing_any_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one whose reader has just ended: open by its own word, and no answer will ever be read."""
    monkeypatch.setattr(module, "ANSWERED_WITHIN_SECONDS", 0.05)

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    connection: Any = SimpleNamespace(transport=SimpleNamespace(connection=SimpleNamespace(channel=never)))
    queue = Queue(consumer="test", topic=TICKS, bindings=("batch.#",), exclusive=True)
    consumer = Consumer(queue, never, prefetch=1, manual_ack=False, name="", now_us=lambda: 0)
    with pytest.raises(BusUnavailable, match="does not answer"):
        await asyncio.wait_for(consumer.establish(connection), 5)
    assert not consumer.active


async def test_a_binding_that_nobody_answers_is_kept_for_the_next_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWERED_WITHIN_SECONDS", 0.05)

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError

    queue = Queue(consumer="test", topic=TICKS, bindings=("batch.#",), exclusive=True)
    for answer in (never, refused):
        consumer = Consumer(queue, never, prefetch=1, manual_ack=False, name="", now_us=lambda: 0)
        channel: Any = SimpleNamespace(is_closed=False, consumers={"tag": None}, queue_bind=answer)
        consumer._channel, consumer._tag = channel, "tag"
        before = consumer.active
        await asyncio.wait_for(consumer.bind("market.ticks", "tick.*.BTC-USD"), 5)
        assert (before, consumer.active) == (True, False)
        assert consumer.bindings == [("market.ticks", "tick.*.BTC-USD")]
