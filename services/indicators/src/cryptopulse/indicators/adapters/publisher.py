"""What this service says on the bus: batches of one shard, with convenience keys for those who want one symbol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.cache import keys
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle, CandleBatch
from cryptopulse.common.contracts.indicators import IndicatorBatch, IndicatorUpdate, Signal
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.prices import PriceBatch, PriceUpdate
from cryptopulse.common.contracts.topics import CANDLES, INDICATORS, INDICATORS_LIVE, PRICES, SIGNALS
from cryptopulse.indicators.adapters.positions import RedisPositions
from cryptopulse.indicators.application.rates import RateBook
from cryptopulse.indicators.domain.numbering import Numbering

MAX_BATCH: Final = 500
RATE_SYMBOLS: Final = frozenset(RateBook.SYMBOLS)
ItemT = TypeVar("ItemT", Candle, IndicatorUpdate)


class BusMarketPublisher:
    """`MarketPublisher` on the bus. What is final carries an offset, and its position is noted once it is confirmed."""

    def __init__(self, bus: Publisher, clock: Clock, positions: RedisPositions) -> None:
        self._bus = bus
        self._clock = clock
        self._positions = positions
        self._numbers: dict[tuple[str, int], tuple[int, Numbering]] = {}

    def _offsets(self, what: str, shard: int, epoch: int, part: Sequence[ItemT]) -> list[int]:
        known = self._numbers.get((what, shard))
        if known is None or known[0] != epoch:
            known = self._numbers[what, shard] = (epoch, Numbering())
        number = known[1].number
        return [
            number((item.symbol, item.source, item.interval), (item.open_time, item.revision))
            for item in part
        ]

    async def prices(
        self, shard: int, epoch: int, prices: Sequence[PriceUpdate], forming: Sequence[Candle]
    ) -> None:
        """Newest prices and forming minutes of a shard."""
        symbols = {update.symbol for update in prices} | {candle.symbol for candle in forming}
        await self._say_prices(shard, epoch, prices, forming, f"batch.{shard}", symbols - RATE_SYMBOLS)
        rates = [update for update in prices if update.symbol in RATE_SYMBOLS]
        if rates:
            # Every replica hears every rate: not with all else of a shard.
            bars = [candle for candle in forming if candle.symbol in RATE_SYMBOLS]
            named = {update.symbol for update in rates} | {bar.symbol for bar in bars}
            await self._say_prices(shard, epoch, rates, bars, f"rates.{shard}", named)

    async def _say_prices(
        self,
        shard: int,
        epoch: int,
        prices: Sequence[PriceUpdate],
        forming: Sequence[Candle],
        key: str,
        symbols: AbstractSet[str],
    ) -> None:
        message = PriceBatch(
            shard=shard, epoch=epoch, sent_us=self._clock.now_us(), prices=list(prices), forming=list(forming)
        )
        await self._bus.publish(
            PRICES, message, key=key, cc=[f"price.{symbol}" for symbol in sorted(symbols)]
        )

    async def candles(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None:
        """Closed candles and corrections, one message per interval; sent again they carry the same id."""
        for interval, part in _by_interval(candles):
            offsets = self._offsets("candles", shard, epoch, part)
            await self._bus.publish(
                CANDLES,
                CandleBatch(shard=shard, epoch=epoch, interval=interval, candles=part, offsets=offsets),
                key=f"batch.{interval}.{shard}",
                cc=[f"candle.{interval}.{symbol}" for symbol in sorted({candle.symbol for candle in part})],
                message_id=_id_of("candles", shard, part),
            )
            await self._positions.note(keys.forming, epoch, part, offsets)

    async def seconds(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None:
        """Live candles of 1s: where they stand is not noted, the next one comes within a second; no further keys, for every
        one costs the broker.
        """
        for interval, part in _by_interval(candles):
            await self._bus.publish(
                CANDLES,
                CandleBatch(
                    shard=shard, epoch=epoch, interval=interval, candles=part,
                    offsets=self._offsets("seconds", shard, epoch, part),
                ),
                key=f"live.{interval}.{shard}",
                message_id=_id_of("seconds", shard, part),
            )  # fmt: skip

    async def live_values(self, shard: int, epoch: int, updates: Sequence[IndicatorUpdate]) -> None:
        """Indicators of forming bars."""
        for interval, part in _by_interval(updates):
            await self._bus.publish(
                INDICATORS_LIVE,
                IndicatorBatch(shard=shard, epoch=epoch, interval=interval, updates=part),
                key=f"live.{interval}.{shard}",
            )

    async def closed_values(self, shard: int, epoch: int, updates: Sequence[IndicatorUpdate]) -> None:
        """Indicators of closed bars, once per revision."""
        for interval, part in _by_interval(updates):
            offsets = self._offsets("values", shard, epoch, part)
            await self._bus.publish(
                INDICATORS,
                IndicatorBatch(shard=shard, epoch=epoch, interval=interval, updates=part, offsets=offsets),
                key=f"closed.{interval}.{shard}",
                cc=[
                    f"indicator.{interval}.{symbol}" for symbol in sorted({update.symbol for update in part})
                ],
                message_id=_id_of("values", shard, part),
            )
            await self._positions.note(keys.indicators, epoch, part, offsets)

    async def signals(self, signals: Sequence[Signal]) -> None:
        """One message each: they are rare, and each has a key of its own."""
        for signal in signals:
            await self._bus.publish(
                SIGNALS,
                signal,
                key=f"signal.{signal.kind}.{signal.symbol}",
                message_id=f"{signal.id}.{signal.status}",
            )


def _by_interval(items: Iterable[ItemT]) -> list[tuple[Interval, list[ItemT]]]:
    groups: dict[Interval, list[ItemT]] = {}
    for item in items:
        groups.setdefault(item.interval, []).append(item)
    return [
        (interval, group[start : start + MAX_BATCH])
        for interval, group in groups.items()
        for start in range(0, len(group), MAX_BATCH)
    ]


def _id_of(what: str, shard: int, items: Sequence[Candle] | Sequence[IndicatorUpdate]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for item in items:
        digest.update(
            f"{item.symbol}|{item.source}|{item.interval}|{item.open_time}|{item.revision};".encode()
        )
    return f"{what}.{shard}.{digest.hexdigest()}"
