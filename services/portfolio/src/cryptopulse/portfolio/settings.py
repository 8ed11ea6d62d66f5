"""The portfolio service's settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cryptopulse.common.config.settings import DatabaseSettings
from cryptopulse.common.config.types import HttpUrl


class PortfolioSettings(DatabaseSettings):
    """What the portfolio service is told."""

    service: ClassVar[str] = "portfolio"

    indicators_url: HttpUrl = "http://127.0.0.1:9102"
    """Where closes of the past are asked for."""
    ingestor_url: HttpUrl = "http://127.0.0.1:9101"
    """Where coins are wanted that no connected venue trades."""
    database_connections: int = Field(default=10, ge=1, le=100)
    """How many database connections the service holds at most."""
    watched_limit: int = Field(default=20_000, ge=1, le=200_000)
    """How many portfolios may be watched at once in this process."""
    live_interval_seconds: float = Field(default=1.0, ge=0.25, le=60.0)
    """The shortest time between two live values of one portfolio."""
    wanted_interval_seconds: float = Field(default=60.0, ge=5.0, le=600.0)
    """How often the coins that someone holds are asked for."""
    legs_kept: int = Field(default=100_000, ge=0, le=10_000_000)
    """How many parsed legs of recently written portfolios stay in memory for the next write (100,000 take some 70 MB)."""
