"""Every setting of the simulator as one value; the command line and the tests both make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tools.venue_sim.venues.binance.site import BinanceOptions
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions
from tools.venue_sim.venues.coingecko.site import CoinGeckoOptions
from tools.venue_sim.venues.kraken.site import KrakenOptions


@dataclass(frozen=True, slots=True)
class Options:
    """Ports are 0 for a free one and None for a venue that is not served."""

    host: str = "127.0.0.1"
    binance_port: int | None = 0
    coinbase_port: int | None = 0
    coingecko_port: int | None = 0
    kraken_port: int | None = 0
    control_port: int | None = 0
    seed: int = 7
    rate: float = 50.0
    quote_ratio: float = 3.0
    symbols_extra: int = 0
    coins: int = 0
    symbols: tuple[str, ...] = ()
    history_days: int = 730
    keep_trades: int = 5_000_000
    step_ms: float = 10.0
    max_client_buffer_bytes: int = 64 << 20
    report_seconds: float = 0.0
    play: tuple[Path, ...] = ()
    speed: float = 1.0
    play_wait_seconds: float = 2.0
    binance: BinanceOptions = field(default_factory=BinanceOptions)
    coinbase: CoinbaseOptions = field(default_factory=CoinbaseOptions)
    coingecko: CoinGeckoOptions = field(default_factory=CoinGeckoOptions)
    kraken: KrakenOptions = field(default_factory=KrakenOptions)
