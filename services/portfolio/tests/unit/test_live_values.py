"""The live loop: at most one value a second for a portfolio, only for those someone watches, and only when something moved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.portfolio import PortfolioValueBatch, PortfolioValued
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.portfolio.application.live import REFRESH_SECONDS, LiveValues
from cryptopulse.portfolio.application.ports import AssetRef, Watched
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.domain.valuation import Position, Quote

D = Decimal
OWNERS = {1: "alice", 2: "bob", 3: "alice"}


@pytest.fixture(autouse=True)
def _sixty_digits() -> None:
    use_money_context()


class World:
    """Books, prices and the bus from memory. Portfolio 3 holds ETH, the others BTC."""

    def __init__(self, limit: int = 10) -> None:
        self.clock = ManualClock()
        self.sent: list[PortfolioValued] = []
        self.loaded: list[int] = []
        self.away = False
        self.version = 1
        self.quotes = {"BTC": Quote(D(100), 5), "ETH": Quote(D(7), 5)}
        self.moved: set[str] = set()
        self.live = LiveValues(
            self, self, self, self, self, self.clock, limit=limit, interval_seconds=1.0, epoch=9
        )

    async def load(self, portfolio_ids: Sequence[int]) -> list[Watched]:
        if self.away:
            raise StoreUnavailable("away")
        self.loaded += portfolio_ids
        return [
            Watched(n, OWNERS[n], self.version, "USD", (Position("ETH" if n == 3 else "BTC", D(n), D(1), D(1)),))
            for n in portfolio_ids
            if n in OWNERS
        ]  # fmt: skip

    async def latest(self, assets: Sequence[AssetRef]) -> dict[str, Quote]:
        return {ref.asset: self.quotes[ref.asset] for ref in assets}

    def quote(self, ref: AssetRef) -> Quote | None:
        return self.quotes.get(ref.asset)

    def take_changed(self) -> set[str]:
        moved, self.moved = self.moved, set()
        return moved

    def asset_of(self, ref: AssetRef) -> str:
        return ref.asset

    def want(self, coin_ids: Collection[str]) -> None:
        """Nobody is asked."""

    async def values(self, batch: PortfolioValueBatch) -> None:
        assert {value.portfolio_id % 4 for value in batch.values} == {batch.part}
        self.sent += batch.values

    def move(self, asset: str, price: str) -> None:
        self.quotes[asset] = Quote(D(price), 5, seq=self.quotes[asset].seq + 1)
        self.moved.add(asset)

    async def after(self, seconds: float) -> list[tuple[int, str]]:
        """What one more step sends."""
        self.clock.advance(seconds)
        self.sent.clear()
        await self.live.step()
        return sorted((value.portfolio_id, str(value.value)) for value in self.sent)


async def test_a_portfolio_is_valued_at_most_once_a_second_and_then_at_the_newest_price() -> None:
    world = World()
    world.live.watch([1], 600)
    assert await world.after(0) == [(1, "100")]
    sent = []
    for number in range(1, 41):
        world.move("BTC", str(100 + number))
        sent += await world.after(0.1)
    assert len(sent) == 4
    assert sent[-1] == (1, "140")


async def test_nothing_is_read_or_valued_for_those_nobody_watches() -> None:
    world = World()
    world.move("BTC", "5")
    assert await world.after(1) == []
    assert world.loaded == []
    world.live.watch([3], 600)
    assert await world.after(1) == [(3, "21")]
    world.move("BTC", "6")
    assert await world.after(2) == []
    assert world.loaded == [3]


async def test_watching_ends_with_its_time_and_is_renewed_by_asking_again() -> None:
    world = World()
    world.live.watch([1, 3], 10)
    await world.after(0)
    world.live.watch([1], 30)
    world.move("BTC", "6")
    world.move("ETH", "8")
    assert await world.after(11) == [(1, "6")]
    world.move("BTC", "7")
    assert await world.after(20) == []


async def test_what_does_not_change_is_not_sent_again() -> None:
    world = World()
    world.live.watch([1], 600)
    await world.after(0)
    world.moved.add("BTC")
    assert await world.after(2) == []
    assert await world.after(REFRESH_SECONDS + 1) == []
    world.quotes["BTC"] = Quote(D(100), 99_000, stale=True)
    assert await world.after(REFRESH_SECONDS + 1) == [(1, "None")]
    assert not world.sent[0].complete


async def test_changed_books_are_read_again_and_sent_with_their_version() -> None:
    world = World()
    world.live.watch([1, 2], 600)
    assert await world.after(0) == [(1, "100"), (2, "200")]
    world.version = 2
    world.live.changed(2)
    world.live.changed(77)
    assert await world.after(2) == [(2, "200")]
    assert [(v.version, v.user_id, v.epoch, v.seq) for v in world.sent] == [(2, "bob", 9, 2)]


async def test_the_number_of_watched_portfolios_is_bounded_and_missing_ones_make_room() -> None:
    world = World(limit=2)
    assert world.live.watch([77, 1, 2], 600) == 2
    assert await world.after(0) == [(1, "100")]
    assert world.live.watch([2], 600) == 1
    assert await world.after(1) == [(2, "200")]


async def test_a_store_that_was_away_is_asked_again() -> None:
    world = World()
    world.live.watch([1], 600)
    world.away = True
    with pytest.raises(StoreUnavailable):
        await world.after(0)
    world.away = False
    assert await world.after(1) == [(1, "100")]
