"""Portfolio changes (durable, from the outbox) and live values (for those someone watches)."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from cryptopulse.common.contracts.base import Message


class PortfolioChanged(Message):
    """A portfolio's books changed to `version`: transactions recorded, edited or voided."""

    id: str
    user_id: str
    portfolio_id: int
    version: int
    at_ms: int
    kind: str
    assets: list[str] = []


VALUE_PARTS: Final = 4
"""Live values go out in this many parts; a portfolio is always in part `portfolio_id % VALUE_PARTS`."""


class PortfolioValued(Message):
    """The value of a watched portfolio at one price snapshot, in its base currency. None where it cannot be known."""

    user_id: str
    portfolio_id: int
    version: int
    snapshot_id: str
    at_ms: int
    base_currency: str
    value: Decimal | None
    cost: Decimal
    unrealised_pnl: Decimal | None
    unrealised_pnl_pct: Decimal | None
    complete: bool
    allocation_pct: dict[str, Decimal] = {}
    change_24h: Decimal | None = None
    epoch: int = 0
    seq: int = 0
    holdings: list[dict[str, str | None]] = []


class PortfolioValueBatch(Message):
    """Live values of some watched portfolios of one part: a message on the bus costs the same however many are in it."""

    part: int
    sent_us: int
    values: list[PortfolioValued] = []
