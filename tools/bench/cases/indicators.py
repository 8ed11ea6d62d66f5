"""The 18-output set of a forming bar, looked at on every tick: ours beside TA-Lib's streaming handles, talipp and `ta`.

Each contender holds the same 500 closed bars and is asked, tick by tick, for the values as if the forming bar closed now, and
keeps nothing of it: the look of the live service, `peek` of TA-Lib's handles, `update` of talipp's, a new computation for `ta`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cryptopulse.indicators.domain.fused import OUTPUTS
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import Point, Scale
from cryptopulse.indicators.domain.registry import live_studies
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved

TITLE = "Indicators: 18 outputs of a forming bar, updated on every tick"
SET = (
    "sma_20", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_histogram", "bb_upper", "bb_middle", "bb_lower",
    "bb_percent_b", "bb_width", "atr_14", "adx_14", "plus_di_14", "minus_di_14", "stoch_k_14", "stoch_d_14",
)  # fmt: skip
"""What is measured. Ours answers five more from the same look (deviation, NATR, the slow stochastics, OBV)."""
CLOSED, TICKS = 500, 2_000
SCALE = Scale()
CENT = SCALE.price // 100

Tick = Callable[[int], Any]


def market() -> tuple[list[Point], list[Point]]:
    """Closed bars of a walk on a grid of cents, and the states of the bar after them, tick by tick."""
    dice, price, closed = random.Random(4), 6_000_000, []
    for index in range(CLOSED):
        close = price + dice.randrange(-3_000, 3_001)
        high, low = max(price, close) + dice.randrange(900), min(price, close) - dice.randrange(900)
        closed.append(_point(index, price, high, low, close, dice.randrange(1, 10**9)))
        price = close
    forming, high, low, close, volume = [], price, price, price, 0
    for _ in range(TICKS):
        close += dice.randrange(-60, 61)
        high, low, volume = max(high, close), min(low, close), volume + dice.randrange(1, 10**7)
        forming.append(_point(CLOSED, price, high, low, close, volume))
    return closed, forming


def _point(index: int, o: int, h: int, low: int, c: int, v: int) -> Point:
    at = index * 60_000
    return Point(at, o * CENT, h * CENT, low * CENT, c * CENT, v, SCALE, as_of=at + 60_000)


def floats(bars: list[Point]) -> tuple[list[float], list[float], list[float], list[float], list[float]]:
    """Open, high, low, close, volume as libraries take them."""
    return tuple([getattr(bar, name) / unit for bar in bars] for name, unit in _COLUMNS)  # type: ignore[return-value]  # five


_COLUMNS = (
    ("o", SCALE.price),
    ("h", SCALE.price),
    ("l", SCALE.price),
    ("c", SCALE.price),
    ("v", SCALE.volume),
)


async def run() -> list[Row]:
    """All contenders, interleaved; their values are compared before anything is measured."""
    closed, forming = market()
    ours = _ours(closed, forming)
    contenders = [Contender("CryptoPulse", partial(_measured, ours, TICKS))]
    if find_spec("talib") is not None:
        talib = _talib(closed, forming)
        _agree(ours(TICKS - 1), talib(TICKS - 1))
        contenders.append(Contender("TA-Lib stream", partial(_measured, talib, TICKS)))
    if find_spec("talipp") is not None:
        contenders.append(Contender("talipp", partial(_measured, _talipp(closed, forming), 200)))
    contenders.append(Contender("ta", partial(_measured, _ta(closed, forming), 10)))
    return await interleaved(
        "indicators", "ticks/s", contenders, rounds=9, hold=">= 0.83x TA-Lib stream, >= 3,000x ta"
    )


def _measured(tick: Tick, count: int) -> Sample:
    watch = Stopwatch()
    for number in range(count):
        tick(number)
    return watch.sample(count)


def _agree(ours: Any, theirs: tuple[float, ...]) -> None:
    mine = dict(zip(OUTPUTS, ours, strict=True))
    for name, b in zip(SET, theirs, strict=True):
        a = mine[name]
        if abs(a - b) > 1e-6 * max(1.0, abs(b)):
            raise RuntimeError(f"{name}: ours {a}, TA-Lib {b}")


def _ours(closed: list[Point], forming: list[Point]) -> Tick:
    series = IndicatorSeries(live_studies("1m"), SCALE)
    for bar in closed:
        series.commit(bar)
    look = series.arm()
    if look is None:
        raise RuntimeError("the set is not warm")
    return lambda number: look(forming[number])


def _talib(closed: list[Point], forming: list[Point]) -> Tick:
    stream, array = import_module("talib.stream"), import_module("numpy").array
    _, high, low, close, _ = (array(column) for column in floats(closed))
    sma, ema12, ema26 = (
        handle.peek for handle in (stream.SMA(close, 20), stream.EMA(close, 12), stream.EMA(close, 26))
    )
    rsi, macd, bands = (
        handle.peek
        for handle in (
            stream.RSI(close, 14),
            stream.MACD(close, 12, 26, 9),
            stream.BBANDS(close, 20, 2.0, 2.0, 0),
        )
    )
    atr, adx, plus, minus, stoch = (
        handle.peek
        for handle in (
            stream.ATR(high, low, close, 14), stream.ADX(high, low, close, 14), stream.PLUS_DI(high, low, close, 14),
            stream.MINUS_DI(high, low, close, 14), stream.STOCHF(high, low, close, 14, 3, 0),
        )
    )  # fmt: skip
    _, highs, lows, closes, _ = floats(forming)

    def tick(number: int) -> tuple[float, ...]:
        h, low, c = highs[number], lows[number], closes[number]
        upper, middle, lower = bands(c)
        return (
            sma(c), ema12(c), ema26(c), rsi(c), *macd(c),
            upper, middle, lower, (c - lower) / (upper - lower), 100 * (upper - lower) / middle,
            atr(h, low, c), adx(h, low, c), plus(h, low, c), minus(h, low, c), *stoch(h, low, c),
        )  # fmt: skip

    return tick


def _talipp(closed: list[Point], forming: list[Point]) -> Tick:
    talipp, bar_of = import_module("talipp.indicators"), import_module("talipp.ohlcv").OHLCV
    bars = [bar_of(*row) for row in zip(*floats(closed), strict=True)]
    ticks = [bar_of(*row) for row in zip(*floats(forming), strict=True)]
    close = [bar.close for bar in bars]
    lines = [
        talipp.SMA(20, close), talipp.EMA(12, close), talipp.EMA(26, close), talipp.RSI(14, close),
        talipp.MACD(12, 26, 9, close), talipp.BB(20, 2, close),
    ]  # fmt: skip
    shapes = [talipp.ATR(14, bars), talipp.ADX(14, 14, bars), talipp.Stoch(14, 3, bars)]
    for line in lines:
        line.add(ticks[0].close)
    for shape in shapes:
        shape.add(ticks[0])

    def tick(number: int) -> None:
        bar = ticks[number]
        for line in lines:
            line.update(bar.close)
        for shape in shapes:
            shape.update(bar)

    return tick


def _ta(closed: list[Point], forming: list[Point]) -> Tick:
    pandas, ta = import_module("pandas"), import_module("ta")
    names = ("open", "high", "low", "close", "volume")

    def tick(number: int) -> list[float]:
        table = pandas.DataFrame(dict(zip(names, floats([*closed, forming[number]]), strict=True)))
        high, low, close = table["high"], table["low"], table["close"]
        macd, bands = ta.trend.MACD(close), ta.volatility.BollingerBands(close)
        adx, stoch = (
            ta.trend.ADXIndicator(high, low, close),
            ta.momentum.StochasticOscillator(high, low, close),
        )
        columns = (
            ta.trend.SMAIndicator(close, 20).sma_indicator(), ta.trend.EMAIndicator(close, 12).ema_indicator(),
            ta.trend.EMAIndicator(close, 26).ema_indicator(), ta.momentum.RSIIndicator(close).rsi(),
            macd.macd(), macd.macd_signal(), macd.macd_diff(), bands.bollinger_hband(), bands.bollinger_mavg(),
            bands.bollinger_lband(), bands.bollinger_pband(), bands.bollinger_wband(),
            ta.volatility.AverageTrueRange(high, low, close).average_true_range(), adx.adx(), adx.adx_pos(), adx.adx_neg(),
            stoch.stoch(), stoch.stoch_signal(),
        )  # fmt: skip
        return [float(column.iloc[-1]) for column in columns]

    return tick
