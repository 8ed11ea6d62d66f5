"""History of wanted coins that no connected venue trades: the reference source's own candles, under its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.feeds import HistoryProgress
from cryptopulse.common.contracts.intervals import Interval, length_ms
from cryptopulse.common.contracts.topics import HISTORY, shard_of
from cryptopulse.common.contracts.values import base_of
from cryptopulse.common.errors import Refused, StoreUnavailable, UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.ingestor.application.ports import HistoryMarks, Page, ReferenceSource
from cryptopulse.ingestor.domain.history import Covered

HOUR_MS: Final = 3_600_000
UNRANKED: Final = 1_000_000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """What one call brings: candles of `interval` over the last `days`; asked again when the newest is `refresh_ms` old."""

    interval: Interval
    days: int
    refresh_ms: int


SPANS: Final = (Span("4h", 30, 24 * HOUR_MS), Span("30m", 1, 12 * HOUR_MS))
"""The grains the source gives. Asked again before the last answer ends, so that no hole comes between."""


class ReferenceHistory:
    """Fetches one span at a time; what the bus confirmed is marked, so a restart goes on where it was.

    Symbols are not unique among coins: a symbol's history is that of its highest-ranked coin.
    """

    def __init__(
        self,
        source: ReferenceSource,
        bus: Publisher,
        clock: Clock,
        marks: HistoryMarks,
        *,
        is_traded: Callable[[str], bool],
        shards: int,
        simulated: bool,
    ) -> None:
        self._source = source
        self._bus = bus
        self._clock = clock
        self._marks = marks
        self._is_traded = is_traded
        self._shards = shards
        self._simulated = simulated
        self._until: dict[tuple[str, str], int] | None = None
        self._coins: dict[str, tuple[int, str]] = {}
        self._progress = HistoryProgress(series_total=0, series_done=0, candles=0)

    def note(self, page: Page) -> None:
        """Learn which coin a symbol means."""
        ranks = {coin.id: coin.market_cap_rank or UNRANKED for coin in page.coins}
        for price in page.prices:
            found = ranks.get(price.coin_id, UNRANKED), price.coin_id
            self._coins[price.symbol] = min(self._coins.get(price.symbol, found), found)

    @property
    def progress(self) -> HistoryProgress:
        """How far the wanted coins' history is."""
        return self._progress

    async def fetch_next(self, wanted: Iterable[str]) -> bool:
        """Fetch and publish the span that is due longest; False when none is. Raises `errors.BusUnavailable`."""
        if self._until is None:
            self._until = await self._load()
        until = self._until
        ids = set(wanted)
        places = [
            (until.get((symbol, span.interval), 0), symbol, coin_id, span)
            for symbol, (_, coin_id) in self._coins.items()
            if coin_id in ids and not self._is_traded(base_of(symbol))
            for span in SPANS
        ]
        now = self._clock.now_ms()
        due = [place for place in places if place[0] + place[3].refresh_ms < now]
        done = len(places) - len(due)
        self._progress = msgspec.structs.replace(self._progress, series_total=len(places), series_done=done)
        if not due:
            return False
        _, symbol, coin_id, span = min(due, key=lambda place: place[:3])
        try:
            rows = await self._source.candles(coin_id, symbol, span.interval, span.days)
        except Refused as error:
            log.warning("history refused", coin=coin_id, error=str(error))
            rows = []
        except UpstreamUnavailable as error:
            log.warning("history waits", coin=coin_id, error=str(error))
            until[symbol, span.interval] = now - span.refresh_ms + HOUR_MS
            return True
        await self._publish(symbol, span, rows, now)
        until[symbol, span.interval] = now
        await self._remember(symbol, span, now)
        self._progress = msgspec.structs.replace(
            self._progress, series_done=done + 1, candles=self._progress.candles + len(rows)
        )
        return True

    async def _publish(self, symbol: str, span: Span, rows: Sequence[Candle], now_ms: int) -> None:
        if not rows:
            return
        begin, end = rows[0].open_time, rows[-1].open_time + length_ms(span.interval)
        if self._simulated:
            rows = [msgspec.structs.replace(row, simulated=True) for row in rows]
        venue = self._source.name
        message = HistoryBatch(
            venue=venue, symbol=symbol, interval=span.interval, from_ms=begin, to_ms=end, candles=list(rows),
            simulated=self._simulated,
        )  # fmt: skip
        shard = shard_of(base_of(symbol), self._shards)
        key = key_of(HISTORY, shard=shard, venue=venue, symbol=symbol)
        message_id = f"history:{venue}:{symbol}:{span.interval}:{begin}:{end}:{now_ms}"
        await self._bus.publish(HISTORY, message, key=key, message_id=message_id)

    async def _load(self) -> dict[tuple[str, str], int]:
        try:
            stored = await self._marks.load(self._source.name)
        except StoreUnavailable as error:
            log.warning("marks of history not loaded: it begins anew", error=str(error))
            return {}
        return {place: covered.ranges[-1][1] for place, covered in stored.items() if covered.ranges}

    async def _remember(self, symbol: str, span: Span, now_ms: int) -> None:
        covered = Covered(((now_ms - span.days * 24 * HOUR_MS, now_ms),))
        try:
            await self._marks.save(self._source.name, symbol, span.interval, covered)
        except StoreUnavailable as error:
            log.debug("marks of history not saved", error=str(error))
