"""The knobs of the indicators service."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cryptopulse.common.config.settings import DatabaseSettings
from cryptopulse.common.config.types import HttpUrl


class Settings(DatabaseSettings):
    """What the indicators service is told."""

    service: ClassVar[str] = "indicators"

    ingestor_url: HttpUrl = "http://127.0.0.1:9101"
    """The ingestor's internal HTTP, asked for missing candles."""
    flush_ms: int = Field(default=100, ge=20, le=1_000)
    """How often changed prices are published and stored."""
    values_ms: int = Field(default=1_000, ge=200, le=60_000)
    """How often indicators of forming bars are looked at."""
    snapshot_ms: int = Field(default=1_000, ge=200, le=5_000)
    """How often a shard's state is stored; ticks are acked after it."""
    holes_seconds: int = Field(default=60, ge=5, le=3_600)
    """How often stored minutes are searched for holes."""
    prefetch: int = Field(default=1_500, ge=10, le=20_000)
    """Unacked tick batches a shard may hold: three seconds of them."""
    live_sources: Literal["consolidated", "all"] = "consolidated"
    """Sources whose indicators are live: the consolidated ones, or every venue's too. Others are computed on request."""
    retention_days: dict[str, int] = Field(
        default_factory=lambda: {"1m": 365, "5m": 1_825, "15m": 1_825, "30m": 1_825}
    )
    """Days of candles to keep per interval, counted from the newest stored bar, as JSON; longer intervals are kept for ever."""
    witness_seconds: int = Field(default=60, ge=0, le=86_400)
    """How often one live series is checked against the ta package in a worker process; 0 never."""
    worker_processes: int = Field(default=1, ge=1, le=16)
    """Processes that compute with the ta package."""
    database_connections: int = Field(default=8, ge=2, le=100)
    """Most connections to Postgres."""
