"""What the use cases need from outside, named for the need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.portfolio.domain.book import Policy
from cryptopulse.portfolio.domain.lots import Method
from cryptopulse.portfolio.domain.postings import Key, Posting
from cryptopulse.portfolio.domain.transactions import CashMode, Transaction
from cryptopulse.portfolio.domain.valuation import Position, Quote


@dataclass(frozen=True, slots=True)
class Portfolio:
    """A portfolio as stored."""

    id: int
    owner_id: str
    name: str
    base_currency: str
    method: Method
    cash_mode: CashMode
    lot_scope: str
    fees_in_cost_basis: bool
    holding_period_days: int
    is_default: bool
    version: int
    transaction_count: int
    created_at: datetime
    updated_at: datetime

    def policy(self, method: Method | None = None) -> Policy:
        """How lots are matched, with another method for a what-if."""
        return Policy(
            method=method or self.method,
            fees_in_cost=self.fees_in_cost_basis,
            account_pools=self.lot_scope == "account",
        )


@dataclass(frozen=True, slots=True)
class Coin:
    """Which coin an asset is. `asset` is its key in the books: a symbol in capitals, or a CoinGecko id in lower case."""

    asset: str
    coin_id: str | None = None
    name: str | None = None
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """One revision of a transaction as stored."""

    id: int
    revision: int
    transaction: Transaction
    voided: bool
    created_us: int
    coin: Coin


@dataclass(frozen=True, slots=True)
class Segment:
    """At most 500 replayed postings of a group of assets: what they did, and maybe the state after them with its sums."""

    no: int
    postings: int
    last_key: Key
    matches: bytes
    days: bytes
    state: bytes | None
    sums: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer kept for a repeated request."""

    status: int
    etag: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class ImportJob:
    """A file that is imported in the background. `result` is the answer as it is sent, once `state` is `done`."""

    id: int
    portfolio_id: int
    state: str
    rows_read: int
    result: bytes | None
    problem_code: str | None
    problem: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewPortfolio:
    """What a portfolio starts with."""

    name: str
    base_currency: str = "USD"
    method: Method = "fifo"
    cash_mode: CashMode = "implicit"
    lot_scope: str = "portfolio"
    fees_in_cost_basis: bool = True
    holding_period_days: int = 365
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Which transactions to list, newest first, after the place `before` (time, id)."""

    limit: int
    before: tuple[int, int] | None = None
    asset: str | None = None
    kind: str | None = None
    account: str | None = None


class Unit(Protocol):
    """One database transaction over the books of one owner: everything in it happens, or nothing."""

    async def claim(self, key: str, request_hash: bytes) -> Answer | None:
        """Claim an idempotency key: None when it is new. Raises `Conflict` in flight, `Invalid` with another request."""
        ...

    async def keep_answer(self, key: str, answer: Answer) -> None: ...
    async def portfolios(self, *, after: int = 0, limit: int = 200) -> list[Portfolio]: ...
    async def portfolio(self, portfolio_id: int) -> Portfolio:
        """Raises `NotFound`, for what belongs to others as well."""
        ...

    async def default_portfolio(self) -> Portfolio | None: ...
    async def create(self, new: NewPortfolio) -> Portfolio:
        """A default portfolio that another request made meanwhile is answered instead of a second one."""
        ...

    async def change(self, portfolio_id: int, changes: Mapping[str, object]) -> Portfolio: ...
    async def delete(self, portfolio_id: int) -> None: ...
    async def next_version(self, portfolio_id: int, expected: int | None) -> Portfolio:
        """Take the portfolio's write lock and its next version. Raises `NotFound`, `PreconditionFailed`."""
        ...

    async def add(
        self,
        portfolio: Portfolio,
        items: Sequence[tuple[Transaction, Sequence[Posting]]],
        ids: Sequence[int],
        now_us: int,
    ) -> None:
        """Record new transactions. Raises `Conflict` on an external id that is there already."""
        ...

    async def new_ids(self, count: int) -> list[int]: ...
    async def revise(
        self, portfolio: Portfolio, old: Recorded, new: Transaction, postings: Sequence[Posting], now_us: int
    ) -> None: ...
    async def void(self, portfolio: Portfolio, old: Recorded, now_us: int) -> None: ...
    async def recorded(self, portfolio_id: int, transaction_id: int) -> Recorded:
        """The newest revision that is not void. Raises `NotFound`."""
        ...

    async def revisions(self, portfolio_id: int, transaction_id: int) -> list[Recorded]: ...
    async def listed(self, portfolio_id: int, chosen: Filter) -> list[Recorded]: ...
    def all_recorded(self, portfolio_id: int) -> AsyncIterator[Recorded]:
        """Every current transaction in the order of time, without holding them all."""
        ...

    async def known(
        self, portfolio_id: int, external_ids: Collection[str], fingerprints: Collection[str]
    ) -> tuple[set[str], set[str]]:
        """Which of them are recorded already."""
        ...

    async def known_ids(self, portfolio_id: int, ids: Collection[int]) -> dict[int, Transaction]:
        """The current transactions of these ids in this portfolio."""
        ...

    async def coins(self, portfolio_id: int) -> list[Coin]: ...
    async def keep_coins(self, portfolio: Portfolio, coins: Sequence[Coin]) -> None: ...
    async def grouping(self, portfolio_id: int) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """Asset -> component of every position, and the pairs (asset, what it became) over all current legs."""
        ...

    async def postings(
        self, portfolio_id: int, assets: Sequence[str], after: Key | None, until_us: int | None = None
    ) -> list[Posting]:
        """The legs of these assets in the order of the books, after a place and until a time (inclusive)."""
        ...

    async def segment_before(self, portfolio_id: int, component: str, key: Key | None) -> Segment | None:
        """The newest segment with a state whose end lies before `key`."""
        ...

    async def replace_segments(
        self,
        portfolio: Portfolio,
        component: str,
        from_no: int,
        segments: Sequence[Segment],
        keep: Collection[int],
        full: int,
    ) -> None:
        """Put segments from `from_no` on; older states stay only where `keep` names them. `full` is a whole length."""
        ...

    async def drop_component(self, portfolio_id: int, component: str) -> None: ...
    async def segments(
        self, portfolio_id: int, components: Collection[str] | None = None
    ) -> list[tuple[str, Segment]]:
        """All segments with matches and days, by component and number; states left out except the newest."""
        ...

    async def positions(self, portfolio_id: int) -> list[Position]: ...
    async def missing(self, portfolio_id: int) -> list[tuple[int, str, Decimal, Decimal]]: ...
    async def components(self, portfolio_id: int) -> dict[str, str]:
        """Asset -> component of every position."""
        ...

    async def replace_positions(
        self,
        portfolio: Portfolio,
        component: str,
        positions: Sequence[tuple[Position, Sequence[tuple[int, Decimal, Decimal]]]],
    ) -> None: ...
    async def announce(self, event: PortfolioChanged) -> None:
        """Put the change into the outbox."""
        ...

    async def new_job(self, portfolio_id: int) -> int: ...
    async def job(self, portfolio_id: int, job_id: int) -> ImportJob:
        """Raises `NotFound`."""
        ...

    async def update_job(
        self,
        job_id: int,
        state: str,
        *,
        rows_read: int | None = None,
        result: bytes | None = None,
        problem: tuple[str, str] | None = None,
    ) -> None: ...


class Books(Protocol):
    """Where the books are kept."""

    def unit(self, owner_id: str, *, readonly: bool = False) -> AbstractAsyncContextManager[Unit]:
        """Work in one transaction as this owner. Raises `StoreUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """A portfolio in the live loop."""

    portfolio_id: int
    owner_id: str
    version: int
    base_currency: str
    positions: tuple[Position, ...]


class WatchedBooks(Protocol):
    """Positions of many owners for the live loop."""

    async def load(self, portfolio_ids: Sequence[int]) -> list[Watched]: ...


@dataclass(frozen=True, slots=True)
class AssetRef:
    """An asset to price, by symbol or by coin."""

    asset: str
    coin_id: str | None = None


class PriceReader(Protocol):
    """Newest prices in USD. Raises `StoreUnavailable`."""

    async def latest(self, assets: Sequence[AssetRef]) -> dict[str, Quote]: ...


class CloseReader(Protocol):
    """Closes of the past in USD. Raises `UpstreamUnavailable`."""

    async def daily(
        self, assets: Sequence[AssetRef], from_day: int, to_day: int
    ) -> dict[str, Mapping[int, Decimal]]:
        """Daily closes in USD by day since 1970, per asset; at least the days asked for. An asset without any is left out."""
        ...

    async def at(self, asset: AssetRef, at_us: int) -> Decimal | None:
        """The close of the minute of that time, or of its hour or day where minutes are not kept; None when unknown."""
        ...


class CoinCatalogue(Protocol):
    """What a name means."""

    def resolve(self, text: str) -> Coin | None:
        """The asset behind a symbol or coin id; None when unknown. Raises `Invalid` when ambiguous."""
        ...

    def coin(self, coin_id: str) -> Coin | None:
        """A coin by its CoinGecko id; None when unknown."""
        ...

    def quote_of(self, text: str) -> str | None:
        """The quote of a pair, as it is written; `USD` for a bare asset; None when unknown."""
        ...

    @property
    def is_loaded(self) -> bool: ...


class WantedCoins(Protocol):
    """Coins that someone holds: asked for, so that they get a price though no venue trades them."""

    def want(self, coin_ids: Collection[str]) -> None:
        """Note them; they are asked for in the background."""
        ...
