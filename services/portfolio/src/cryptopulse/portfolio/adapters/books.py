"""The books in Postgres: one transaction per unit of work, as one owner, behind row-level security."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, cast

import asyncpg

from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, key_part
from cryptopulse.common.database.connection import Connection
from cryptopulse.common.database.outbox import enqueue
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import Conflict, Invalid, NotFound, PreconditionFailed
from cryptopulse.portfolio.adapters import rows
from cryptopulse.portfolio.adapters.bulk import insert_rows
from cryptopulse.portfolio.application.ports import (
    Answer,
    Coin,
    Filter,
    NewPortfolio,
    Portfolio,
    Recorded,
    Segment,
    Watched,
)
from cryptopulse.portfolio.domain.postings import Key, Posting
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.domain.valuation import Position

MAX_PORTFOLIOS: Final = 200
KEY_HOURS: Final = 24
_CHANGEABLE: Final = frozenset({"name", "method", "lot_scope", "fees_in_cost_basis", "holding_period_days"})
_REVISION: Final = (
    "SELECT r.*, a.coin_id, a.coin_name, a.coin_symbol FROM transaction_current c "
    "JOIN transaction_revision r USING (portfolio_id, id, revision) "
    "LEFT JOIN asset a ON a.portfolio_id = r.portfolio_id AND a.asset = r.asset "
)


def _missing_portfolio() -> NotFound:
    return NotFound("There is no such portfolio.", code="portfolio-not-found")


class PostgresBooks:
    """Gives units of work; the owner is a condition of every statement, and row-level security holds besides."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self, owner_id: str, *, readonly: bool = False) -> AsyncIterator[PostgresUnit]:
        """One transaction as this owner. A reading one sees a single state of the books throughout."""
        isolation = "repeatable_read" if readonly else "read_committed"
        async with self._database.transaction(owner_id, isolation=isolation, readonly=readonly) as connection:  # type: ignore[arg-type] # one of two literals
            yield PostgresUnit(connection, owner_id)


class PostgresUnit:
    """The statements of one unit of work."""

    def __init__(self, connection: Connection, owner_id: str) -> None:
        self._db = connection
        self._owner = owner_id

    # --- idempotency ---------------------------------------------------------------------------------------------

    async def claim(self, key: str, request_hash: bytes) -> Answer | None:
        """The insert waits for another transaction that holds the key, so a second request sees its outcome."""
        await self._db.execute(
            "DELETE FROM idempotency WHERE owner_id = $1 AND created_at < now() - make_interval(hours => $2)",
            self._owner, KEY_HOURS,
        )  # fmt: skip
        new = await self._db.fetchval(
            "INSERT INTO idempotency (owner_id, key, request_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true",
            self._owner, key, request_hash,
        )  # fmt: skip
        if new:
            return None
        row = await self._db.fetchrow(
            "SELECT * FROM idempotency WHERE owner_id = $1 AND key = $2", self._owner, key
        )
        if row is None or row["status"] is None:
            raise Conflict(
                "A request with this Idempotency-Key is still being worked on.", code="idempotency-in-flight"
            )
        if bytes(row["request_hash"]) != request_hash:
            raise Invalid("This Idempotency-Key was used for another request.", code="idempotency-key-reused")
        return Answer(row["status"], row["etag"], bytes(row["body"]))

    async def keep_answer(self, key: str, answer: Answer) -> None:
        """Store the answer with the write itself."""
        await self._db.execute(
            "UPDATE idempotency SET status = $3, etag = $4, body = $5 WHERE owner_id = $1 AND key = $2",
            self._owner, key, answer.status, answer.etag, answer.body,
        )  # fmt: skip

    # --- portfolios ----------------------------------------------------------------------------------------------

    async def portfolios(self, *, after: int = 0, limit: int = 200) -> list[Portfolio]:
        """Oldest first."""
        found = await self._db.fetch(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3",  # noqa: S608 - fixed columns
            self._owner, after, limit,
        )  # fmt: skip
        return [rows.portfolio_of(row) for row in found]

    async def portfolio(self, portfolio_id: int) -> Portfolio:
        """By id."""
        row = await self._db.fetchrow(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND id = $2",  # noqa: S608 - fixed columns
            self._owner, portfolio_id,
        )  # fmt: skip
        if row is None:
            raise _missing_portfolio()
        return rows.portfolio_of(row)

    async def default_portfolio(self) -> Portfolio | None:
        """The one that the short forms use."""
        row = await self._db.fetchrow(
            f"SELECT {rows.PORTFOLIO} FROM portfolio WHERE owner_id = $1 AND is_default",  # noqa: S608 - fixed columns
            self._owner,
        )  # fmt: skip
        return None if row is None else rows.portfolio_of(row)

    async def create(self, new: NewPortfolio) -> Portfolio:
        """Bounded per owner."""
        count = await self._db.fetchval("SELECT count(*) FROM portfolio WHERE owner_id = $1", self._owner)
        if count >= MAX_PORTFOLIOS:
            raise Conflict(f"An account has at most {MAX_PORTFOLIOS} portfolios.", code="too-many-portfolios")
        row = await self._db.fetchrow(
            "INSERT INTO portfolio (owner_id, name, base_currency, method, cash_mode, lot_scope, fees_in_cost_basis, "  # noqa: S608 - fixed columns
            "holding_period_days, is_default) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
            f"ON CONFLICT (owner_id) WHERE is_default DO NOTHING RETURNING {rows.PORTFOLIO}",
            self._owner, new.name, new.base_currency, new.method, new.cash_mode, new.lot_scope,
            new.fees_in_cost_basis, new.holding_period_days, new.is_default,
        )  # fmt: skip
        if row is not None:
            return rows.portfolio_of(row)
        found = await self.default_portfolio()
        assert found is not None
        return found

    async def change(self, portfolio_id: int, changes: Mapping[str, object]) -> Portfolio:
        """Set some of the changeable columns."""
        names = [name for name in changes if name in _CHANGEABLE]
        sets = "".join(f", {name} = ${number}" for number, name in enumerate(names, start=3))
        row = await self._db.fetchrow(
            f"UPDATE portfolio SET updated_at = now(){sets} WHERE owner_id = $1 AND id = $2 RETURNING {rows.PORTFOLIO}",  # noqa: S608 - names from a fixed set
            self._owner, portfolio_id, *(changes[name] for name in names),
        )  # fmt: skip
        if row is None:
            raise _missing_portfolio()
        return rows.portfolio_of(row)

    async def delete(self, portfolio_id: int) -> None:
        """With everything in it."""
        gone = await self._db.fetchval(
            "DELETE FROM portfolio WHERE owner_id = $1 AND id = $2 RETURNING id", self._owner, portfolio_id
        )
        if gone is None:
            raise _missing_portfolio()

    async def next_version(self, portfolio_id: int, expected: int | None) -> Portfolio:
        """The row lock serialises writers per portfolio."""
        row = await self._db.fetchrow(
            "UPDATE portfolio SET version = version + 1, updated_at = now() "  # noqa: S608 - fixed columns
            f"WHERE owner_id = $1 AND id = $2 AND ($3::bigint IS NULL OR version = $3) RETURNING {rows.PORTFOLIO}",
            self._owner, portfolio_id, expected,
        )  # fmt: skip
        if row is not None:
            return rows.portfolio_of(row)
        now = await self.portfolio(portfolio_id)
        raise PreconditionFailed(f"The portfolio is at version {now.version} by now: read it again.")

    # --- the ledger ----------------------------------------------------------------------------------------------

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
                await self._add_one(portfolio, ids[0], 1, items[0][0], now_us)
            else:
                await self._add_many(portfolio, items, ids, now_us)
        except asyncpg.UniqueViolationError as error:
            raise Conflict(
                "A transaction with this external_id or the same content from a file is recorded already.",
                code="duplicate-transaction",
            ) from error
        await self._add_legs(portfolio, [posting for _, postings in items for posting in postings])
        await self._count(portfolio.id, len(items))

    async def _add_one(
        self, portfolio: Portfolio, transaction_id: int, revision: int, transaction: Transaction, now_us: int,
        *, voided: bool = False,
    ) -> None:  # fmt: skip
        values = (
            portfolio.id, transaction_id, revision, self._owner, voided, now_us, *rows.transaction_row(transaction),
        )  # fmt: skip
        marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        await self._db.execute(
            f"INSERT INTO transaction_revision ({', '.join(rows.REVISION_COLUMNS)}) VALUES ({marks})",  # noqa: S608 - fixed columns
            *values,
        )
        if voided:
            return
        await self._db.execute(
            "INSERT INTO transaction_current (portfolio_id, id, revision, owner_id, at_us, asset, kind, account, "
            "external_id, fingerprint) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
            "ON CONFLICT (portfolio_id, id) DO UPDATE SET revision = excluded.revision, at_us = excluded.at_us, "
            "asset = excluded.asset, kind = excluded.kind, account = excluded.account, "
            "external_id = excluded.external_id, fingerprint = excluded.fingerprint",
            portfolio.id, transaction_id, revision, self._owner, transaction.at_us, transaction.asset,
            transaction.kind, transaction.account, transaction.external_id, transaction.fingerprint,
        )  # fmt: skip

    async def _add_many(
        self,
        portfolio: Portfolio,
        items: Sequence[tuple[Transaction, Sequence[Posting]]],
        ids: Sequence[int],
        now_us: int,
    ) -> None:
        revisions = [
            (portfolio.id, number, 1, self._owner, False, now_us, *rows.transaction_row(transaction))
            for number, (transaction, _) in zip(ids, items, strict=True)
        ]
        current = [
            (
                portfolio.id,
                number,
                1,
                self._owner,
                t.at_us,
                t.asset,
                t.kind,
                t.account,
                t.external_id,
                t.fingerprint,
            )
            for number, (t, _) in zip(ids, items, strict=True)
        ]
        await insert_rows(self._db, "transaction_revision", rows.REVISION_COLUMNS, revisions)
        await insert_rows(self._db, "transaction_current", rows.CURRENT_COLUMNS, current)

    async def _add_legs(self, portfolio: Portfolio, postings: Sequence[Posting]) -> None:
        records = [rows.leg_row(portfolio.id, self._owner, posting) for posting in postings]
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
        await self._add_one(portfolio, old.id, old.revision + 1, new, now_us)
        await self._add_legs(portfolio, postings)

    async def void(self, portfolio: Portfolio, old: Recorded, now_us: int) -> None:
        """A void is a revision; nothing counts afterwards."""
        await self._drop_legs(portfolio.id, old.id)
        await self._db.execute(
            "DELETE FROM transaction_current WHERE portfolio_id = $1 AND id = $2 AND owner_id = $3",
            portfolio.id, old.id, self._owner,
        )  # fmt: skip
        await self._add_one(portfolio, old.id, old.revision + 1, old.transaction, now_us, voided=True)
        await self._count(portfolio.id, -1)

    async def _drop_legs(self, portfolio_id: int, transaction_id: int) -> None:
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

    # --- coins ---------------------------------------------------------------------------------------------------

    async def coins(self, portfolio_id: int) -> list[Coin]:
        """Which coins the assets of a portfolio are."""
        found = await self._db.fetch(
            "SELECT asset, coin_id, coin_name, coin_symbol FROM asset WHERE portfolio_id = $1 AND owner_id = $2",
            portfolio_id, self._owner,
        )  # fmt: skip
        return [Coin(row["asset"], row["coin_id"], row["coin_name"], row["coin_symbol"]) for row in found]

    async def keep_coins(self, portfolio: Portfolio, coins: Sequence[Coin]) -> None:
        """Newer facts fill gaps; what is known stays."""
        for coin in coins:
            await self._db.execute(
                "INSERT INTO asset (portfolio_id, asset, owner_id, coin_id, coin_name, coin_symbol) "
                "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (portfolio_id, asset) DO UPDATE SET "
                "coin_id = coalesce(asset.coin_id, excluded.coin_id), "
                "coin_name = coalesce(asset.coin_name, excluded.coin_name), "
                "coin_symbol = coalesce(asset.coin_symbol, excluded.coin_symbol)",
                portfolio.id, coin.asset, self._owner, coin.coin_id, coin.name, coin.symbol,
            )  # fmt: skip

    # --- replay --------------------------------------------------------------------------------------------------

    async def renames(self, portfolio_id: int) -> list[tuple[str, str]]:
        """Edges between assets whose lots flow from one to the other."""
        found = await self._db.fetch(
            "SELECT DISTINCT asset, target FROM leg WHERE portfolio_id = $1 AND owner_id = $2 AND op = 'N'",
            portfolio_id, self._owner,
        )  # fmt: skip
        return [(row["asset"], row["target"]) for row in found]

    async def postings(
        self, portfolio_id: int, assets: Sequence[str], after: Key | None, until_us: int | None = None
    ) -> list[Posting]:
        """As arrays of columns."""
        row = await self._db.fetchrow(
            """
            SELECT array_agg(at_us) AS at_us, array_agg(rank) AS rank, array_agg(seq) AS seq, array_agg(leg) AS leg,
                   array_agg(op) AS op, array_agg(kind) AS kind, array_agg(asset) AS asset,
                   array_agg(account) AS account, string_agg(trim_scale(quantity)::text, ' ') AS quantity,
                   string_agg(trim_scale(value)::text, ' ') AS value, string_agg(trim_scale(fee)::text, ' ') AS fee,
                   string_agg(trim_scale(flow)::text, ' ') AS flow, array_agg(target) AS target,
                   array_agg(acquired_us) AS acquired_us, array_agg(uncovered_ok) AS uncovered_ok
              FROM (SELECT * FROM leg
                     WHERE portfolio_id = $1 AND owner_id = $2 AND asset = ANY ($3::text[])
                       AND (at_us, rank, seq, leg) > ($4, $5, $6, $7) AND at_us <= $8
                     ORDER BY at_us, rank, seq, leg) AS ordered
            """,
            portfolio_id, self._owner, list(assets), *(after or (-1, -1, -1, -1)), 2**62 if until_us is None else until_us,
        )  # fmt: skip
        return rows.postings_of_arrays(row)

    async def segment_before(self, portfolio_id: int, component: str, key: Key | None) -> Segment | None:
        """Only whole segments serve as a start: the last one, being short, is made again."""
        row = await self._db.fetchrow(
            "SELECT no, postings, last_at_us, last_rank, last_seq, last_leg, ''::bytea AS matches, ''::bytea AS days, state "
            "FROM segment WHERE portfolio_id = $1 AND owner_id = $2 AND component = $3 AND state IS NOT NULL AND full_length "
            "AND (last_at_us, last_rank, last_seq, last_leg) < ($4, $5, $6, $7) ORDER BY no DESC LIMIT 1",
            portfolio_id, self._owner, component, *(key or (2**62, 0, 0, 0)),
        )  # fmt: skip
        return None if row is None else rows.segment_of(row)

    async def replace_segments(
        self,
        portfolio: Portfolio,
        component: str,
        from_no: int,
        segments: Sequence[Segment],
        keep: Collection[int],
        full: int,
    ) -> None:
        """Drop what the replay made obsolete, then put the new ones."""
        where = "portfolio_id = $1 AND owner_id = $2 AND component = $3"
        await self._db.execute(
            f"DELETE FROM segment WHERE {where} AND no >= $4",  # noqa: S608 - fixed text
            portfolio.id, self._owner, component, from_no,
        )  # fmt: skip
        await self._db.execute(
            f"UPDATE segment SET state = NULL WHERE {where} AND state IS NOT NULL AND NOT no = ANY ($4::int[])",  # noqa: S608 - fixed text
            portfolio.id, self._owner, component, list(keep),
        )  # fmt: skip
        await self._db.executemany(
            "INSERT INTO segment (portfolio_id, component, no, owner_id, postings, full_length, last_at_us, last_rank, "
            "last_seq, last_leg, matches, days, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            [
                (
                    portfolio.id, component, segment.no, self._owner, segment.postings, segment.postings >= full,
                    *segment.last_key, segment.matches, segment.days, segment.state,
                )
                for segment in segments
            ],
        )  # fmt: skip

    async def drop_component(self, portfolio_id: int, component: str) -> None:
        """Its assets are grouped otherwise now, or gone."""
        for table in ("segment", "position"):
            await self._db.execute(
                f"DELETE FROM {table} WHERE portfolio_id = $1 AND owner_id = $2 AND component = $3",  # noqa: S608 - fixed names
                portfolio_id, self._owner, component,
            )  # fmt: skip

    async def segments(
        self, portfolio_id: int, components: Collection[str] | None = None
    ) -> list[tuple[str, Segment]]:
        """In the order of the books."""
        found = await self._db.fetch(
            "SELECT component, no, postings, last_at_us, last_rank, last_seq, last_leg, matches, days, "
            "CASE WHEN no = max(no) OVER (PARTITION BY component) THEN state END AS state "
            "FROM segment WHERE portfolio_id = $1 AND owner_id = $2 AND ($3::text[] IS NULL OR component = ANY ($3)) "
            "ORDER BY component, no",
            portfolio_id, self._owner, None if components is None else list(components),
        )  # fmt: skip
        return [(row["component"], rows.segment_of(row)) for row in found]

    async def positions(self, portfolio_id: int) -> list[Position]:
        """Also those that are closed: their gains count."""
        found = await self._db.fetch(
            "SELECT p.*, a.coin_id, a.coin_name, a.coin_symbol FROM position p LEFT JOIN asset a USING (portfolio_id, asset) "
            "WHERE p.portfolio_id = $1 AND p.owner_id = $2 ORDER BY p.asset",
            portfolio_id, self._owner,
        )  # fmt: skip
        return [rows.position_of(row) for row in found]

    async def missing(self, portfolio_id: int) -> list[tuple[int, str, Decimal, Decimal]]:
        """Disposals that were not covered."""
        found = await self._db.fetch(
            "SELECT asset, missing FROM position WHERE portfolio_id = $1 AND owner_id = $2 AND missing <> '[]'::jsonb",
            portfolio_id, self._owner,
        )  # fmt: skip
        return [
            (seq, row["asset"], Decimal(held), Decimal(missing))
            for row in found
            for seq, held, missing in row["missing"]
        ]

    async def components(self, portfolio_id: int) -> dict[str, str]:
        """How assets are grouped in what is stored."""
        found = await self._db.fetch(
            "SELECT asset, component FROM position WHERE portfolio_id = $1 AND owner_id = $2",
            portfolio_id,
            self._owner,
        )
        return {row["asset"]: row["component"] for row in found}

    async def replace_positions(
        self,
        portfolio: Portfolio,
        component: str,
        positions: Sequence[tuple[Position, Sequence[tuple[int, Decimal, Decimal]]]],
    ) -> None:
        """All positions of a component at once."""
        await self._db.execute(
            "DELETE FROM position WHERE portfolio_id = $1 AND owner_id = $2 AND component = $3",
            portfolio.id, self._owner, component,
        )  # fmt: skip
        await self._db.executemany(
            "INSERT INTO position (portfolio_id, asset, owner_id, component, quantity, cost, bare, realised, income, fees, "
            "fees_separate, removed, flow_in, flow_out, accounts, missing) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            [
                (
                    portfolio.id, p.asset, self._owner, component, p.quantity, p.cost, p.bare, p.realised, p.income,
                    p.fees, p.fees_separate, p.removed, p.flow_in, p.flow_out, dict(p.accounts),
                    [list(item) for item in missing],
                )
                for p, missing in positions
            ],
        )  # fmt: skip

    async def announce(self, event: PortfolioChanged) -> None:
        """In the same transaction as the change."""
        key = f"portfolio.{key_part(event.user_id)}.{event.portfolio_id}"
        await enqueue(self._db, PORTFOLIO_EVENTS, event, key, event.id)


class PostgresWatchedBooks:
    """Positions for the live loop, through the one function that may look over the fence."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, portfolio_ids: Sequence[int]) -> list[Watched]:
        """Those of the ids that exist."""
        async with self._database.connection() as connection:
            found = await connection.fetch(
                "SELECT * FROM watched_positions($1::bigint[])", list(portfolio_ids)
            )
        return [
            Watched(
                row["portfolio_id"],
                row["owner_id"],
                row["version"],
                row["base_currency"],
                tuple(_watched_position(cast("Mapping[str, Any]", item)) for item in row["positions"]),
            )
            for row in found
        ]


def _watched_position(item: Mapping[str, Any]) -> Position:
    return Position(
        asset=item["asset"],
        coin_id=item["coin_id"],
        quantity=Decimal(item["quantity"]),
        cost=Decimal(item["cost"]),
        bare=Decimal(item["bare"]),
        realised=Decimal(item["realised"]),
        income=Decimal(item["income"]),
        fees=Decimal(item["fees"]),
        fees_separate=Decimal(item["fees_separate"]),
        removed=Decimal(item["removed"]),
        flow_in=Decimal(item["flow_in"]),
        flow_out=Decimal(item["flow_out"]),
    )
