"""Writing to the ledger: values a transaction in the base currency, records it and replays what it touches, all in one unit."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.portfolio.application.ports import (
    Books,
    Coin,
    NewPortfolio,
    Portfolio,
    Recorded,
    Unit,
    WantedCoins,
)
from cryptopulse.portfolio.application.replay import rebuild
from cryptopulse.portfolio.application.worth import Draft, Worth
from cryptopulse.portfolio.domain.money import OutOfRangeError
from cryptopulse.portfolio.domain.postings import Key, Posting, key_of
from cryptopulse.portfolio.domain.transactions import Transaction, TransactionRefusedError, check, postings_of

DEFAULT_NAME: Final = "Default"
BREATHE_EVERY: Final = 200
"""Transactions of a file after which others get the loop."""


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write: the transaction as recorded and the portfolio's new version."""

    portfolio: Portfolio
    recorded: Recorded


class Ledger:
    """The write path. Prices that a caller left out are looked up before the unit of work, never inside it."""

    def __init__(self, books: Books, worth: Worth, wanted: WantedCoins, clock: Clock) -> None:
        self._books = books
        self._worth = worth
        self._wanted = wanted
        self._clock = clock

    async def default_portfolio(self, owner_id: str) -> Portfolio:
        """The caller's default portfolio, made on first use."""
        async with self._books.unit(owner_id) as unit:
            found = await unit.default_portfolio()
            return found or await unit.create(NewPortfolio(name=DEFAULT_NAME, is_default=True))

    async def record(
        self,
        unit: Unit,
        portfolio_id: int,
        transaction: Transaction,
        coins: Sequence[Coin],
        *,
        if_match: int | None = None,
    ) -> Written:
        """Record one valued transaction. Raises `Invalid`, `Conflict`, `NotFound`, `PreconditionFailed`."""
        portfolio = await unit.next_version(portfolio_id, if_match)
        now_us = self._clock.now_us()
        (new_id,) = await unit.new_ids(1)
        postings = checked_postings(transaction, new_id, portfolio, now_us)
        await unit.add(portfolio, [(transaction, postings)], [new_id], now_us)
        await unit.keep_coins(portfolio, coins)
        await rebuild(unit, portfolio, touched_by(postings))
        await unit.announce(self._event(portfolio, "recorded", postings))
        self._wanted.want({coin.coin_id for coin in coins if coin.coin_id})
        return Written(portfolio, await unit.recorded(portfolio_id, new_id))

    async def revise(
        self, unit: Unit, portfolio_id: int, old: Recorded, transaction: Transaction, coins: Sequence[Coin],
        *, if_match: int | None = None,
    ) -> Written:  # fmt: skip
        """Put a new revision in the place of `old`; the history without the old revision is what is checked."""
        portfolio = await unit.next_version(portfolio_id, if_match)
        newest = await unit.recorded(portfolio_id, old.id)
        if newest.revision != old.revision:
            raise Invalid("The transaction was edited meanwhile: read it again.", code="stale-revision")
        now_us = self._clock.now_us()
        before = postings_of(old.transaction, old.id, portfolio.cash_mode)
        postings = checked_postings(transaction, old.id, portfolio, now_us)
        await unit.revise(portfolio, old, transaction, postings, now_us)
        await unit.keep_coins(portfolio, coins)
        await rebuild(unit, portfolio, touched_by([*before, *postings]))
        await unit.announce(self._event(portfolio, "edited", [*before, *postings]))
        return Written(portfolio, await unit.recorded(portfolio_id, old.id))

    async def void(
        self, unit: Unit, portfolio_id: int, transaction_id: int, *, if_match: int | None = None
    ) -> Portfolio:
        """Void a transaction; refused when what remains would not be covered."""
        portfolio = await unit.next_version(portfolio_id, if_match)
        old = await unit.recorded(portfolio_id, transaction_id)
        before = postings_of(old.transaction, old.id, portfolio.cash_mode)
        await unit.void(portfolio, old, self._clock.now_us())
        await rebuild(unit, portfolio, touched_by(before))
        await unit.announce(self._event(portfolio, "voided", before))
        return portfolio

    async def record_many(
        self, unit: Unit, portfolio: Portfolio, transactions: Sequence[Transaction], coins: Sequence[Coin]
    ) -> list[int]:
        """Record a file's transactions in one go, with one replay; the caller holds the portfolio's lock."""
        now_us = self._clock.now_us()
        ids = await unit.new_ids(len(transactions))
        items: list[tuple[Transaction, Sequence[Posting]]] = []
        for number, transaction in zip(ids, transactions, strict=True):
            items.append((transaction, checked_postings(transaction, number, portfolio, now_us)))
            if len(items) % BREATHE_EVERY == 0:
                await asyncio.sleep(0)
        postings = [posting for _, legs in items for posting in legs]
        touched, event = touched_by(postings), self._event(portfolio, "imported", postings)
        await unit.add(portfolio, items, ids, now_us)
        await unit.keep_coins(portfolio, coins)
        del items, postings  # the replay reads what it needs: a long file is not held twice
        await rebuild(unit, portfolio, touched)
        await unit.announce(event)
        self._wanted.want({coin.coin_id for coin in coins if coin.coin_id})
        return ids

    async def settings(
        self, unit: Unit, portfolio_id: int, changes: Mapping[str, object], *, if_match: int | None = None
    ) -> Portfolio:
        """Change a portfolio's settings; a change of the lot policy replays all of it."""
        before = await unit.next_version(portfolio_id, if_match)
        changed = await unit.change(portfolio_id, changes)
        if changed.policy() != before.policy():
            stored = await unit.components(portfolio_id)
            await rebuild(unit, changed, dict.fromkeys(stored))
        await unit.announce(self._event(changed, "settings", ()))
        return changed

    async def valued(
        self, portfolio: Portfolio, draft: Draft, known: Sequence[Coin]
    ) -> tuple[Transaction, list[Coin]]:
        """The draft with every worth in the base currency; see `Worth.valued`."""
        return await self._worth.valued(portfolio, draft, known)

    def _event(self, portfolio: Portfolio, kind: str, postings: Sequence[Posting]) -> PortfolioChanged:
        return PortfolioChanged(
            id=f"pc_{portfolio.id}_{portfolio.version}_{secrets.token_hex(4)}",
            user_id=portfolio.owner_id,
            portfolio_id=portfolio.id,
            version=portfolio.version,
            at_ms=self._clock.now_ms(),
            kind=kind,
            assets=sorted({posting.asset for posting in postings})[:100],
        )


def checked_postings(
    transaction: Transaction, seq: int, portfolio: Portfolio, now_us: int
) -> tuple[Posting, ...]:
    """The postings of a transaction that means something. Raises `Invalid` naming the field."""
    try:
        check(transaction, now_us)
        return postings_of(transaction, seq, portfolio.cash_mode)
    except TransactionRefusedError as error:
        raise refused(error.field, error.detail) from error
    except OutOfRangeError as error:
        raise refused("quantity", str(error)) from error


def refused(field: str, detail: str, code: str = "invalid") -> Invalid:
    """A refusal of one field of a body."""
    return Invalid(f"{field}: {detail}", errors=(FieldError(f"/{field}", code, detail),))


def touched_by(postings: Sequence[Posting]) -> dict[str, Key | None]:
    """The earliest place per asset that these postings change; a rename changes the grouping, hence everything."""
    touched: dict[str, Key | None] = {}
    for posting in postings:
        key = key_of(posting)
        if posting.op == "N":
            touched[posting.asset] = None
            touched[posting.target or posting.asset] = None
        elif posting.asset not in touched:
            touched[posting.asset] = key
        else:
            known = touched[posting.asset]
            touched[posting.asset] = None if known is None else min(known, key)
    return touched
