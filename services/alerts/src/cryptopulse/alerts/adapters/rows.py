"""Rows of the schema as values of the application, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cryptopulse.alerts.application.ports import EventRow, RuleRow
from cryptopulse.alerts.domain.cooldown import Runtime
from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.market import Hole, Position
from cryptopulse.alerts.domain.rules import Rule

RULE_COLUMNS = (
    "id, user_id, version, state, home, definition, runtime, webhook_ids, snoozed_until, expires_at,"
    " created_price, armed_at, created_at, updated_at"
)
EVENT_COLUMNS = (
    "id, user_id, rule_id, type, dedupe_key, at, symbol, source, condition, message, price, threshold, late,"
    " simulated, data, created_at, acked_at"
)


def rule_row(row: Mapping[str, Any]) -> RuleRow:
    """A row of `rules`."""
    return RuleRow(
        id=row["id"],
        user_id=row["user_id"],
        version=row["version"],
        state=row["state"],
        definition=RuleDefinition.model_validate(row["definition"]),
        runtime=row["runtime"],
        webhook_ids=list(row["webhook_ids"]),
        snoozed_until=row["snoozed_until"],
        expires_at=row["expires_at"],
        created_price=row["created_price"],
        armed_at=row["armed_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def engine_rule(row: Mapping[str, Any]) -> Rule:
    """A row of `rules` as the engine takes it."""
    return Rule(
        id=row["id"],
        user_id=row["user_id"],
        version=row["version"],
        definition=RuleDefinition.model_validate(row["definition"]),
        state=row["state"],
        runtime=Runtime.from_json(row["runtime"]),
        snoozed_until_ms=_ms(row["snoozed_until"]),
        expires_ms=_ms(row["expires_at"]),
        created_price=row["created_price"],
        armed_ms=_ms(row["armed_at"]) or 0,
    )


def event_row(row: Mapping[str, Any]) -> EventRow:
    """A row of `events`."""
    return EventRow(**{name: row[name] for name in EVENT_COLUMNS.replace(",", " ").split()})


def position(row: Mapping[str, Any]) -> Position:
    """A row of `positions`."""
    symbol, source = row["symbol"], row["source"]
    holes = tuple(
        Hole(symbol, source, int(start), int(end), Decimal(before), Decimal(after))
        for start, end, before, after in row["holes"]
    )
    return Position(
        symbol=symbol,
        source=source,
        price=row["price"],
        at_us=row["at_us"],
        received_us=row["received_us"],
        sequence=row["sequence"],
        epoch=row["epoch"],
        holes=holes,
    )


def holes_json(found: Position) -> list[list[Any]]:
    """The open holes of a position as jsonb."""
    return [[hole.from_us, hole.to_us, str(hole.before), str(hole.after)] for hole in found.holes]


def at(milliseconds: int) -> datetime:
    """Milliseconds as an aware time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _ms(value: datetime | None) -> int | None:
    return None if value is None else round(value.timestamp() * 1000)
