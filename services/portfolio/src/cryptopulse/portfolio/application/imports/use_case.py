"""Importing a file: read, value, tell duplicates, screen against the books, and record what is good in one unit of work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import Options, Outcome, decoded
from cryptopulse.portfolio.application.imports.screen import uncovered
from cryptopulse.portfolio.application.ledger import Ledger, checked_postings
from cryptopulse.portfolio.application.ports import (
    AssetRef,
    Books,
    CloseReader,
    Coin,
    CoinCatalogue,
    Portfolio,
    PriceReader,
    Unit,
)
from cryptopulse.portfolio.application.replay import groups_of
from cryptopulse.portfolio.application.worth import Worth
from cryptopulse.portfolio.domain.book import DAY_US
from cryptopulse.portfolio.domain.postings import Posting
from cryptopulse.portfolio.domain.transactions import Transaction

BREATHE_EVERY: Final = 200
EXACT_LOOKUPS: Final = 200
SHOWN_ROWS: Final = 1_000


@dataclass(slots=True)
class Verdict:
    """What becomes of one row."""

    row: int
    status: str
    code: str | None = None
    detail: str | None = None
    transaction: Transaction | None = None
    transaction_id: int | None = None


@dataclass(slots=True)
class Imported:
    """The outcome of a file."""

    portfolio: Portfolio
    format: str
    encoding: str
    committed: bool
    verdicts: list[Verdict]
    counts: Counter[str] = field(default_factory=Counter)
    first_us: int | None = None
    last_us: int | None = None
    rows: int = 0


Progress = Callable[[int], Awaitable[None]]
"""Told now and then how many rows were read."""
Finish = Callable[[Unit, Imported], Awaitable[None]]
"""Called with the outcome inside the unit of work that records it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    body: bytes
    format: str | None
    commit: bool
    flag_oversell: bool
    stablecoin_par: bool
    options: Options
    if_match: int | None = None


class FrugalCloses:
    """Closes of the minute for the first few times that are asked for, daily closes afterwards: bounded for long files."""

    def __init__(self, closes: CloseReader, clock: Clock) -> None:
        self._closes = closes
        self._clock = clock
        self._known: dict[tuple[str, int], Decimal | None] = {}
        self._days: dict[str, Mapping[int, Decimal]] = {}

    async def daily(
        self, assets: Sequence[AssetRef], from_day: int, to_day: int
    ) -> dict[str, Mapping[int, Decimal]]:
        """As the reader behind."""
        return await self._closes.daily(assets, from_day, to_day)

    async def at(self, asset: AssetRef, at_us: int) -> Decimal | None:
        """The close of the minute, or of the day before when many were asked for already (never of a later time)."""
        key = (asset.asset, at_us // 60_000_000)
        if key in self._known:
            return self._known[key]
        if len(self._known) < EXACT_LOOKUPS:
            self._known[key] = await self._closes.at(asset, at_us)
            return self._known[key]
        day = at_us // DAY_US - 1
        days = self._days.get(asset.asset)
        if days is None:
            today = self._clock.now_us() // DAY_US
            found = await self._closes.daily([asset], today - 366 * 15, today)
            days = self._days[asset.asset] = found.get(asset.asset, {})
        return days.get(day)


class Importer:
    """One file at a time and request; the loop breathes while a long one is worked on."""

    def __init__(
        self,
        books: Books,
        ledger: Ledger,
        prices: PriceReader,
        closes: CloseReader,
        catalogue: CoinCatalogue,
        clock: Clock,
    ) -> None:
        self._books = books
        self._ledger = ledger
        self._prices = prices
        self._closes = closes
        self._catalogue = catalogue
        self._clock = clock

    async def run(
        self,
        owner_id: str,
        portfolio_id: int,
        request: Request,
        progress: Progress | None = None,
        finish: Finish | None = None,
    ) -> Imported:
        """Raises `NotFound`, `Invalid` for a file that cannot be read at all, `PreconditionFailed`."""
        async with self._books.unit(owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(portfolio_id)
            coins = await unit.coins(portfolio_id)
        text, encoding = decoded(request.body)
        name, outcomes = read_file(text, request.format, request.options)
        worth = Worth(self._prices, FrugalCloses(self._closes, self._clock), self._catalogue, self._clock)
        prepared = _Prepared(portfolio, worth, coins, request)
        for number, outcome in enumerate(outcomes):
            await prepared.take(outcome)
            if number % BREATHE_EVERY == 0:
                await asyncio.sleep(0)
                if progress is not None:
                    await progress(outcome.row)
        async with self._books.unit(owner_id, readonly=not request.commit and finish is None) as unit:
            if request.commit:
                portfolio = await unit.next_version(portfolio_id, request.if_match)
            good = await self._screened(unit, portfolio, prepared)
            if request.commit and good:
                ids = await self._ledger.record_many(
                    unit, portfolio, [item.transaction for item in good], prepared.coins_used()
                )
                for item, new_id in zip(good, ids, strict=True):
                    item.verdict.status, item.verdict.transaction_id = "recorded", new_id
            found = _imported(portfolio, name, encoding, request.commit, prepared.verdicts)
            if finish is not None:
                await finish(unit, found)
        return found

    async def _screened(self, unit: Unit, portfolio: Portfolio, prepared: _Prepared) -> list[_Item]:
        """Mark duplicates and what the books cannot take; what is left may be recorded."""
        items = prepared.items
        external = [i.transaction.external_id for i in items if i.transaction.external_id]
        prints = [i.transaction.fingerprint for i in items if i.transaction.fingerprint]
        known_external, known_prints = await unit.known(portfolio.id, external, prints)
        own = await unit.known_ids(portfolio.id, [i.own_id for i in items if i.own_id is not None])
        fresh: list[_Item] = []
        seen: set[str] = set()
        for item in items:
            tx = item.transaction
            mine = own.get(item.own_id) if item.own_id is not None else None
            if (
                tx.external_id in known_external
                or tx.fingerprint in known_prints
                or (mine is not None and _same(mine, tx))
            ):
                item.verdict.status, item.verdict.code = "duplicate", "recorded-already"
            elif tx.external_id is not None and tx.external_id in seen:
                item.verdict.status, item.verdict.code = "duplicate", "twice-in-file"
            else:
                seen.add(tx.external_id or "")
                fresh.append(item)
        return await self._covered(unit, portfolio, fresh)

    async def _covered(self, unit: Unit, portfolio: Portfolio, fresh: list[_Item]) -> list[_Item]:
        """Leave out what would sell more than is held, each with its reason."""
        base = 2**61  # ids of a trial, after all that are recorded
        trial: list[Posting] = []
        now_us = self._clock.now_us()
        kept: dict[int, _Item] = {}
        for offset, item in enumerate(fresh):
            try:
                legs = checked_postings(item.transaction, base + offset, portfolio, now_us)
            except Invalid as error:
                item.verdict.status, item.verdict.code, item.verdict.detail = (
                    "error",
                    error.code,
                    error.detail,
                )
                continue
            kept[base + offset] = item
            trial += legs
            if offset % BREATHE_EVERY == 0:
                await asyncio.sleep(0)
        assets = {p.asset for p in trial} | {p.target for p in trial if p.op == "N" and p.target}
        stored, renames = await unit.grouping(portfolio.id)
        renames += [(p.asset, p.target or "") for p in trial if p.op == "N"]
        groups = groups_of([*assets, *stored], renames)
        wanted = sorted({member for asset in assets for member in groups.get(asset, (asset,))})
        recorded = await unit.postings(portfolio.id, wanted, None)
        refused = await asyncio.to_thread(
            uncovered, [*recorded, *trial], kept.keys(), per_account=portfolio.lot_scope == "account"
        )
        for seq, (held, posting) in refused.items():
            culprit = kept.pop(seq, None)
            if culprit is None:
                raise Invalid(
                    f"Transaction {seq} would no longer be covered by what this file changes.",
                    code="oversold",
                )
            culprit.verdict.status, culprit.verdict.code = "error", "oversold"
            culprit.verdict.detail = (
                f"takes {format(posting.quantity.normalize(), 'f')} {posting.asset}, "
                f"but only {format(held.normalize(), 'f')} are held at that time"
            )
        return list(kept.values())


@dataclass(slots=True)
class _Item:
    """A valued transaction of a row."""

    verdict: Verdict
    transaction: Transaction
    own_id: int | None


@dataclass(slots=True)
class _Prepared:
    """Rows on their way: verdicts for all, items for the good."""

    portfolio: Portfolio
    worth: Worth
    coins: list[Coin]
    request: Request
    verdicts: list[Verdict] = field(default_factory=list)
    items: list[_Item] = field(default_factory=list)
    used: dict[str, Coin] = field(default_factory=dict)

    async def take(self, outcome: Outcome) -> None:
        """Value the drafts of a row; all of them, or the row is an error."""
        if outcome.error is not None:
            self.verdicts.append(Verdict(outcome.row, "error", "unreadable", outcome.error))
            return
        if not outcome.drafts:
            self.verdicts.append(Verdict(outcome.row, "ignored", None, outcome.ignored))
            return
        valued: list[tuple[Verdict, Transaction]] = []
        for draft in outcome.drafts:
            shaped = replace(
                draft,
                stablecoin_par=self.request.stablecoin_par,
                allow_uncovered=draft.allow_uncovered or self.request.flag_oversell,
            )
            try:
                transaction, coins = await self.worth.valued(self.portfolio, shaped, self.coins)
            except Invalid as error:
                self.verdicts.append(Verdict(outcome.row, "error", error.code, error.detail))
                return
            for coin in coins:
                if coin.asset not in self.used:
                    self.used[coin.asset] = coin
                    self.coins.append(coin)
            valued.append((Verdict(outcome.row, "ready", transaction=transaction), transaction))
        for verdict, transaction in valued:
            self.verdicts.append(verdict)
            self.items.append(_Item(verdict, transaction, outcome.own_id))

    def coins_used(self) -> list[Coin]:
        """The coins of the file."""
        return list(self.used.values())


def _same(recorded: Transaction, given: Transaction) -> bool:
    """Whether a row that names a transaction's id says what is recorded under it."""
    names = (
        "kind",
        "at_us",
        "asset",
        "quantity",
        "price",
        "total",
        "counter_asset",
        "counter_quantity",
        "fee",
        "account",
        "note",
    )
    return all(getattr(recorded, name) == getattr(given, name) for name in names)


def _imported(
    portfolio: Portfolio, name: str, encoding: str, committed: bool, verdicts: list[Verdict]
) -> Imported:
    times = [v.transaction.at_us for v in verdicts if v.transaction is not None]
    order = {"error": 0, "duplicate": 1, "ready": 2, "recorded": 2, "ignored": 3}
    rows = max((v.row for v in verdicts), default=0)
    verdicts.sort(key=lambda v: (order[v.status], v.row))
    return Imported(
        portfolio, name, encoding, committed, verdicts, Counter(v.status for v in verdicts),
        min(times, default=None), max(times, default=None), rows,
    )  # fmt: skip
