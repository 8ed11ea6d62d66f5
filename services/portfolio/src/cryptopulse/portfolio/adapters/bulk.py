"""Many rows in one statement, a column per array: COPY does not work behind row-level security."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cryptopulse.common.database.connection import Connection

ROWS_AT_ONCE: Final = 2_000
_TYPES: Final = {
    "portfolio_id": "bigint", "id": "bigint", "revision": "int", "voided": "boolean", "created_us": "bigint",
    "at_us": "bigint", "acquired_us": "bigint", "quantity": "numeric", "price": "numeric", "total": "numeric",
    "fx_rate": "numeric", "value": "numeric", "counter_quantity": "numeric", "fee": "numeric", "fee_value": "numeric",
    "cost_basis": "numeric", "flow": "numeric", "allow_uncovered": "boolean", "uncovered_ok": "boolean",
    "rank": "smallint", "seq": "bigint", "leg": "smallint",
}  # fmt: skip


def typed_arrays(columns: Sequence[str], start: int) -> str:
    """The parameters of `unnest`, from `$start` on: an array for each column."""
    return ", ".join(f"${n}::{_TYPES.get(name, 'text')}[]" for n, name in enumerate(columns, start=start))


async def insert_rows(
    connection: Connection, table: str, columns: Sequence[str], records: Sequence[Sequence[Any]]
) -> None:
    """Insert records, some thousand a statement. `table` and `columns` are fixed names of the schema."""
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({typed_arrays(columns, 1)})"  # noqa: S608 - fixed names
    for first in range(0, len(records), ROWS_AT_ONCE):
        part = records[first : first + ROWS_AT_ONCE]
        await connection.execute(statement, *(list(column) for column in zip(*part, strict=True)))
