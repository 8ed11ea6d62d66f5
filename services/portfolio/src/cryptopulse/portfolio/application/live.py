"""Live values of the portfolios that someone watches: at most one a second each, and only when something moved.

The figures are those of HTTP (`domain.live_book`), so equal prices give equal values under the same snapshot id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final, Protocol

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.amounts import printed_amount
from cryptopulse.common.contracts.portfolio import VALUE_PARTS, PortfolioValueBatch, PortfolioValued
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.portfolio.application.ports import AssetRef, PriceReader, WantedCoins, Watched, WatchedBooks
from cryptopulse.portfolio.domain.live_book import LiveBook, PriceSlot
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.domain.valuation import Quote

REFRESH_SECONDS: Final = 15.0
"""A watched portfolio whose prices stand still is looked at this often, so that staleness shows."""
COLD_SECONDS: Final = 5.0
"""How often prices that do not come over the bus are read again."""
LOAD_AT_ONCE: Final = 2_000
BATCH: Final = 100
"""Live values in one message: some 150 kB."""
BREATHE_EVERY: Final = 50
"""Portfolios valued before others get the loop: a few milliseconds."""

_VALUED: Final = counter("cryptopulse_portfolio_valuations_total", "Live values published.")
log = get_logger(__name__)


class LivePrices(Protocol):
    """Prices as they came over the bus."""

    def quote(self, ref: AssetRef) -> Quote | None: ...
    def take_changed(self) -> set[str]:
        """Assets whose price changed since the last call."""
        ...

    def asset_of(self, ref: AssetRef) -> str:
        """The asset under which `take_changed` names it."""
        ...


class ValuePublisher(Protocol):
    """Sends live values, all of one part."""

    async def values(self, batch: PortfolioValueBatch) -> None: ...


class _Seat:
    """One watched portfolio."""

    __slots__ = ("book", "due_at", "expires_at", "live", "loaded", "seq", "snapshot")

    def __init__(self, expires_at: float) -> None:
        self.book: Watched | None = None
        self.live: LiveBook | None = None
        self.expires_at = expires_at
        self.due_at = 0.0
        self.loaded = False
        self.seq = 0
        self.snapshot: tuple[str, int] | None = None


class LiveValues:
    """Keeps the positions of watched portfolios in memory and values those whose prices or books changed."""

    def __init__(
        self,
        books: WatchedBooks,
        live: LivePrices,
        cold: PriceReader,
        publisher: ValuePublisher,
        wanted: WantedCoins,
        clock: Clock,
        *,
        limit: int,
        interval_seconds: float,
        epoch: int,
    ) -> None:
        self._books = books
        self._live = live
        self._cold = cold
        self._publisher = publisher
        self._wanted = wanted
        self._clock = clock
        self._limit = limit
        self._interval = interval_seconds
        self._epoch = epoch
        self._seats: dict[int, _Seat] = {}
        self._holders: dict[str, set[int]] = defaultdict(set)
        self._dirty: set[int] = set()
        self._slots: dict[tuple[str, str | None, str], PriceSlot] = {}
        self._cold_quotes: dict[str, Quote] = {}
        self._cold_at = 0.0

    def watch(self, portfolio_ids: Iterable[int], ttl_seconds: float) -> int:
        """Watch for a while; those over the limit are left out. Returns how many are watched."""
        until = self._clock.monotonic() + ttl_seconds
        taken = 0
        for portfolio_id in portfolio_ids:
            seat = self._seats.get(portfolio_id)
            if seat is None:
                if len(self._seats) >= self._limit:
                    continue
                seat = self._seats[portfolio_id] = _Seat(until)
            seat.expires_at = max(seat.expires_at, until)
            taken += 1
        return taken

    def changed(self, portfolio_id: int) -> None:
        """The books of a portfolio changed: read them again."""
        seat = self._seats.get(portfolio_id)
        if seat is not None:
            seat.loaded = False

    async def run(self, beat: Callable[[], None]) -> None:
        """Value for ever. A store that is away delays, and never ends it."""
        use_money_context()
        while True:
            beat()
            started = self._clock.monotonic()
            try:
                await self.step()
            except Retryable as error:
                log.warning("live values wait", error=str(error))
            await asyncio.sleep(max(0.05, self._interval / 4 - (self._clock.monotonic() - started)))

    async def step(self) -> int:
        """One round: forget the unwatched, load the new, value what moved. Returns how many were published."""
        now = self._clock.monotonic()
        self._forget(now)
        if not self._seats:
            return 0
        await self._load()
        if now - self._cold_at >= COLD_SECONDS:
            await self._warm(now)
        for asset in self._live.take_changed():
            self._dirty |= self._holders.get(asset, set())
        due = [number for number in self._dirty if self._seats[number].due_at <= now]
        due += [
            number
            for number, seat in self._seats.items()
            if seat.due_at + REFRESH_SECONDS <= now and number not in self._dirty
        ]
        if due:
            self._show_prices()
        return await self._publish(due, now)

    async def _publish(self, due: Sequence[int], now: float) -> int:
        """Value and send in batches by part; the loop breathes between them."""
        parts: list[list[PortfolioValued]] = [[] for _ in range(VALUE_PARTS)]
        published = 0
        for place, number in enumerate(due):
            self._dirty.discard(number)
            valued = self._value(number, now)
            if valued is not None:
                part = parts[number % VALUE_PARTS]
                part.append(valued)
                published += 1
                if len(part) >= BATCH:
                    await self._send(number % VALUE_PARTS, part)
                    part.clear()
            if place % BREATHE_EVERY == BREATHE_EVERY - 1:
                await asyncio.sleep(0)
        for number, part in enumerate(parts):
            if part:
                await self._send(number, part)
        return published

    async def _send(self, part: int, values: list[PortfolioValued]) -> None:
        await self._publisher.values(
            PortfolioValueBatch(part=part, sent_us=self._clock.now_us(), values=list(values))
        )
        _VALUED.inc(len(values))

    def _forget(self, now: float) -> None:
        gone = [number for number, seat in self._seats.items() if seat.expires_at <= now]
        for number in gone:
            self._sit_down(self._seats.pop(number), None)
            self._dirty.discard(number)
        if gone:
            left = set(gone)
            for holders in self._holders.values():
                holders.difference_update(left)

    async def _load(self) -> None:
        wanted = [number for number, seat in self._seats.items() if not seat.loaded][:LOAD_AT_ONCE]
        if not wanted:
            return
        for number in wanted:
            self._seats[number].loaded = True
        try:
            found = {book.portfolio_id: book for book in await self._books.load(wanted)}
        except Retryable:
            for number in wanted:
                if number in self._seats:
                    self._seats[number].loaded = False
            raise
        coins: set[str] = set()
        for number in wanted:
            book = found.get(number)
            seat = self._seats.get(number)
            if seat is None:
                continue
            if book is None:
                self._sit_down(self._seats.pop(number), None)
                self._dirty.discard(number)
                continue
            self._sit_down(seat, book)
            self._dirty.add(number)
            for ref in _refs(book):
                self._holders[self._live.asset_of(ref)].add(number)
                if ref.coin_id:
                    coins.add(ref.coin_id)
        self._wanted.want(coins)
        self._cold_at = -COLD_SECONDS

    async def _warm(self, now: float) -> None:
        """Read prices that the bus has not brought: at the start, and of coins without a market."""
        refs: dict[str, AssetRef] = {}
        for seat in self._seats.values():
            for ref in _refs(seat.book) if seat.book else ():
                quote = self._live.quote(ref)
                if quote is None or quote.stale:
                    refs[ref.asset] = ref
        self._cold_at = now
        fresh = await self._cold.latest(list(refs.values())) if refs else {}
        for asset, quote in fresh.items():
            known = self._cold_quotes.get(asset)
            if known is None or (known.price, known.seq, known.stale) != (
                quote.price,
                quote.seq,
                quote.stale,
            ):
                self._dirty |= self._holders.get(self._live.asset_of(refs.get(asset, AssetRef(asset))), set())
        self._cold_quotes = fresh

    def _sit_down(self, seat: _Seat, book: Watched | None) -> None:
        """Give a seat its book, or none; price slots live as long as a book uses them."""
        old = seat.live
        seat.book = book
        seat.live = None if book is None else self._live_book(book)
        for slot in old.slots if old else ():
            slot.users -= 1
            if not slot.users:
                self._slots.pop((slot.asset, slot.coin_id, slot.base), None)

    def _live_book(self, book: Watched) -> LiveBook:
        base = book.base_currency
        slots = []
        for ref in _refs(book):
            key = (ref.asset, ref.coin_id, base)
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = PriceSlot(*key)
            slot.users += 1
            slots.append(slot)
        return LiveBook([p for p in book.positions if p.quantity], slots, printed_amount)

    def _show_prices(self) -> None:
        """The newest quotes into the slots, once for all books."""
        bases: dict[str, Quote | None] = {"USD": None}
        for slot in self._slots.values():
            base = slot.base
            if base not in bases:
                bases[base] = self._quote(AssetRef(base))
            slot.show(self._quote(AssetRef(slot.asset, slot.coin_id)), bases[base], printed_amount)

    def _quote(self, ref: AssetRef) -> Quote | None:
        quote = self._live.quote(ref)
        if quote is None or quote.stale:
            quote = self._cold_quotes.get(ref.asset, quote)
        return quote

    def _value(self, number: int, now: float) -> PortfolioValued | None:
        """The message of a portfolio, None when nothing about it is new."""
        seat = self._seats.get(number)
        if seat is None or seat.book is None or seat.live is None:
            return None
        seat.due_at = now + self._interval
        book = seat.book
        snapshot = seat.live.snapshot_id()
        state = (snapshot, book.version)
        if state == seat.snapshot:
            return None
        figures = seat.live.value(snapshot)
        seat.snapshot = state
        seat.seq += 1
        return PortfolioValued(
            user_id=book.owner_id,
            portfolio_id=book.portfolio_id,
            version=book.version,
            snapshot_id=figures.snapshot_id,
            at_ms=self._clock.now_ms(),
            base_currency=book.base_currency,
            value=_exact(figures.value),
            cost=Decimal(printed_amount(figures.cost)),
            unrealised_pnl=_exact(figures.unrealised),
            unrealised_pnl_pct=_exact(figures.unrealised_pct),
            complete=figures.complete,
            allocation_pct=figures.allocation,
            change_24h=_exact(figures.change_24h),
            epoch=self._epoch,
            seq=seat.seq,
            holdings=figures.holdings,
        )


def _refs(book: Watched) -> Sequence[AssetRef]:
    refs = [AssetRef(p.asset, p.coin_id) for p in book.positions if p.quantity]
    if book.base_currency != "USD":
        refs.append(AssetRef(book.base_currency))
    return refs


def _exact(value: Decimal | None) -> Decimal | None:
    """As HTTP prints it: at most 24 decimals, no padding."""
    if value is None:
        return None
    text = printed_amount(value)
    return value if text == str(value) else Decimal(text)
