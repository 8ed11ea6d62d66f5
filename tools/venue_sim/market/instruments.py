"""What each venue trades, in which steps, and how much of the whole market's activity falls on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tools.venue_sim.market.assets import COINS, MAJORS, Asset, asset_of, extra_asset

BINANCE: Final = "binance"
COINBASE: Final = "coinbase"
KRAKEN: Final = "kraken"
TRADING_VENUES: Final = (BINANCE, COINBASE, KRAKEN)

_VENUE_SHARE: Final = {BINANCE: 1.0, COINBASE: 0.45, KRAKEN: 0.12}
_QUOTE_SHARE: Final = {"USDT": 1.0, "USD": 1.0, "USDC": 0.18, "EUR": 0.10}
_QUOTES: Final = {
    BINANCE: ("USDT", "USDC", "EUR"),
    COINBASE: ("USD", "EUR", "USDT"),
    KRAKEN: ("USD", "EUR", "USDT"),
}
_NAMED_PAIRS: Final = {
    BINANCE: ("USDC-USDT", "EUR-USDT"),
    COINBASE: ("USDT-USD", "USDC-USD", "EUR-USD", "USDT-USDC"),
    KRAKEN: ("USDT-USD", "USDC-USD", "EUR-USD"),
}
_KRAKEN_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One traded pair of one venue. Prices and sizes are integers of 10^-decimals everywhere inside the simulator.

    `trades_per_minute` is the average of the deterministic history; `weight` the share of the live trades.
    """

    venue: str
    base: str
    quote: str
    native: str
    price_decimals: int
    size_decimals: int
    weight: float
    daily_volume_usd: float
    trades_per_minute: int
    half_spread_bp: float

    @property
    def symbol(self) -> str:
        """The canonical name, BASE-QUOTE."""
        return f"{self.base}-{self.quote}"


def native_name(venue: str, base: str, quote: str) -> str:
    """How the venue writes the pair: BTCUSDT, BTC-USD, XBT/USD."""
    if venue == BINANCE:
        return base + quote
    if venue == COINBASE:
        return f"{base}-{quote}"
    return f"{_KRAKEN_NAMES.get(base, base)}/{_KRAKEN_NAMES.get(quote, quote)}"


def price_decimals(price: float) -> int:
    """Decimals of a price so that it has about five figures, as the venues do; 2 to 8."""
    return min(8, max(2, 4 - math.floor(math.log10(price))))


def size_decimals(venue: str, price: float) -> int:
    """Decimals of a size: Binance's steps are worth some cents, Coinbase and Kraken go down to 1e-8."""
    whole = math.floor(math.log10(price))
    return max(0, min(8, whole + (1 if venue == BINANCE else 6)))


def make_instrument(venue: str, base: Asset, quote: Asset) -> Instrument:
    """The instrument of a pair, with steps and activity derived from its assets."""
    price = base.price / quote.price
    share = _VENUE_SHARE[venue] * _QUOTE_SHARE.get(quote.symbol, 0.05)
    volume = max(base.volume_usd * share, 1_000.0)
    major = base.symbol in MAJORS
    return Instrument(
        venue=venue,
        base=base.symbol,
        quote=quote.symbol,
        native=native_name(venue, base.symbol, quote.symbol),
        price_decimals=4 if base.daily_volatility < 0.006 else price_decimals(price),
        size_decimals=size_decimals(venue, price),
        weight=math.sqrt(volume),
        daily_volume_usd=volume,
        trades_per_minute=4 if major else (3 if volume > 2e6 else 1),
        half_spread_bp=0.2 if major else (2.0 if volume > 2e6 else 5.0),
    )


def _pairs(venue: str, coins: int) -> Iterable[tuple[Asset, Asset]]:
    for base in COINS[: coins or None]:
        if venue[0] not in base.venues or base.daily_volatility < 0.006:
            continue
        for quote in _QUOTES[venue]:
            if base.symbol in MAJORS or quote == _QUOTES[venue][0]:
                yield base, asset_of(quote)
    for pair in _NAMED_PAIRS[venue]:
        base_name, quote_name = pair.split("-")
        yield asset_of(base_name), asset_of(quote_name)


def default_instruments(venue: str, extra: int = 0, coins: int = 0) -> list[Instrument]:
    """Everything a venue lists: the majors in all its quotes, the other coins in its main one, and `extra` small ones.

    `coins` keeps only that many of the named coins, the largest first; 0 keeps all.
    """
    found = [make_instrument(venue, base, quote) for base, quote in _pairs(venue, coins)]
    main = asset_of(_QUOTES[venue][0])
    found += [make_instrument(venue, extra_asset(number), main) for number in range(1, extra + 1)]
    return found
