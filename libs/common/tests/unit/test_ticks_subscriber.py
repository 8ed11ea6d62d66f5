"""A subscriber of one pair gets that pair's trades only."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial

import pytest

from cryptopulse.common.bus.memory import MemoryBroker, MemoryBus
from cryptopulse.common.bus.ticks import subscribe_ticks
from cryptopulse.common.contracts.ticks import Conflated, TickBatch, Trade
from cryptopulse.common.contracts.topics import TICKS
from cryptopulse.common.contracts.values import ValueRefusedError
from cryptopulse.common.testing.builders import a_trade

ONE = Decimal(1)


async def test_only_the_asked_pair_arrives_though_the_batch_holds_others() -> None:
    bus = MemoryBus(MemoryBroker(), service="suite")
    got: list[Trade] = []
    arrived = asyncio.Event()

    async def keep(trade: Trade) -> None:
        got.append(trade)
        arrived.set()

    await subscribe_ticks(bus, "BTC-USDT", keep)
    trades = [
        a_trade("ETH-USDT", trade_id=1),
        a_trade("BTC-USDT", trade_id=2),
        a_trade("BTC-USD", trade_id=3),
    ]
    batch = TickBatch(venue="binance", shard=0, epoch=1, seq=1, sent_us=0, trades=trades)
    await bus.publish(
        TICKS, batch, key="batch.0.binance", cc=["tick.binance.ETH-USDT", "tick.binance.BTC-USDT"]
    )
    await bus.publish(TICKS, batch, key="batch.0.binance", cc=["tick.binance.ETH-USDT"])
    await asyncio.wait_for(arrived.wait(), 5)
    await asyncio.sleep(0.1)
    assert [trade.trade_id for trade in got] == [2]
    await bus.close()


async def test_what_an_overload_has_conflated_arrives_after_the_trades_before_it() -> None:
    bus = MemoryBus(MemoryBroker(), service="suite")
    got: list[int] = []
    folded = partial(
        Conflated, open=ONE, high=ONE, low=ONE, close=ONE, volume=ONE, quote_volume=ONE, taker_buy_volume=ONE,
        trades=2, first_event_us=1, last_event_us=2, received_us=3,
    )  # fmt: skip
    await subscribe_ticks(
        bus,
        "BTC-USDT",
        lambda trade: got.append(trade.trade_id),
        on_conflated=lambda bar: got.append(bar.last_id),
    )
    batch = TickBatch(
        venue="binance",
        shard=0,
        epoch=1,
        seq=1,
        sent_us=0,
        trades=[a_trade("BTC-USDT", trade_id=1)],
        conflated=[
            folded(symbol="ETH-USDT", first_id=7, last_id=8),
            folded(symbol="BTC-USDT", first_id=2, last_id=3),
        ],
    )
    await bus.publish(TICKS, batch, key="batch.0.binance", cc=["tick.binance.BTC-USDT"])
    async with asyncio.timeout(5):
        while len(got) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert got == [1, 3]
    await bus.close()


async def test_a_name_that_is_no_symbol_is_refused() -> None:
    with pytest.raises(ValueRefusedError):
        await subscribe_ticks(MemoryBus(MemoryBroker(), service="suite"), "btc", print)
