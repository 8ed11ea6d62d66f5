"""Indicators: the 18-output set on a forming bar beside TA-Lib's stream handles, talipp and `ta`; sweeps; warm start; service.

One update is what a tick costs: the whole set's values as if the forming bar closed now. Ours is `provisional` of the studies
that the service runs; TA-Lib's is `peek` of its handles; talipp replaces its newest bar; `ta` has no state and computes its
last 300 bars again (the least that agree to 1e-9). All see the same bars, and their newest values are compared before.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import pandas as pd

from cryptopulse.common.contracts.intervals import Interval, length_ms
from cryptopulse.indicators.application.update_indicators import point_of, scale_of
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.registry import BY_NAME
from cryptopulse.indicators.domain.study import Study
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved, sized

TITLE = "Indicators: an update of the 18-output set; whole-market sweeps; warm starts"
HISTORY: Final = 500
UPDATES: Final = sized(20_000, 500)
TA_UPDATES: Final = sized(30, 2)
TALIPP_UPDATES: Final = sized(1_000, 50)
TA_BARS: Final = 300
START_MS: Final = 1_704_067_200_000
CENT: Final = Decimal("0.01")

SET: Final[tuple[tuple[str, dict[str, float]], ...]] = (
    ("sma", {"period": 20}),
    ("sma", {"period": 50}),
    ("ema", {"period": 12}),
    ("ema", {"period": 26}),
    ("rsi", {"period": 14}),
    ("macd", {}),
    ("bbands", {}),
    ("atr", {"period": 14}),
    ("adx", {"period": 14}),
    ("stoch", {}),
    ("obv", {}),
    ("cci", {"period": 20}),
)
OUTPUTS: Final = (
    "sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_histogram", "bb_upper", "bb_middle",
    "bb_lower", "atr_14", "adx_14", "plus_di_14", "minus_di_14", "stoch_k_14", "stoch_d_14", "cci_20",
)  # fmt: skip
"""The 18 that all four give; ours makes some more in passing (obv, %B, width, NATR, the slow stochastic)."""

Update = Callable[[], Sequence[float | None]]


def a_market(seed: int = 3, bars: int = HISTORY + 1, interval: Interval = "1m") -> list[Bar]:
    """Bars of a random walk, the last of them forming."""
    rng, price, found = random.Random(seed), 60_000.0, []
    for number in range(bars):
        opened, price = price, price * (1 + rng.gauss(0, 1e-3))
        high = max(opened, price) * (1 + abs(rng.gauss(0, 5e-4)))
        low = min(opened, price) * (1 - abs(rng.gauss(0, 5e-4)))
        opened_at = START_MS + number * length_ms(interval)
        volume = Decimal(rng.uniform(1, 50)).quantize(Decimal("0.00001"))
        o, h, lowest, c = (Decimal(value).quantize(CENT) for value in (opened, high, low, price))
        found.append(Bar(opened_at, o, h, lowest, c, volume, volume * c, 100, volume / 2))
    return found


def studies() -> list[Study]:
    """Ours of the set."""
    return [BY_NAME[name].make("1m", given) for name, given in SET]


async def run() -> list[Row]:
    """The set beside its yardsticks, then what the service does with many series."""
    bars = a_market()
    forming = bars[-1]
    scale = scale_of(bars)
    series = IndicatorSeries(studies(), scale)
    for bar in bars[:-1]:
        series.commit(point_of(bar, "1m", scale))
    point = point_of(forming, "1m", scale)
    contenders = [Contender("CryptoPulse", _timed(lambda: series.provisional(point), UPDATES))]
    ours = dict(zip(series.names, series.provisional(point), strict=True))
    if find_spec("talib") is not None:
        peek = _talib(bars)
        _compare(ours, peek(), "talib.stream")
        contenders.append(Contender("talib.stream, peek", _timed(peek, UPDATES)))
    if find_spec("talipp") is not None:
        update = _talipp(bars)
        contenders.append(Contender("talipp, update of the newest bar", _timed(update, TALIPP_UPDATES)))
    again = _ta(bars)
    _compare(ours, again(), "ta")
    contenders.append(Contender(f"ta, {TA_BARS} bars again", _timed(again, TA_UPDATES)))
    rows = await interleaved(
        "indicators", "updates/s", contenders, hold="<= 1.2x talib.stream, >= 3,000x faster than ta"
    )
    from tools.bench.indicator_service import service_rows

    return rows + await service_rows(bars)


def _timed(update: Update, times: int) -> Callable[[], Sample]:
    def run() -> Sample:
        gc.collect()
        watch = Stopwatch()
        for _ in range(times):
            update()
        return watch.sample(times)

    return run


def _compare(ours: dict[str, float | None], theirs: Sequence[float | None], who: str) -> None:
    """Raise when a value is another one: seedings have long agreed after this much history."""
    for name, other in zip(OUTPUTS, theirs, strict=True):
        value = ours[name]
        if value is None or other is None or not math.isclose(value, other, rel_tol=1e-5, abs_tol=1e-4):
            raise RuntimeError(f"{name}: {value} of ours, {other} of {who}")


def _arrays(bars: Sequence[Bar]) -> dict[str, Any]:
    return {
        name: np.array([float(getattr(bar, name)) for bar in bars])
        for name in ("open", "high", "low", "close", "volume")
    }


def _talib(bars: list[Bar]) -> Update:
    stream = import_module("talib.stream")
    columns = _arrays(bars[:-1])
    h, lo, c = columns["high"], columns["low"], columns["close"]
    high, low, close = (float(getattr(bars[-1], name)) for name in ("high", "low", "close"))
    sma20, sma50 = stream.SMA(c, 20).peek, stream.SMA(c, 50).peek
    ema12, ema26, rsi = stream.EMA(c, 12).peek, stream.EMA(c, 26).peek, stream.RSI(c, 14).peek
    macd, bands = stream.MACD(c, 12, 26, 9).peek, stream.BBANDS(c, 20).peek
    atr, adx = stream.ATR(h, lo, c, 14).peek, stream.ADX(h, lo, c, 14).peek
    plus, minus = stream.PLUS_DI(h, lo, c, 14).peek, stream.MINUS_DI(h, lo, c, 14).peek
    stoch, cci = stream.STOCHF(h, lo, c, 14, 3).peek, stream.CCI(h, lo, c, 20).peek

    def update() -> list[float]:
        return [
            sma20(close), sma50(close), ema12(close), ema26(close), rsi(close), *macd(close), *bands(close),
            atr(high, low, close), adx(high, low, close), plus(high, low, close), minus(high, low, close),
            *stoch(high, low, close), cci(high, low, close),
        ]  # fmt: skip

    return update


def _talipp(bars: list[Bar]) -> Update:
    made, ohlcv = import_module("talipp.indicators"), import_module("talipp.ohlcv").OHLCV
    rows = [
        ohlcv(float(bar.open), float(bar.high), float(bar.low), float(bar.close), float(bar.volume))
        for bar in bars
    ]
    closes = [row.close for row in rows]
    on_close = [
        made.SMA(20, closes), made.SMA(50, closes), made.EMA(12, closes), made.EMA(26, closes), made.RSI(14, closes),
        made.MACD(12, 26, 9, closes), made.BB(20, 2, closes),
    ]  # fmt: skip
    on_bar = [made.ATR(14, rows), made.ADX(14, 14, rows), made.Stoch(14, 3, rows), made.CCI(20, rows)]
    close, row = closes[-1], rows[-1]

    def update() -> list[float | None]:
        for indicator in on_close:
            indicator.update(close)
        for indicator in on_bar:
            indicator.update(row)
        return [indicator[-1] for indicator in (*on_close, *on_bar)]

    return update


def _ta(bars: list[Bar]) -> Update:
    frame = pd.DataFrame(_arrays(bars[-TA_BARS:]))
    h, lo, c = frame["high"], frame["low"], frame["close"]
    trend, momentum, volatility = (
        import_module(f"ta.{name}") for name in ("trend", "momentum", "volatility")
    )

    def update() -> list[float]:
        macd, bands = trend.MACD(c), volatility.BollingerBands(c, 20, 2)
        adx, stoch = trend.ADXIndicator(h, lo, c, 14), momentum.StochasticOscillator(h, lo, c, 14, 3)
        found = [
            trend.SMAIndicator(c, 20).sma_indicator(), trend.SMAIndicator(c, 50).sma_indicator(),
            trend.EMAIndicator(c, 12).ema_indicator(), trend.EMAIndicator(c, 26).ema_indicator(),
            momentum.RSIIndicator(c, 14).rsi(), macd.macd(), macd.macd_signal(), macd.macd_diff(),
            bands.bollinger_hband(), bands.bollinger_mavg(), bands.bollinger_lband(),
            volatility.AverageTrueRange(h, lo, c, 14).average_true_range(), adx.adx(), adx.adx_pos(), adx.adx_neg(),
            stoch.stoch(), stoch.stoch_signal(), trend.CCIIndicator(h, lo, c, 20).cci(),
        ]  # fmt: skip
        return [float(column.iloc[-1]) for column in found]

    return update
