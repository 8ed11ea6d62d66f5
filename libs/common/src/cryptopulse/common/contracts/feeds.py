"""The state of the feeds: connections, gaps, budgets, progress of history."""

from __future__ import annotations

from typing import Literal

from cryptopulse.common.contracts.base import Message

ConnectionState = Literal["connecting", "subscribing", "live", "degraded", "draining", "backoff", "stopped"]


class ConnectionStatus(Message):
    """One connection of one venue. `symbols` are those it serves."""

    connection: str
    state: ConnectionState
    reason: str
    since_us: int
    symbols: int
    last_data_us: int | None = None
    reconnects: int = 0


class TradeGap(Message):
    """Trades `first_id..last_id` of a symbol that could not be repaired; candles between the times are incomplete."""

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int


class BudgetStatus(Message):
    """A request budget of a venue: how much is left of it until it refills."""

    name: str
    limit: int
    left: int
    resets_us: int | None = None
    blocked_until_us: int | None = None


class HistoryProgress(Message):
    """Backfill of one venue: series asked for and done, candles fetched."""

    series_total: int
    series_done: int
    candles: int


class FeedStatus(Message):
    """What the ingestor knows of one venue now; sent on change and every few seconds."""

    venue: str
    at_us: int
    part: str
    epoch: int
    active: bool
    state: ConnectionState
    connections: list[ConnectionStatus] = []
    gaps: list[TradeGap] = []
    budgets: list[BudgetStatus] = []
    history: HistoryProgress | None = None
    clock_offset_us: int = 0
    last_tick_us: int | None = None
    paused: bool = False
    simulated: bool = False
    detail: str = ""
