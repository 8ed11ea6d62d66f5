"""Transactions that may see every user's rows: those of the evaluation and of the delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.pool import Database


@asynccontextmanager
async def engine(db: Database) -> AsyncIterator[Connection]:
    """A transaction past the fence of row-level security. Raises `StoreUnavailable`."""
    async with db.transaction() as conn:
        await conn.execute("SELECT set_config('app.engine', 'on', true)")
        yield conn
