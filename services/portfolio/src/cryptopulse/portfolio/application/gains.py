"""Open lots and realised gains with their trail: from what the replay left, or for another method from a what-if."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.portfolio.application.ports import Books, Coin, Portfolio, Unit
from cryptopulse.portfolio.application.replay import matches_of, state_of, what_if
from cryptopulse.portfolio.application.valuation import Valuer
from cryptopulse.portfolio.domain.book import DAY_US, AssetRow, Match, checkpoint
from cryptopulse.portfolio.domain.lots import LotRow, Method
from cryptopulse.portfolio.domain.money import ZERO
from cryptopulse.portfolio.domain.valuation import value_book

SILENT_KINDS: Final = frozenset({"cash"})
"""Spending money that is kept as an asset at its face value is no gain worth a line when nothing came of it."""


@dataclass(frozen=True, slots=True)
class OpenLot:
    """A lot that still holds units."""

    asset: str
    account: str
    lot: LotRow
    long_term: bool
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class Lots:
    """Open lots of a portfolio, oldest first."""

    portfolio: Portfolio
    method: Method
    lots: list[OpenLot]


@dataclass(frozen=True, slots=True)
class Gain:
    """A matched part of a disposal."""

    match: Match
    long_term: bool

    @property
    def gain(self) -> Decimal:
        """Proceeds minus cost."""
        return self.match.proceeds - self.match.cost


@dataclass(frozen=True, slots=True)
class Year:
    """Sums of a calendar year in UTC."""

    year: int
    proceeds: Decimal
    cost: Decimal
    short_gain: Decimal
    long_gain: Decimal


@dataclass(frozen=True, slots=True)
class Gains:
    """Realised gains of a portfolio, oldest first."""

    portfolio: Portfolio
    method: Method
    years: list[Year]
    gains: list[Gain]
    coins: dict[str, Coin]


class GainsReader:
    """Reads lots and matches; replays only for a method that is not the portfolio's own."""

    def __init__(self, books: Books, valuer: Valuer, clock: Clock) -> None:
        self._books = books
        self._valuer = valuer
        self._clock = clock

    async def lots(self, owner_id: str, portfolio_id: int, asset: str | None, method: Method | None) -> Lots:
        """Open lots with their unrealised gain at live prices."""
        async with self._books.unit(owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(portfolio_id)
            states, _ = await _derived(unit, portfolio, method)
            positions = await unit.positions(portfolio_id)
        quotes = await self._valuer.quotes(portfolio, positions)
        prices = {
            item.position.asset: item.price
            for item in value_book(positions, quotes, portfolio.base_currency).holdings
        }
        now_us = self._clock.now_us()
        found = [
            OpenLot(
                asset=state.asset,
                account=pool.name or "",
                lot=lot,
                long_term=is_long(lot.acquired_us, now_us, portfolio.holding_period_days),
                price=prices.get(state.asset),
            )
            for state in states
            if asset is None or asset in {state.asset, state.asset.upper()}
            for pool in state.pools
            for lot in pool.lots
        ]
        found.sort(key=lambda item: (item.lot.acquired_us, item.asset, item.lot.order))
        return Lots(portfolio, method or portfolio.method, found)

    async def realised(
        self, owner_id: str, portfolio_id: int, year: int | None, method: Method | None
    ) -> Gains:
        """Matches of a year or of all years, and the sums of every year."""
        async with self._books.unit(owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(portfolio_id)
            _, matches = await _derived(unit, portfolio, method)
            coins = {coin.asset: coin for coin in await unit.coins(portfolio_id)}
        days = portfolio.holding_period_days
        gains = [
            Gain(match, is_long(match.acquired_us, match.at_us, days))
            for match in matches
            if not (match.kind in SILENT_KINDS and match.proceeds == match.cost)
        ]
        gains.sort(key=lambda item: (item.match.at_us, item.match.seq, item.match.fee_leg))
        chosen = [item for item in gains if year is None or year_of(item.match.at_us) == year]
        return Gains(portfolio, method or portfolio.method, years_of(gains), chosen, coins)


async def _derived(
    unit: Unit, portfolio: Portfolio, method: Method | None
) -> tuple[list[AssetRow], list[Match]]:
    if method is not None and method != portfolio.method:
        assets = sorted(await unit.components(portfolio.id))
        book = what_if(portfolio.policy(method), await unit.postings(portfolio.id, assets, None))
        return checkpoint(book), book.matches
    segments = await unit.segments(portfolio.id)
    states = [row for _, segment in segments for row in state_of(segment)]
    return states, [match for _, segment in segments for match in matches_of(segment)]


def is_long(acquired_us: int, until_us: int, days: int) -> bool:
    """Held for more than the holding period, counted in whole days."""
    return until_us // DAY_US - acquired_us // DAY_US > days


def year_of(at_us: int) -> int:
    """The calendar year in UTC."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).year


def years_of(gains: Iterable[Gain]) -> list[Year]:
    """Sums per year, oldest first."""
    sums: dict[int, list[Decimal]] = {}
    for item in gains:
        row = sums.setdefault(year_of(item.match.at_us), [ZERO, ZERO, ZERO, ZERO])
        row[0] += item.match.proceeds
        row[1] += item.match.cost
        row[3 if item.long_term else 2] += item.gain
    return [Year(year, *row) for year, row in sorted(sums.items())]
