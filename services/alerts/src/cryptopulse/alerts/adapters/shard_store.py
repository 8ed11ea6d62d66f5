"""What the owner of a shard loads and saves: active rules, positions of markets, the memory of rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from cryptopulse.alerts.adapters import rows
from cryptopulse.alerts.adapters.session import engine
from cryptopulse.alerts.domain.definition import ACTIVE_STATES
from cryptopulse.alerts.domain.market import Position
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.common.database.pool import Database
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
PAGE: Final = 5_000

_SAVE_POSITIONS = """
INSERT INTO positions AS p (symbol, source, price, at_us, received_us, sequence, epoch, holes, owner_epoch)
SELECT symbol, source, price, at_us, received_us, sequence, epoch, holes::jsonb, $9
FROM unnest($1::text[], $2::text[], $3::numeric[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[])
     AS f(symbol, source, price, at_us, received_us, sequence, epoch, holes)
ORDER BY symbol, source
ON CONFLICT (symbol, source) DO UPDATE
SET price = excluded.price, at_us = excluded.at_us, received_us = excluded.received_us, sequence = excluded.sequence,
    epoch = excluded.epoch, holes = excluded.holes, owner_epoch = excluded.owner_epoch, updated_at = now()
WHERE p.owner_epoch <= excluded.owner_epoch
"""
_SAVE_RULES = """
UPDATE rules r SET runtime = f.runtime::jsonb, state = f.state
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[]) AS f(id, version, runtime, state)
WHERE r.id = f.id AND r.version = f.version
"""


class PostgresShardStore:
    """`ShardStore` on Postgres."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def homes(self) -> list[str]:
        """The homes of all active rules."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                "SELECT DISTINCT home FROM rules WHERE state NOT IN ('paused', 'expired', 'completed', 'error')"
            )
        return [row["home"] for row in found]

    async def rules(self, homes: Sequence[str]) -> list[Rule]:
        """The active rules of these homes, read by the page."""
        loaded: list[Rule] = []
        after = ""
        while True:
            async with engine(self._db) as conn:
                found = await conn.fetch(
                    f"SELECT {rows.RULE_COLUMNS} FROM rules WHERE home = ANY ($1::text[]) AND id > $2"  # noqa: S608 - fixed columns
                    " AND state NOT IN ('paused', 'expired', 'completed', 'error') ORDER BY id LIMIT $3",
                    list(homes),
                    after,
                    PAGE,
                )
            loaded += [rule for _, rule in _readable(found)]
            if len(found) < PAGE:
                return loaded
            after = found[-1]["id"]

    async def rule(self, rule_id: str) -> tuple[str, Rule] | None:
        """One rule and its home, while it is active."""
        return (await self.rules_by_id([rule_id])).get(rule_id)

    async def rules_by_id(self, rule_ids: Sequence[str]) -> dict[str, tuple[str, Rule]]:
        """Id -> (home, rule) of those that are active."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                f"SELECT {rows.RULE_COLUMNS} FROM rules WHERE id = ANY ($1::text[])",  # noqa: S608 - fixed columns
                list(rule_ids),
            )
        active = [row for row in found if row["state"] in ACTIVE_STATES]
        return {rule.id: (home, rule) for home, rule in _readable(active)}

    async def changed_since(self, since: datetime) -> list[str]:
        """Ids of rules that changed after `since`, at most so many that a resync stays bounded."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                "SELECT id FROM rules WHERE updated_at > $1 ORDER BY updated_at LIMIT 100000", since
            )
        return [row["id"] for row in found]

    async def positions(self, bases: Sequence[str]) -> list[Position]:
        """Where the markets of these assets stood."""
        async with engine(self._db) as conn:
            found = await conn.fetch(
                "SELECT symbol, source, price, at_us, received_us, sequence, epoch, holes FROM positions"
                " WHERE split_part(symbol, '-', 1) = ANY ($1::text[])",
                list(bases),
            )
        return [rows.position(row) for row in found]

    async def save(self, positions: Sequence[Position], rules: Sequence[Rule], *, epoch: int) -> None:
        """Positions and memories in one transaction; a lower epoch than the stored one is refused."""
        if not positions and not rules:
            return
        async with engine(self._db) as conn:
            if positions:
                await conn.execute(
                    _SAVE_POSITIONS,
                    [found.symbol for found in positions],
                    [found.source for found in positions],
                    [found.price for found in positions],
                    [found.at_us for found in positions],
                    [found.received_us for found in positions],
                    [found.sequence for found in positions],
                    [found.epoch for found in positions],
                    [orjson.dumps(rows.holes_json(found)).decode() for found in positions],
                    epoch,
                )
            if rules:
                ordered = sorted(rules, key=lambda rule: rule.id)
                await conn.execute(
                    _SAVE_RULES,
                    [rule.id for rule in ordered],
                    [rule.version for rule in ordered],
                    [orjson.dumps(rule.runtime.as_json()).decode() for rule in ordered],
                    [rule.state for rule in ordered],
                )


def _readable(found: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Rule]]:
    """(home, rule) of each row. One that cannot be read, by a release that knows less, is told and left out alone."""
    for row in found:
        try:
            yield row["home"], rows.engine_rule(row)
        except ValueError as error:
            log.error("rule cannot be read", rule=row["id"], error=str(error))  # noqa: TRY400 - no trace is needed
