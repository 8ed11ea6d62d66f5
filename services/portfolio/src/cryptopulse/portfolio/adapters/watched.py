"""Positions of watched portfolios, of whichever owner, for the live loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from cryptopulse.common.database.pool import Database
from cryptopulse.portfolio.application.ports import Watched
from cryptopulse.portfolio.domain.valuation import Position


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
