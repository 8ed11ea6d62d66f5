"""For other services: the trades or batches of one pair, without knowing shards or batches.

A batch that is routed by the key of one symbol can hold others: here they are filtered out.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial

from cryptopulse.common.bus.protocols import Bus, Delivery, Subscription
from cryptopulse.common.contracts.ticks import Conflated, TickBatch, Trade
from cryptopulse.common.contracts.topics import TICKS, Queue
from cryptopulse.common.contracts.values import split_symbol

OnTrade = Callable[[Trade], Awaitable[None] | None]
OnConflated = Callable[[Conflated], Awaitable[None] | None]


async def subscribe_ticks(
    bus: Bus,
    symbol: str,
    on_trade: OnTrade,
    *,
    venue: str = "*",
    on_conflated: OnConflated | None = None,
) -> Subscription:
    """Call `on_trade` with every trade of `symbol` (of one venue, or of all), in the order of each venue.

    Trades that an overload has folded into a bar come to `on_conflated`, after the trades before them; without it they are missed.
    The subscription has a queue of its own, bounded, newest wins: a slow subscriber loses the oldest, never slows others.
    An exception of a callback drops the rest of that batch and is logged. Raises `ValueRefusedError` for a bad symbol.
    """
    split_symbol(symbol)

    async def handle(delivery: Delivery) -> None:
        batch: TickBatch = delivery.message
        calls = [partial(on_trade, trade) for trade in batch.trades if trade.symbol == symbol]
        if on_conflated is not None:
            calls += [partial(on_conflated, bar) for bar in batch.conflated if bar.symbol == symbol]
        for call in calls:
            answer = call()
            if inspect.isawaitable(answer):
                await answer

    queue = Queue(consumer="subscriber", topic=TICKS, bindings=(f"tick.{venue}.{symbol}",), exclusive=True)
    return await bus.subscribe(queue, handle)
