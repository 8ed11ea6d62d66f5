"""What a portfolio holds and is worth, now or at a past time, under its own method or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.ports import (
    AssetRef,
    Books,
    CloseReader,
    Coin,
    Portfolio,
    PriceReader,
    Unit,
    WantedCoins,
)
from cryptopulse.portfolio.application.replay import what_if
from cryptopulse.portfolio.domain.book import DAY_US, AssetBook, Book, Missing
from cryptopulse.portfolio.domain.lots import Method
from cryptopulse.portfolio.domain.money import ONE
from cryptopulse.portfolio.domain.valuation import Position, Quote, Valuation, value_book

LIVE_WITHIN_US: Final = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Holdings:
    """A valued portfolio."""

    portfolio: Portfolio
    method: Method
    as_of_us: int
    valuation: Valuation
    missing: list[Missing]


class Valuer:
    """Reads positions, prices them, adds up. Never replays for the newest state under the portfolio's own method."""

    def __init__(
        self, books: Books, prices: PriceReader, closes: CloseReader, wanted: WantedCoins, clock: Clock
    ) -> None:
        self._books = books
        self._prices = prices
        self._closes = closes
        self._wanted = wanted
        self._clock = clock

    async def holdings(
        self, owner_id: str, portfolio_id: int, *, as_of_us: int | None = None, method: Method | None = None
    ) -> Holdings:
        """Raises `NotFound`; `Invalid` for a time in the future."""
        now_us = self._clock.now_us()
        if as_of_us is not None and as_of_us > now_us + LIVE_WITHIN_US:
            raise Invalid("as_of lies in the future.", code="future")
        past = as_of_us is not None and as_of_us < now_us - LIVE_WITHIN_US
        async with self._books.unit(owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(portfolio_id)
            if past or (method is not None and method != portfolio.method):
                positions, missing = await replayed_positions(
                    unit, portfolio, method, as_of_us if past else None
                )
            else:
                positions = await unit.positions(portfolio_id)
                missing = [Missing(*item) for item in await unit.missing(portfolio_id)]
        quotes = await (
            self.quotes_at(portfolio, positions, as_of_us or now_us)
            if past
            else self.quotes(portfolio, positions)
        )
        return Holdings(
            portfolio=portfolio,
            method=method or portfolio.method,
            as_of_us=as_of_us if past and as_of_us is not None else now_us,
            valuation=value_book(positions, quotes, portfolio.base_currency),
            missing=missing,
        )

    async def quotes(self, portfolio: Portfolio, positions: Sequence[Position]) -> dict[str, Quote]:
        """Live quotes of what is held and of the base currency."""
        refs = refs_of(portfolio, positions)
        self._wanted.want({ref.coin_id for ref in refs if ref.coin_id})
        return await self._prices.latest(refs)

    async def quotes_at(
        self, portfolio: Portfolio, positions: Sequence[Position], at_us: int
    ) -> dict[str, Quote]:
        """Closes at a past time: of the minute where kept, else of the hour or day."""
        found: dict[str, Quote] = {}
        for ref in refs_of(portfolio, positions):
            close = ONE if ref.asset == "USD" else await self._closes.at(ref, at_us)
            if close is not None:
                found[ref.asset] = Quote(close, 0, status="close", epoch=at_us // DAY_US)
        return found


def refs_of(portfolio: Portfolio, positions: Sequence[Position]) -> list[AssetRef]:
    """What must be priced: held assets, and the base currency unless it is the dollar."""
    refs = [AssetRef(position.asset, position.coin_id) for position in positions if position.quantity]
    if portfolio.base_currency != "USD" and all(ref.asset != portfolio.base_currency for ref in refs):
        refs.append(AssetRef(portfolio.base_currency))
    return refs


async def replayed_positions(
    unit: Unit, portfolio: Portfolio, method: Method | None, until_us: int | None
) -> tuple[list[Position], list[Missing]]:
    """Positions at a time or under another method: one replay of all postings, which the stored books never need."""
    assets = sorted(await unit.components(portfolio.id))
    postings = await unit.postings(portfolio.id, assets, None, until_us)
    book = what_if(portfolio.policy(method), postings)
    coins = {coin.asset: coin for coin in await unit.coins(portfolio.id)}
    return positions_of(book, coins), [item for asset in book.assets.values() for item in asset.missing]


def positions_of(book: Book, coins: dict[str, Coin]) -> list[Position]:
    """The positions at the end of a book."""
    return [position_of(asset, coins.get(asset.asset)) for asset in book.assets.values()]


def position_of(asset: AssetBook, coin: Coin | None = None) -> Position:
    """The stored form of a running asset."""
    position = Position(
        asset=asset.asset, quantity=asset.quantity, cost=asset.cost, bare=asset.bare, realised=asset.realised,
        income=asset.income, fees=asset.fees, fees_separate=asset.fees_separate, removed=asset.removed,
        flow_in=asset.flow_in, flow_out=asset.flow_out, accounts=dict(asset.accounts),
    )  # fmt: skip
    if coin is None:
        return position
    return replace(position, coin_id=coin.coin_id, coin_name=coin.name, coin_symbol=coin.symbol)


def unit_cost(cost: Decimal, quantity: Decimal) -> Decimal:
    """Cost per unit, 0 of nothing."""
    return cost / quantity if quantity else Decimal(0)
