"""Statements on what replay needs and leaves: coins, legs, segments, positions, and the outbox."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Final

from cryptopulse.common.contracts.portfolio import PortfolioChanged
from cryptopulse.common.contracts.topics import PORTFOLIO_EVENTS, key_part
from cryptopulse.common.database.outbox import enqueue
from cryptopulse.portfolio.adapters import rows
from cryptopulse.portfolio.adapters.statements import Statements
from cryptopulse.portfolio.application.ports import Coin, Portfolio, Segment
from cryptopulse.portfolio.domain.postings import Key, Posting, key_of
from cryptopulse.portfolio.domain.valuation import Position

SEGMENTS_AT_ONCE: Final = 50
"""Some megabytes."""
_REPLACE_SEGMENTS: Final = """
    WITH mine AS (SELECT $1::bigint AS portfolio_id, $2::text AS owner_id, $3::text AS component),
    gone AS (
        DELETE FROM segment USING mine
         WHERE segment.portfolio_id = mine.portfolio_id AND segment.owner_id = mine.owner_id
           AND segment.component = mine.component AND no >= $5::int
    ), aged AS (
        UPDATE segment SET state = NULL, sums = NULL FROM mine
         WHERE segment.portfolio_id = mine.portfolio_id AND segment.owner_id = mine.owner_id
           AND segment.component = mine.component AND no < $4::int AND state IS NOT NULL AND NOT no = ANY ($6::int[])
    )
    INSERT INTO segment (portfolio_id, owner_id, component, no, postings, full_length, last_at_us, last_rank, last_seq,
                         last_leg, matches, days, state, sums)
    SELECT mine.*, new.*
      FROM mine, unnest($7::int[], $8::int[], $9::boolean[], $10::bigint[], $11::smallint[], $12::bigint[],
                        $13::smallint[], $14::bytea[], $15::bytea[], $16::bytea[], $17::bytea[]) AS new
        ON CONFLICT (portfolio_id, component, no) DO UPDATE
       SET postings = excluded.postings, full_length = excluded.full_length, last_at_us = excluded.last_at_us,
           last_rank = excluded.last_rank, last_seq = excluded.last_seq, last_leg = excluded.last_leg,
           matches = excluded.matches, days = excluded.days, state = excluded.state, sums = excluded.sums
"""
"""The three parts touch different rows: from `$5` on, before `$4`, and between."""
_REPLACE_POSITION: Final = """
    WITH gone AS (
        DELETE FROM position
         WHERE portfolio_id = $1 AND owner_id = $3 AND component = $4 AND NOT asset = ANY ($17::text[])
    )
    INSERT INTO position (portfolio_id, asset, owner_id, component, quantity, cost, bare, realised, income, fees,
                          fees_separate, removed, flow_in, flow_out, accounts, missing)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        ON CONFLICT (portfolio_id, asset) DO UPDATE
       SET component = excluded.component, quantity = excluded.quantity, cost = excluded.cost, bare = excluded.bare,
           realised = excluded.realised, income = excluded.income, fees = excluded.fees,
           fees_separate = excluded.fees_separate, removed = excluded.removed, flow_in = excluded.flow_in,
           flow_out = excluded.flow_out, accounts = excluded.accounts, missing = excluded.missing
"""


class BookStatements(Statements):
    """Derived figures; everything here can be made again from the ledger."""

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

    async def grouping(self, portfolio_id: int) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """How assets are grouped in what is stored, and the edges between those whose lots flow into each other."""
        found = await self._db.fetch(
            "SELECT asset, component AS other, false AS renamed FROM position WHERE portfolio_id = $1 AND owner_id = $2 "
            "UNION ALL SELECT DISTINCT asset, target, true FROM leg WHERE portfolio_id = $1 AND owner_id = $2 AND op = 'N'",
            portfolio_id, self._owner,
        )  # fmt: skip
        components = {row["asset"]: row["other"] for row in found if not row["renamed"]}
        return components, [(row["asset"], row["other"]) for row in found if row["renamed"]]

    async def postings(
        self, portfolio_id: int, assets: Sequence[str], after: Key | None, until_us: int | None = None
    ) -> list[Posting]:
        """From memory when this unit holds the portfolio's lock and the last version's legs are kept there."""
        changes = self.changes
        if changes is None or changes.portfolio_id != portfolio_id or until_us is not None:
            return await self._read_postings(portfolio_id, assets, after, until_us)
        group = tuple(assets)
        legs = changes.read.get(group)
        if legs is None:
            before = self._legs.before(changes, group)
            if before is None and after is not None:
                return await self._read_postings(portfolio_id, assets, after, None)
            if before is None:
                legs = await self._read_postings(portfolio_id, assets, None, None)
            else:
                legs = changes.applied(group, before)
            changes.read[group] = legs
        return legs if after is None else legs[bisect_right(legs, after, key=key_of) :]

    async def _read_postings(
        self, portfolio_id: int, assets: Sequence[str], after: Key | None, until_us: int | None
    ) -> list[Posting]:
        """As arrays of columns; one that is the same in all legs as an array of one."""
        row = await self._db.fetchrow(
            """
            SELECT array_agg(at_us) AS at_us, array_agg(rank) AS rank, array_agg(seq) AS seq, array_agg(leg) AS leg,
                   array_agg(op) AS op, array_agg(kind) AS kind,
                   CASE WHEN min(asset) = max(asset) THEN array[min(asset)] ELSE array_agg(asset) END AS asset,
                   CASE WHEN min(account) = max(account) THEN array[min(account)] ELSE array_agg(account) END AS account,
                   string_agg(trim_scale(quantity)::text, ' ') AS quantity,
                   string_agg(trim_scale(value)::text, ' ') AS value, string_agg(trim_scale(fee)::text, ' ') AS fee,
                   string_agg(trim_scale(flow)::text, ' ') AS flow,
                   CASE WHEN count(target) = 0 THEN array[NULL] ELSE array_agg(target) END AS target,
                   CASE WHEN count(acquired_us) = 0 THEN array[NULL]::bigint[] ELSE array_agg(acquired_us) END AS acquired_us,
                   CASE WHEN bool_or(uncovered_ok) THEN array_agg(uncovered_ok) ELSE array[false] END AS uncovered_ok
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
            "SELECT no, postings, last_at_us, last_rank, last_seq, last_leg, ''::bytea AS matches, ''::bytea AS days, state, sums "
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
        """One statement: what the replay made obsolete goes, older checkpoints that are not kept as well."""
        for first in range(0, max(1, len(segments)), SEGMENTS_AT_ONCE):
            part = segments[first : first + SEGMENTS_AT_ONCE]
            keys = zip(*(segment.last_key for segment in part), strict=True) if part else ([], [], [], [])
            await self._db.execute(
                _REPLACE_SEGMENTS,
                portfolio.id, self._owner, component, from_no, from_no + len(segments), list(keep),
                [segment.no for segment in part], [segment.postings for segment in part],
                [segment.postings >= full for segment in part], *map(list, keys),
                [segment.matches for segment in part], [segment.days for segment in part],
                [segment.state for segment in part], [segment.sums for segment in part],
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
            "CASE WHEN no = max(no) OVER (PARTITION BY component) THEN state END AS state, NULL::bytea AS sums "
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
        names = [position.asset for position, _ in positions]
        await self._db.executemany(
            _REPLACE_POSITION,
            [
                (
                    portfolio.id, p.asset, self._owner, component, p.quantity, p.cost, p.bare, p.realised, p.income,
                    p.fees, p.fees_separate, p.removed, p.flow_in, p.flow_out, dict(p.accounts),
                    [list(item) for item in missing], names,
                )
                for p, missing in positions
            ],
        )  # fmt: skip

    async def announce(self, event: PortfolioChanged) -> None:
        """In the same transaction as the change."""
        key = f"portfolio.{key_part(event.user_id)}.{event.portfolio_id}"
        await enqueue(self._db, PORTFOLIO_EVENTS, event, key, event.id)
