"""The ingestor's knobs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from cryptopulse.common.config import CommaList, ServiceSettings
from cryptopulse.ingestor.domain.symbols import Part

ADVANCED = ("https://api.coinbase.com/api/v3/brokerage", "wss://advanced-trade-ws.coinbase.com")
EXCHANGE = ("https://api.exchange.coinbase.com", "wss://ws-feed.exchange.coinbase.com")


class Settings(ServiceSettings):
    """What the ingestor is told."""

    service: ClassVar[str] = "ingestor"

    venues: CommaList = ("binance", "coinbase", "coingecko")
    """The venues of this container, a comma list."""
    part: str = "1/1"
    """The part of the symbols that this container serves, e.g. `2/4`; two containers of one part take turns."""
    binance_api_url: str = "https://api.binance.com/api/v3"
    """Binance's REST; `https://data-api.binance.vision/api/v3` serves market data where the first is closed."""
    binance_ws_url: str = "wss://stream.binance.com:9443"
    """Binance's streams; `wss://data-stream.binance.vision` likewise."""
    coinbase_dialect: Literal["advanced", "exchange"] = "advanced"
    """Which of Coinbase's two public feeds is spoken."""
    coinbase_api_url: str = ""
    """Coinbase's REST; empty: that of the dialect."""
    coinbase_ws_url: str = ""
    """Coinbase's socket; empty: that of the dialect."""
    venue_urls: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Addresses of further venues, JSON: venue -> [REST, socket]; what is not named uses the venue's own."""
    coingecko_api_url: str = "https://api.coingecko.com/api/v3"
    """CoinGecko's REST."""
    coingecko_api_key: SecretStr = SecretStr("")
    """CoinGecko's key, demo or paid; empty: none."""
    coingecko_proxy_prefix: str = ""
    """Put before CoinGecko's address; ends it in `=` or `?`, the address is percent-encoded."""
    coingecko_guard_seconds: float = Field(default=1.3, ge=0.05, le=600.0)
    """At most one call in this time, over all replicas."""
    coingecko_per_minute: int = Field(default=30, ge=1, le=1_000)
    """Calls per minute of the plan."""
    coingecko_per_month: int = Field(default=10_000, ge=1, le=10_000_000)
    """Calls per calendar month of the plan; prices are polled no faster than this lasts."""
    coingecko_poll_seconds: float = Field(default=60.0, ge=0.1, le=3_600.0)
    """Pause between two polls of prices, where the month's budget allows it."""
    coingecko_pages: int = Field(default=4, ge=1, le=40)
    """Pages of 250 coins, by market cap, that the catalogue knows."""
    tick_topics: str = "all"
    """For which symbols per-symbol keys are sent with the batches: all, none, or a comma list of symbols."""
    buffer_trades: int = Field(default=20_000, ge=512, le=1_000_000)
    """Trades per venue and shard that wait for the bus before they are conflated."""
    flush_ms: float = Field(default=0.0, ge=0.0, le=1_000.0)
    """The longest a tick waits for its batch; 0: 5 to 25 ms by the number of buffers."""
    history_minutes_days: int = Field(default=3, ge=0, le=3_650)
    """Days of 1m candles fetched when a market is first seen."""
    history_hours_days: int = Field(default=60, ge=0, le=3_650)
    """Days of 1h candles fetched when a market is first seen."""
    history_days_days: int = Field(default=1_000, ge=0, le=10_000)
    """Days of 1d candles fetched when a market is first seen."""
    check_seconds: int = Field(default=300, ge=0, le=86_400)
    """How often the venues are asked for the minutes closed meanwhile, to check those built from trades; 0 never."""
    budget_address: str = "default"
    """Names the outgoing address whose budgets are shared: containers behind one address use one name."""
    rotate_seconds: float = Field(default=0.0, ge=0.0, le=90_000.0)
    """Replaces a venue's own rule for the life of a socket; 0: the rule."""

    @field_validator("part")
    @classmethod
    def _part(cls, part: str) -> str:
        return str(Part.parse(part))

    @model_validator(mode="before")
    @classmethod
    def _coinbase_urls(cls, values: dict[str, object]) -> dict[str, object]:
        api, ws = EXCHANGE if values.get("coinbase_dialect") == "exchange" else ADVANCED
        return values | {
            "coinbase_api_url": values.get("coinbase_api_url") or api,
            "coinbase_ws_url": values.get("coinbase_ws_url") or ws,
        }
