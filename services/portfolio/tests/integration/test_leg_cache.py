"""Legs that are kept in memory are those of the database, whoever wrote last, and whatever failed between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Invalid
from cryptopulse.common.runtime.command import migrations_of
from cryptopulse.portfolio.adapters.books import PostgresBooks
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.ports import NewPortfolio
from cryptopulse.portfolio.application.valuation import replayed_positions
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.settings import PortfolioSettings

START_US = 1_700_000_000_000_000
ASSETS = ("BTC", "ETH", "OLD", "NEW")


class Nothing:
    def want(self, coin_ids: Any) -> None:
        """Nobody is asked."""


@pytest.fixture
async def database(postgres_db: str) -> AsyncIterator[Database]:
    use_money_context()
    directory = migrations_of(PortfolioSettings)
    assert directory is not None
    await migrate(postgres_db, schema="portfolio", role="cryptopulse_portfolio", directory=directory)
    pool = Database(
        postgres_db, schema="portfolio", role="cryptopulse_portfolio", application_name="t", max_size=2
    )
    await pool.start()
    yield pool
    await pool.close()


def a_transaction(rng: random.Random) -> Transaction:
    kind: Any = rng.choice(["buy", "buy", "buy", "sell", "rename"])
    quantity = Decimal(rng.randrange(1, 400)) / 100
    plain: dict[str, Any] = {
        "at_us": START_US + rng.randrange(10**9), "price": Decimal(7), "currency": "USD", "total": quantity * 7,
        "value": quantity * 7, "fx_rate": Decimal(1), "fee_value": Decimal(0), "account": rng.choice(["", "a"]),
    }  # fmt: skip
    if kind == "rename":
        return Transaction(
            kind="rename", asset="OLD", counter_asset="NEW", quantity=Decimal(1), counter_quantity=Decimal(1),
            at_us=plain["at_us"], value=Decimal(0), fee_value=Decimal(0), account="",
        )  # fmt: skip
    return Transaction(kind=kind, asset=rng.choice(ASSETS), quantity=quantity, **plain)


@pytest.mark.parametrize("seed", range(4))
async def test_two_replicas_and_refusals_never_leave_a_wrong_book(database: Database, seed: int) -> None:
    rng = random.Random(seed)
    replicas = [PostgresBooks(database), PostgresBooks(database, legs_kept=60)]
    ledgers = [Ledger(books, None, Nothing(), SystemClock()) for books in replicas]  # type: ignore[arg-type] # prices are given
    async with replicas[0].unit("alice") as unit:
        portfolio = (await unit.create(NewPortfolio("x"))).id
    written: list[int] = []
    refused = 0
    for _ in range(60):
        which = rng.choice([0, 0, 0, 1])
        books, ledger = replicas[which], ledgers[which]
        act = rng.choice(["record", "record", "record", "revise", "void", "many"])
        try:
            async with books.unit("alice") as unit:
                if act == "record" or not written:
                    done = await ledger.record(unit, portfolio, a_transaction(rng), [])
                    written.append(done.recorded.id)
                elif act == "revise":
                    old = await unit.recorded(portfolio, rng.choice(written))
                    moved = replace(old.transaction, at_us=START_US + rng.randrange(10**9))
                    await ledger.revise(unit, portfolio, old, moved, [])
                elif act == "void":
                    gone = rng.choice(written)
                    await ledger.void(unit, portfolio, gone)
                    written.remove(gone)
                else:
                    locked = await unit.next_version(portfolio, None)
                    many = [a_transaction(rng) for _ in range(3)]
                    written += await ledger.record_many(unit, locked, many, [])
        except Invalid:
            refused += 1
            async with books.unit("alice", readonly=True) as unit:
                written = [item.id async for item in unit.all_recorded(portfolio)]
        async with books.unit("alice", readonly=True) as unit:
            stored = {p.asset: p for p in await unit.positions(portfolio)}
            fresh, _ = await replayed_positions(unit, await unit.portfolio(portfolio), None, None)
        expected = {p.asset: p for p in fresh}
        assert stored.keys() == expected.keys()
        for asset, position in stored.items():
            assert (position.quantity, position.cost, position.realised) == (
                expected[asset].quantity,
                expected[asset].cost,
                expected[asset].realised,
            )
    assert refused, "the seed never oversold: the test proves less than it says"
    assert len(replicas[1]._legs) <= 60
