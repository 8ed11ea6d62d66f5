"""The knobs of the alerts service; each is `CRYPTOPULSE_ALERTS_<NAME>` unless it is a shared name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cryptopulse.common.config.settings import DatabaseSettings
from cryptopulse.common.config.types import HttpUrl


class AlertsSettings(DatabaseSettings):
    """What the alerts service is told."""

    service: ClassVar[str] = "alerts"

    indicators_url: HttpUrl = "http://127.0.0.1:9102"
    """The indicators service: stored candles for replays and previews."""
    portfolio_url: HttpUrl = "http://127.0.0.1:9104"
    """The portfolio service: portfolios that rules look at are watched there."""
    webhooks_allow_insecure: bool = False
    """Development only: webhooks may also use http, any port, and loopback addresses."""
    webhooks_denied_hosts: tuple[str, ...] = ()
    """Hosts (and all below them) that no webhook may name, such as our own public names; a comma list."""
    webhook_workers: int = Field(default=32, ge=1, le=500)
    """How many deliveries are attempted at a time in this replica."""
    webhook_endpoint_concurrency: int = Field(default=4, ge=1, le=32)
    """How many deliveries are attempted at a time to one endpoint, over all replicas."""
    webhook_lease_seconds: float = Field(default=60.0, ge=20.0, le=600.0)
    """After this time a delivery whose worker died is attempted again; longer than one attempt can take."""
    webhook_timeout_seconds: float = Field(default=15.0, ge=1.0, le=15.0)
    """The longest that one attempt takes, connection and answer included."""
    budget_free_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Notifications per minute of a user of the free plan; what is over is stored and told in one summary."""
    budget_pro_per_minute: int = Field(default=600, ge=1, le=100_000)
    """Notifications per minute of a user of a paid plan."""
    save_seconds: float = Field(default=1.0, ge=0.1, le=10.0)
    """How often positions and memories are stored and ticks acknowledged."""
    prefetch_messages: int = Field(default=600, ge=10, le=5_000)
    """Unacknowledged messages per shard: about three seconds of batches."""
    database_pool_max: int = Field(default=12, ge=2, le=100)
    """The most connections to Postgres."""
