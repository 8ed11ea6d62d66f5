"""A process that is killed for real between any two steps of a write: the book is as before, or as after, never between."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.runtime.command import migrations_of
from cryptopulse.portfolio.adapters.books import PostgresBooks
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.ports import Answer, Filter, NewPortfolio
from cryptopulse.portfolio.application.valuation import replayed_positions
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.settings import PortfolioSettings

CHILD = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[4])
import test_portfolio_kill as t
asyncio.run(t.dying_write(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[5]))
"""
STEPS = (
    "claim", "next_version", "new_ids", "add", "keep_coins", "replace_segments", "replace_positions", "announce",
    "recorded", "keep_answer", "committed",
)  # fmt: skip
OTHERS = {
    "revise": ("next_version", "revise", "replace_segments", "replace_positions", "announce", "committed"),
    "void": ("next_version", "void", "drop_component", "announce", "committed"),
    "many": ("next_version", "add", "replace_segments", "replace_positions", "announce", "committed"),
}
"""An edit, a void and a file."""
BODY = b'{"made":"once"}'


class Nothing:
    def want(self, coin_ids: Any) -> None:
        """Nobody is asked."""


def bought(quantity: str) -> Transaction:
    return Transaction(
        kind="buy", at_us=1_700_000_000_000_000, asset="BTC", quantity=Decimal(quantity), price=Decimal(7),
        currency="USD", total=Decimal(quantity) * 7, value=Decimal(quantity) * 7, fx_rate=Decimal(1),
        fee_value=Decimal(0), account="",
    )  # fmt: skip


def a_pool(url: str) -> Database:
    return Database(url, schema="portfolio", role="cryptopulse_portfolio", application_name="t", max_size=2)


async def write(books: PostgresBooks, portfolio: int, quantity: str, key: str) -> Answer:
    """A write under an idempotency key, as HTTP does it."""
    ledger = Ledger(books, None, Nothing(), SystemClock())  # type: ignore[arg-type] # the price is given
    async with books.unit("alice") as unit:
        known = await unit.claim(key, b"hash")
        if known is not None:
            return known
        await ledger.record(unit, portfolio, bought(quantity), [])
        answer = Answer(201, None, BODY)
        await unit.keep_answer(key, answer)
    return answer


async def change(books: PostgresBooks, portfolio: int, act: str) -> None:
    """An edit or a void of the one transaction there is, or two more as a file brings them."""
    ledger = Ledger(books, None, Nothing(), SystemClock())  # type: ignore[arg-type] # the price is given
    async with books.unit("alice") as unit:
        (first,) = await unit.listed(portfolio, Filter(2))
        if act == "revise":
            await ledger.revise(unit, portfolio, first, bought("5"), [])
        elif act == "void":
            await ledger.void(unit, portfolio, first.id)
        else:
            locked = await unit.next_version(portfolio, None)
            await ledger.record_many(unit, locked, [bought("2"), bought("4")], [])


async def dying_write(url: str, portfolio: int, step: str, act: str) -> None:
    """In the child: the kill comes right after the step, with its statement done and nothing else."""
    import os

    from cryptopulse.portfolio.adapters.books import PostgresUnit

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    use_money_context()
    if step != "committed":
        whole = getattr(PostgresUnit, step)

        async def dies(self: Any, *args: Any, **more: Any) -> Any:
            await whole(self, *args, **more)
            die()

        setattr(PostgresUnit, step, dies)
    database = a_pool(url)
    await database.start()
    if act == "record":
        await write(PostgresBooks(database), portfolio, "2", "second")
    else:
        await change(PostgresBooks(database), portfolio, act)
    die()


@pytest.fixture
async def database(postgres_db: str) -> AsyncIterator[Database]:
    use_money_context()
    directory = migrations_of(PortfolioSettings)
    assert directory is not None
    await migrate(postgres_db, schema="portfolio", role="cryptopulse_portfolio", directory=directory)
    pool = a_pool(postgres_db)
    await pool.start()
    yield pool
    await pool.close()


async def state(database: Database, portfolio: int) -> tuple[Any, ...]:
    """Everything that a half-done write could have left."""
    async with database.transaction("alice") as connection:
        counts = [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("transaction_revision", "transaction_current", "leg", "idempotency", "outbox")
        ]
    async with PostgresBooks(database).unit("alice", readonly=True) as unit:
        found = await unit.portfolio(portfolio)
        stored = [(p.asset, p.quantity, p.cost) for p in await unit.positions(portfolio)]
        fresh, _ = await replayed_positions(unit, found, None, None)
        assert stored == [(p.asset, p.quantity, p.cost) for p in fresh]
        segments = await unit.segments(portfolio)
    return (*counts, found.version, found.transaction_count, stored, [s.postings for _, s in segments])


@pytest.mark.parametrize("step", STEPS)
async def test_sigkill_leaves_the_book_before_or_after(
    database: Database, postgres_db: str, step: str, request: pytest.FixtureRequest
) -> None:
    books = PostgresBooks(database)
    async with books.unit("alice") as unit:
        portfolio = (await unit.create(NewPortfolio("x"))).id
    await write(books, portfolio, "1", "first")
    before = await state(database, portfolio)
    await killed(database, postgres_db, portfolio, step, "record", request)
    after = await state(database, portfolio)
    if step == "committed":
        assert after[5:7] == (before[5] + 1, 2)
    else:
        assert after == before
    answer = await write(books, portfolio, "2", "second")
    assert answer.body == BODY
    final = await state(database, portfolio)
    assert final[5:8] == (before[5] + 1, 2, [("BTC", Decimal(3), Decimal(21))])
    assert final[4] == before[4] + 1


@pytest.mark.parametrize(("act", "step"), [(act, step) for act, steps in OTHERS.items() for step in steps])
async def test_sigkill_leaves_edits_voids_and_files_whole(
    database: Database, postgres_db: str, act: str, step: str, request: pytest.FixtureRequest
) -> None:
    books = PostgresBooks(database)
    async with books.unit("alice") as unit:
        portfolio = (await unit.create(NewPortfolio("x"))).id
    await write(books, portfolio, "1", "first")
    before = await state(database, portfolio)
    await killed(database, postgres_db, portfolio, step, act, request)
    if step != "committed":
        assert await state(database, portfolio) == before
        await change(books, portfolio, act)
    after = await state(database, portfolio)
    bought_now = {
        "revise": [("BTC", Decimal(5), Decimal(35))],
        "void": [],
        "many": [("BTC", Decimal(7), Decimal(49))],
    }
    assert after[7] == bought_now[act]
    assert after[5] == before[5] + 1
    assert after[6] == {"revise": 1, "void": 0, "many": 3}[act]


async def killed(
    database: Database, url: str, portfolio: int, step: str, act: str, request: pytest.FixtureRequest
) -> None:
    """A process that begins the write and dies in it; back when the server has given up what it held."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, url, str(portfolio), step, str(request.path.parent), act
    )
    assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL
    async with asyncio.timeout(10):
        while await _others(database):
            await asyncio.sleep(0.02)


async def _others(database: Database) -> int:
    async with database.connection() as connection:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND application_name = 't' AND state <> 'idle'"
        )
    return int(found)
