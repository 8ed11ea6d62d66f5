"""What a shard's newest values say for the market's scanners: changes, volume, RSI, turnover, by quote asset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.indicators.application.build_candles import ShardMarket

Scores = dict[tuple[str, str, str], dict[str, float]]
"""Symbol -> score by (scanner, quote, window)."""
SCORES: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "1m": tuple(("change", f"change_{window}", window) for window in ("1m", "5m", "15m", "1h")),
    "5m": tuple(("change", f"change_{window}", window) for window in ("4h", "24h")),
    "1h": (
        *(("change", f"change_{window}", window) for window in ("7d", "30d")),
        ("volume_ratio", "volume_ratio_20", "1h"),
        ("volume_zscore", "volume_zscore_20", "1h"),
        ("rsi", "rsi_14", "1h"),
        ("realised_volatility", "realised_volatility_30", "1h"),
    ),
}
"""Which output of which interval feeds which scanner (name, output, window): the finest bars that reach far enough."""


def scores_of(
    market: ShardMarket, values: Sequence[IndicatorUpdate], forming: Sequence[Candle]
) -> tuple[Scores, list[str]]:
    """Scores of consolidated symbols, and the symbols that are stale and have none."""
    scores: Scores = {}
    targets = market.state.targets
    stale = [symbol for symbol, target in targets.items() if target.status == "stale"]
    for value in values:
        if value.source != CONSOLIDATED or value.symbol in stale:
            continue
        quote = value.symbol.partition("-")[2]
        for name, output, window in SCORES.get(value.interval, ()):
            score = value.values.get(output)
            if score is not None:
                scores.setdefault((name, quote, window), {})[value.symbol] = score
    for candle in forming:
        if candle.interval == "1h" and candle.source == CONSOLIDATED and candle.symbol not in stale:
            quote = candle.symbol.partition("-")[2]
            scores.setdefault(("trades", quote, "1h"), {})[candle.symbol] = float(candle.trades)
    for symbol, target in targets.items():
        if target.price is None or symbol in stale:
            continue
        _, _, _, volume = market.stats_of(symbol, CONSOLIDATED).figures(
            target.price, target.event_us // 1000, target.series.forming_bar("1m")
        )
        if volume is not None:
            place = ("quote_volume", symbol.partition("-")[2], "24h")
            scores.setdefault(place, {})[symbol] = float(volume * target.price)
    return scores, stale
