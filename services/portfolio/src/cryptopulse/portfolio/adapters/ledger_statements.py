"""Statements on the ledger: append-only revisions, which of them counts, and the legs that follow from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Final

import asyncpg

from cryptopulse.common.errors import Conflict, NotFound
from cryptopulse.portfolio.adapters import rows
from cryptopulse.portfolio.adapters.bulk import ROWS_AT_ONCE, insert_rows, typed_arrays
from cryptopulse.portfolio.adapters.statements import Statements
from cryptopulse.portfolio.application.ports import Filter, Portfolio, Recorded
from cryptopulse.portfolio.domain.postings import Posting
from cryptopulse.portfolio.domain.transactions import Transaction

_REVISION: Final = (
    "SELECT r.*, a.coin_id, a.coin_name, a.coin_symbol FROM transaction_current c "
    "JOIN transaction_revision r USING (portfolio_id, id, revision) "
    "LEFT JOIN asset a ON a.portfolio_id = r.portfolio_id AND a.asset = r.asset "
)


def _place(column: str) -> str:
    return f"${rows.REVISION_COLUMNS.index(column) + 1}"


_CHANGED: Final = ("revision", "at_us", "asset", "kind", "account", "external_id", "fingerprint")
_RECORD: Final = f"""
    WITH recorded AS (
        INSERT INTO transaction_revision ({", ".join(rows.REVISION_COLUMNS)})
        VALUES ({", ".join(map(_place, rows.REVISION_COLUMNS))})
    ), counts AS (
        INSERT INTO transaction_current ({", ".join(rows.CURRENT_COLUMNS)})
        VALUES ({", ".join(map(_place, rows.CURRENT_COLUMNS))})
            ON CONFLICT (portfolio_id, id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)}
    ), counted AS (
        UPDATE portfolio SET transaction_count = transaction_count + ${len(rows.REVISION_COLUMNS) + 1}::int
         WHERE owner_id = {_place("owner_id")} AND id = {_place("portfolio_id")} AND ${len(rows.REVISION_COLUMNS) + 1}::int <> 0
    )
    INSERT INTO leg ({", ".join(rows.LEG_COLUMNS)})
    SELECT {_place("portfolio_id")}, {_place("owner_id")}, legs.*
      FROM unnest({typed_arrays(rows.LEG_COLUMNS[2:], len(rows.REVISION_COLUMNS) + 2)}) AS legs
"""  # noqa: S608 - fixed columns


class LedgerStatements(Statements):
    """Recording, revising, voiding, and reading what is recorded."""

    async def new_ids(self, count: int) -> list[int]:
        """Rising ids; taken under the portfolio's lock, they rise in the order of recording."""
        found = await self._db.fetch(
            "SELECT nextval('transaction_id') AS id FROM generate_series(1, $1)", count
        )
        return [row["id"] for row in found]

    async def add(
        self,
        portfolio: Portfolio,
        items: Sequence[tuple[Transaction, Sequence[Posting]]],
        ids: Sequence[int],
        now_us: int,
    ) -> None:
        """Revisions first, then which counts, then legs; in bulk."""
        try:
            if len(items) == 1:
                (transaction, postings), (number,) = items[0], ids
                await self._record(portfolio, number, 1, transaction, postings, now_us, counted=1)
                return
            await self._add_many(portfolio, items, ids, now_us)
        except asyncpg.UniqueViolationError as error:
            raise Conflict(
                "A transaction with this external_id or the same content from a file is recorded already.",
                code="duplicate-transaction",
            ) from error
        await self._add_legs(portfolio, [posting for _, postings in items for posting in postings])
        await self._count(portfolio.id, len(items))

    async def _record(
        self, portfolio: Portfolio, transaction_id: int, revision: int, transaction: Transaction,
        postings: Sequence[Posting], now_us: int, *, counted: int,
    ) -> None:  # fmt: skip
        """A revision that counts, with its legs: one statement."""
        if self.changes is not None:
            self.changes.add(postings)
        legs = [posting[:] for posting in postings]
        columns = zip(*legs, strict=True) if legs else [()] * len(Posting._fields)
        await self._db.execute(
            _RECORD,
            *self._revision(portfolio, transaction_id, revision, transaction, now_us, voided=False),
            counted, *map(list, columns),
        )  # fmt: skip

    def _revision(
        self, portfolio: Portfolio, transaction_id: int, revision: int, transaction: Transaction, now_us: int,
        *, voided: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        row = rows.transaction_row(transaction)
        return (portfolio.id, transaction_id, revision, self._owner, voided, now_us, *row)

    async def _add_many(
        self,
        portfolio: Portfolio,
        items: Sequence[tuple[Transaction, Sequence[Posting]]],
        ids: Sequence[int],
        now_us: int,
    ) -> None:
        """Some thousand at a time, so that neither memory nor the loop feels a long file."""
        numbered = list(zip(ids, (transaction for transaction, _ in items), strict=True))
        for first in range(0, len(numbered), ROWS_AT_ONCE):
            part = numbered[first : first + ROWS_AT_ONCE]
            revisions = [
                self._revision(portfolio, number, 1, transaction, now_us, voided=False)
                for number, transaction in part
            ]
            await insert_rows(self._db, "transaction_revision", rows.REVISION_COLUMNS, revisions)
            current = [
                (
                    portfolio.id, number, 1, self._owner, t.at_us, t.asset, t.kind, t.account, t.external_id,
                    t.fingerprint,
                )
                for number, t in part
            ]  # fmt: skip
            await insert_rows(self._db, "transaction_current", rows.CURRENT_COLUMNS, current)

    async def _add_legs(self, portfolio: Portfolio, postings: Sequence[Posting]) -> None:
        if self.changes is not None:
            self.changes.add(postings)
        for first in range(0, len(postings), ROWS_AT_ONCE):
            part = postings[first : first + ROWS_AT_ONCE]
            records = [rows.leg_row(portfolio.id, self._owner, posting) for posting in part]
            await insert_rows(self._db, "leg", rows.LEG_COLUMNS, records)

    async def _count(self, portfolio_id: int, change: int) -> None:
        await self._db.execute(
            "UPDATE portfolio SET transaction_count = transaction_count + $3 WHERE owner_id = $1 AND id = $2",
            self._owner, portfolio_id, change,
        )  # fmt: skip

    async def revise(
        self, portfolio: Portfolio, old: Recorded, new: Transaction, postings: Sequence[Posting], now_us: int
    ) -> None:
        """The next revision takes the place of the old one's legs."""
        await self._drop_legs(portfolio.id, old.id)
        await self._record(portfolio, old.id, old.revision + 1, new, postings, now_us, counted=0)

    async def void(self, portfolio: Portfolio, old: Recorded, now_us: int) -> None:
        """A void is a revision; nothing counts afterwards."""
        await self._drop_legs(portfolio.id, old.id)
        await self._db.execute(
            "DELETE FROM transaction_current WHERE portfolio_id = $1 AND id = $2 AND owner_id = $3",
            portfolio.id, old.id, self._owner,
        )  # fmt: skip
        revision = self._revision(portfolio, old.id, old.revision + 1, old.transaction, now_us, voided=True)
        await insert_rows(self._db, "transaction_revision", rows.REVISION_COLUMNS, [revision])
        await self._count(portfolio.id, -1)

    async def _drop_legs(self, portfolio_id: int, transaction_id: int) -> None:
        if self.changes is not None:
            self.changes.drop(transaction_id)
        await self._db.execute(
            "DELETE FROM leg WHERE portfolio_id = $1 AND seq = $2 AND owner_id = $3",
            portfolio_id, transaction_id, self._owner,
        )  # fmt: skip

    async def recorded(self, portfolio_id: int, transaction_id: int) -> Recorded:
        """The revision that counts."""
        row = await self._db.fetchrow(
            _REVISION + "WHERE c.portfolio_id = $1 AND c.id = $2 AND c.owner_id = $3",
            portfolio_id, transaction_id, self._owner,
        )  # fmt: skip
        if row is None:
            raise NotFound("There is no such transaction in this portfolio.", code="transaction-not-found")
        return rows.recorded_of(row)

    async def revisions(self, portfolio_id: int, transaction_id: int) -> list[Recorded]:
        """All of them, also of a voided transaction."""
        found = await self._db.fetch(
            "SELECT r.*, a.coin_id, a.coin_name, a.coin_symbol FROM transaction_revision r "
            "LEFT JOIN asset a ON a.portfolio_id = r.portfolio_id AND a.asset = r.asset "
            "WHERE r.portfolio_id = $1 AND r.id = $2 AND r.owner_id = $3 ORDER BY r.revision",
            portfolio_id, transaction_id, self._owner,
        )  # fmt: skip
        if not found:
            raise NotFound("There is no such transaction in this portfolio.", code="transaction-not-found")
        return [rows.recorded_of(row) for row in found]

    async def listed(self, portfolio_id: int, chosen: Filter) -> list[Recorded]:
        """Newest first, by keyset."""
        at_us, last_id = chosen.before or (2**62, 2**62)
        found = await self._db.fetch(
            _REVISION + "WHERE c.portfolio_id = $1 AND c.owner_id = $2 AND (c.at_us, c.id) < ($3, $4) "
            "AND ($5::text IS NULL OR c.asset = $5) AND ($6::text IS NULL OR c.kind = $6) "
            "AND ($7::text IS NULL OR c.account = $7) ORDER BY c.at_us DESC, c.id DESC LIMIT $8",
            portfolio_id, self._owner, at_us, last_id, chosen.asset, chosen.kind, chosen.account, chosen.limit,
        )  # fmt: skip
        return [rows.recorded_of(row) for row in found]

    async def all_recorded(self, portfolio_id: int) -> AsyncIterator[Recorded]:
        """By a server-side cursor."""
        async for row in self._db.cursor(
            _REVISION + "WHERE c.portfolio_id = $1 AND c.owner_id = $2 ORDER BY c.at_us, c.id",
            portfolio_id, self._owner, prefetch=500,
        ):  # fmt: skip
            yield rows.recorded_of(row)

    async def known(
        self, portfolio_id: int, external_ids: Collection[str], fingerprints: Collection[str]
    ) -> tuple[set[str], set[str]]:
        """Of a file's rows."""
        found = await self._db.fetch(
            "SELECT external_id, fingerprint FROM transaction_current WHERE portfolio_id = $1 AND owner_id = $2 "
            "AND (external_id = ANY ($3::text[]) OR fingerprint = ANY ($4::text[]))",
            portfolio_id, self._owner, list(external_ids), list(fingerprints),
        )  # fmt: skip
        return (
            {row["external_id"] for row in found if row["external_id"]},
            {row["fingerprint"] for row in found if row["fingerprint"]},
        )

    async def known_ids(self, portfolio_id: int, ids: Collection[int]) -> dict[int, Transaction]:
        """For rows of our own format, which name them."""
        if not ids:
            return {}
        found = await self._db.fetch(
            _REVISION + "WHERE c.portfolio_id = $1 AND c.owner_id = $2 AND c.id = ANY ($3::bigint[])",
            portfolio_id, self._owner, list(ids),
        )  # fmt: skip
        return {row["id"]: rows.recorded_of(row).transaction for row in found}
