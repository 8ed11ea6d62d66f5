"""The books in Postgres: one transaction per unit of work, as one owner, behind row-level security."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptopulse.common.database.pool import Database
from cryptopulse.portfolio.adapters.book_statements import BookStatements
from cryptopulse.portfolio.adapters.job_statements import JobStatements
from cryptopulse.portfolio.adapters.ledger_statements import LedgerStatements
from cryptopulse.portfolio.adapters.leg_cache import LegCache
from cryptopulse.portfolio.adapters.portfolio_statements import PortfolioStatements

LEGS_KEPT = 100_000
"""Parsed legs kept in memory for the next write, some 70 MB."""


class PostgresUnit(PortfolioStatements, LedgerStatements, BookStatements, JobStatements):
    """The statements of one unit of work."""


class PostgresBooks:
    """Gives units of work; the owner is a condition of every statement, and row-level security holds besides."""

    def __init__(self, database: Database, *, legs_kept: int = LEGS_KEPT) -> None:
        self._database = database
        self._legs = LegCache(legs_kept)

    @asynccontextmanager
    async def unit(self, owner_id: str, *, readonly: bool = False) -> AsyncIterator[PostgresUnit]:
        """One transaction as this owner. A reading one sees a single state of the books throughout."""
        isolation = "repeatable_read" if readonly else "read_committed"
        async with self._database.transaction(owner_id, isolation=isolation, readonly=readonly) as connection:  # type: ignore[arg-type] # one of two literals
            unit = PostgresUnit(connection, owner_id, self._legs)
            yield unit
        if unit.changes is not None:  # committed, or the line above had raised
            self._legs.committed(unit.changes)
