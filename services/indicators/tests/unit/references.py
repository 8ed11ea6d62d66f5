"""Other programs' values beside ours: which column means which output, and from which bar on both agree."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import Point, Scale, digits_of
from cryptopulse.indicators.domain.registry import BY_NAME
from cryptopulse.indicators.domain.study import Study

TOLERANCE: Final = 1e-9


def study(name: str, **parameters: float) -> Study:
    return BY_NAME[name].make("1d", parameters)


@cache
def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _number(line: dict[str, str], name: str) -> Decimal:
    return Decimal((line.get(name) or "0").strip())


def points_of(lines: Sequence[dict[str, str]], bar_ms: int = 86_400_000) -> list[Point]:
    """Bars of a sheet; what it does not have (open, high, low, volume) is its close, or nothing traded."""
    table = [{name.strip().lower(): value for name, value in line.items() if name} for line in lines]
    cells = []
    for line in table:
        close = _number(line, "close")
        cells.append(
            (
                *(
                    _number(line, name) if line.get(name, "").strip() else close
                    for name in ("open", "high", "low")
                ),
                close,
                _number(line, "volume"),
            )
        )
    scale = Scale(
        max(8, *(digits_of(value) for cell in cells for value in cell[:4])),
        max(8, *(digits_of(cell[4]) for cell in cells)),
    )
    found = []
    for index, (line, (o, h, low, c, v)) in enumerate(zip(table, cells, strict=True)):
        text = line.get("open_time_utc")
        at = (
            int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
            if text
            else index * bar_ms
        )
        first, top, bottom, last = (Scale.integer(value, scale.price_factor) for value in (o, h, low, c))
        volume = Scale.integer(v, scale.volume_factor)
        found.append(Point(at, first, top, bottom, last, volume, scale, as_of=at + bar_ms))
    return found


@dataclass(frozen=True)
class Pair:
    """A column of theirs and an output of ours. `unit`: what an error is measured against; `theirs` brings a value to ours."""

    column: str
    study: Study
    output: str
    unit: str = "value"
    scale: float = 1.0
    shift: int = 0
    tolerance: float = TOLERANCE
    """What the other side's printed digits allow."""


def errors(pair: Pair, bars: Sequence[Point], expected: Sequence[str]) -> Iterator[tuple[int, float | None]]:
    """(bar, relative error) where they have a value; None where only they have one."""
    series = IndicatorSeries([pair.study], Scale())
    ours = [dict(zip(series.names, series.commit(bar), strict=True))[pair.output] for bar in bars]
    turnover = 0
    for index, bar in enumerate(bars):
        turnover += bar.v
        text = expected[index].strip() if index < len(expected) else ""
        if text in ("", "NaN", "nan"):
            continue
        mine = ours[index - pair.shift] if index >= pair.shift else None
        if mine is None:
            yield index, None
            continue
        truth = float(text) * pair.scale
        unit = {"close": abs(bar.fc), "unit": 1.0, "volume": turnover / bar.vs}.get(pair.unit, abs(truth))
        yield index, abs(mine - truth) / max(abs(truth), unit, 1e-300)


def agrees_from(found: Sequence[tuple[int, float | None]], tolerance: float = TOLERANCE) -> int | None:
    """Bars of history after which every later value agrees; 0: wherever both have one; None: not within the data."""
    last_bad = -1
    for index, error in found:
        if error is not None and error > tolerance:
            last_bad = index
    shared = [index for index, error in found if error is not None]
    if not shared or last_bad >= shared[-1]:
        return None
    return 0 if last_bad < 0 else last_bad + 2


def measure(pair: Pair, lines: Sequence[dict[str, str]], bars: Sequence[Point]) -> int | None:
    """`agrees_from` of one column; a value of theirs where we have none does not count as agreement."""
    found = list(errors(pair, bars, [line.get(pair.column) or "" for line in lines]))
    return agrees_from(found, pair.tolerance)


BASES: Final = ("btcusdt_1d", "btcusdt_1m", "spy_1d")
_rsi, _macd, _bands, _atr, _adx = study("rsi"), study("macd"), study("bbands"), study("atr"), study("adx")
_stoch, _stochrsi, _aroon, _donchian = study("stoch"), study("stochrsi"), study("aroon"), study("donchian")
_cloud, _keltner, _slow = study("ichimoku"), study("keltner"), study("stoch", period=12, smooth=3, d=5)

TALIB: Final = (
    *(Pair(f"sma_{n}", study("sma", period=n), f"sma_{n}") for n in (20, 50, 200)),
    *(Pair(f"ema_{n}", study("ema", period=n), f"ema_{n}") for n in (12, 26)),
    Pair("wma_20", study("wma"), "wma_20"),
    Pair("hma_9", study("hma"), "hma_9"),
    Pair("rma_14", study("rma"), "rma_14"),
    Pair("vwma_def", study("vwma", period=30), "vwma_30"),
    Pair("rsi_14", _rsi, "rsi_14", "unit"),
    Pair("macd", _macd, "macd", "close"),
    Pair("macd_signal", _macd, "macd_signal", "close"),
    Pair("macd_hist", _macd, "macd_histogram", "close"),
    Pair("bb_upper_20_2", _bands, "bb_upper"),
    Pair("bb_mid_20_2", _bands, "bb_middle"),
    Pair("bb_lower_20_2", _bands, "bb_lower"),
    Pair("stddev_20", _bands, "bb_deviation"),
    Pair("atr_14", _atr, "atr_14"),
    Pair("natr_14", _atr, "natr_14"),
    Pair("adx_14", _adx, "adx_14", "unit"),
    Pair("plus_di_14", _adx, "plus_di_14", "unit"),
    Pair("minus_di_14", _adx, "minus_di_14", "unit"),
    Pair("stochf_k_14", _stoch, "stoch_k_14", "unit"),
    Pair("stochf_d_14_3", _stoch, "stoch_d_14", "unit"),
    Pair("stoch_slowk_14_3", _stoch, "stoch_slow_k", "unit"),
    Pair("stoch_slowd_14_3_3", _stoch, "stoch_slow_d", "unit"),
    Pair("stochrsi_k_14_14", _stochrsi, "stochrsi_14", "unit", 0.01),
    Pair("stochrsi_d_14_14_3", _stochrsi, "stochrsi_k", "unit", 0.01),
    Pair("trix_15", study("trix"), "trix_15", "unit"),
    Pair("supertrend_def", study("supertrend"), "supertrend"),
    Pair("cci_20", study("cci"), "cci_20", "unit"),
    Pair("willr_14", study("williams_r"), "williams_r_14", "unit"),
    Pair("mfi_14", study("mfi"), "mfi_14", "unit"),
    Pair("ad", study("adl"), "adl", "volume"),
    Pair("cmf_def", study("cmf"), "cmf_20", "unit"),
    Pair("roc_12", study("roc"), "roc_12", "unit"),
    Pair("dc_a", _donchian, "donchian_upper"),
    Pair("dc_b", _donchian, "donchian_middle"),
    Pair("dc_c", _donchian, "donchian_lower"),
)
STOCK_INDICATORS: Final[dict[str, tuple[Pair, ...]]] = {
    "sma": (Pair("sma", study("sma"), "sma_20"),),
    "ema": (Pair("ema", study("ema", period=20), "ema_20"),),
    "wma": (Pair("wma", study("wma", period=14), "wma_14"),),
    "rsi": (Pair("rsi", _rsi, "rsi_14", "unit"),),
    "macd": (
        Pair("macd", _macd, "macd", "close"),
        Pair("signal", _macd, "macd_signal", "close"),
        Pair("histogram", _macd, "macd_histogram", "close"),
    ),
    "bb": (
        Pair("sma", _bands, "bb_middle"),
        Pair("upperBand", _bands, "bb_upper"),
        Pair("lowerBand", _bands, "bb_lower"),
        Pair("percentB", _bands, "bb_percent_b", "unit"),
        Pair("width", _bands, "bb_width", scale=100.0),
    ),
    "stdev": (Pair("stdDev", study("bbands", period=14), "bb_deviation_14_2"),),
    "atr": (Pair("atr", _atr, "atr_14"), Pair("atrp", _atr, "natr_14")),
    "adx": (
        Pair("pdi", _adx, "plus_di_14", "unit"),
        Pair("mdi", _adx, "minus_di_14", "unit"),
        Pair("adx", _adx, "adx_14", "unit"),
    ),
    "stoch": (
        Pair("oscillator", _stoch, "stoch_slow_k", "unit"),
        Pair("signal", _stoch, "stoch_slow_d", "unit"),
    ),
    "aroon": (
        Pair("aroonUp", _aroon, "aroon_up_25", "unit"),
        Pair("aroonDown", _aroon, "aroon_down_25", "unit"),
    ),
    "cci": (Pair("cci", study("cci"), "cci_20", "unit"),),
    "mfi": (Pair("mfi", study("mfi"), "mfi_14", "unit"),),
    "willr": (Pair("williamsR", study("williams_r"), "williams_r_14", "unit"),),
    "roc": (Pair("roc", study("roc", period=14), "roc_14", "unit"),),
    "donchian": (
        Pair("upperBand", _donchian, "donchian_upper", shift=1),
        Pair("centerline", _donchian, "donchian_middle", shift=1),
        Pair("lowerBand", _donchian, "donchian_lower", shift=1),
    ),
    "keltner": (
        Pair("upperBand", _keltner, "keltner_upper"),
        Pair("centerline", _keltner, "keltner_middle"),
        Pair("lowerBand", _keltner, "keltner_lower"),
    ),
    "supertrend": (Pair("superTrend", study("supertrend"), "supertrend"),),
    "psar": (Pair("sar", study("psar"), "psar"),),
}
LEAN: Final[dict[str, tuple[Pair, ...]]] = {
    "spy_atr_wilder.txt": (Pair("Average True Range 14", _atr, "atr_14", tolerance=1e-5),),
    "spy_bollinger_bands.txt": (
        Pair("Moving Average 20", _bands, "bb_middle"),
        Pair("Bollinger Bands® 20 2 Top", _bands, "bb_upper", tolerance=1e-6),
        Pair("Bollinger Bands® 20 2 Bottom", _bands, "bb_lower", tolerance=1e-6),
        Pair("BandWidth", _bands, "bb_width", tolerance=1e-4),
        Pair("%B", _bands, "bb_percent_b", "unit", tolerance=1e-4),
    ),
    "spy_ema.csv": (Pair("EMA14", study("ema", period=14), "ema_14"),),
    "spy_hma.txt": (Pair("HMA_16", study("hma", period=16), "hma_16"),),
    "spy_mfi.txt": (Pair("Money Flow Index 20", study("mfi", period=20), "mfi_20", "unit", tolerance=1e-6),),
    "spy_with_adx.txt": (
        Pair("+DI14", _adx, "plus_di_14", "unit", tolerance=1e-5),
        Pair("-DI14", _adx, "minus_di_14", "unit", tolerance=1e-5),
        Pair("ADX 14", _adx, "adx_14", "unit", tolerance=1e-5),
    ),
    "spy_with_cci.txt": (
        Pair("Commodity Channel Index (CCI) 14", study("cci", period=14), "cci_14", "unit", tolerance=1e-3),
    ),
    "spy_with_ichimoku.csv": (
        Pair("Tenkan", _cloud, "ichimoku_conversion"),
        Pair("Kijun", _cloud, "ichimoku_base"),
        Pair("Senkou A", _cloud, "ichimoku_cloud_a"),
        Pair("Senkou B", _cloud, "ichimoku_cloud_b"),
    ),
    "spy_with_indicators.txt": (
        Pair("SMA14", study("sma", period=14), "sma_14", tolerance=1e-6),
        Pair("EMA14", study("ema", period=14), "ema_14", tolerance=1e-6),
        Pair("MACD 12 26", _macd, "macd", "close", tolerance=1e-6),
        Pair("RSI 14 Wilder", _rsi, "rsi_14", "unit", tolerance=1e-5),
    ),
    "spy_with_macd.txt": (
        Pair("MACD", _macd, "macd", "close", tolerance=1e-6),
        Pair("Signal", _macd, "macd_signal", "close", tolerance=1e-6),
        Pair("Histogram", _macd, "macd_histogram", "close", tolerance=1e-6),
    ),
    "spy_with_stoch12k3.txt": (
        Pair("Stochastics 12 %K 3", _slow, "stoch_slow_k", "unit", tolerance=1e-4),
        Pair("%D 5", _slow, "stoch_slow_d", "unit", tolerance=1e-4),
    ),
    "spy_with_williamsR14.txt": (
        Pair("Williams %R 14", study("williams_r"), "williams_r_14", "unit", tolerance=2e-4),
    ),
}
STOCKCHARTS: Final[dict[str, tuple[Pair, ...]]] = {
    "cs-adx.csv": (
        Pair("+DI14", _adx, "plus_di_14", "unit", tolerance=1e-7),
        Pair("-DI14", _adx, "minus_di_14", "unit", tolerance=1e-7),
        Pair("ADX", _adx, "adx_14", "unit", tolerance=1e-7),
    ),
    "cs-atr.csv": (Pair("ATR", _atr, "atr_14"),),
    "cs-bbands.csv": (
        Pair("MiddleBand", _bands, "bb_middle"),
        Pair("HighBand", _bands, "bb_upper", tolerance=1e-7),
        Pair("LowBand", _bands, "bb_lower", tolerance=1e-7),
        Pair("WidthBand", _bands, "bb_width", tolerance=1e-6),
        Pair("PercentageBand", _bands, "bb_percent_b", "unit", tolerance=1e-6),
    ),
    "cs-macd.csv": (
        Pair("MACD_line", _macd, "macd", "close"),
        Pair("MACD_signal", _macd, "macd_signal", "close"),
        Pair("MACD_diff", _macd, "macd_histogram", "close"),
    ),
    "cs-mfi.csv": (Pair("MFI", study("mfi"), "mfi_14", "unit", tolerance=1e-6),),
    "cs-obv.csv": (Pair("OBV", study("obv"), "obv", "volume"),),
    "cs-psar.csv": (Pair("psar_up", study("psar"), "psar"), Pair("psar_down", study("psar"), "psar")),
    "cs-rsi.csv": (Pair("RSI", _rsi, "rsi_14", "unit", tolerance=1e-7),),
    "cs-soo.csv": (
        Pair("SO", _stoch, "stoch_k_14", "unit", tolerance=1e-7),
        Pair("SO_SIG", _stoch, "stoch_d_14", "unit", tolerance=1e-7),
    ),
    "cs-vwap.csv": (Pair("vwap", study("vwap"), "vwap_14"),),
    "cs-wma.csv": (Pair("WMA", study("wma", period=9), "wma_9", tolerance=1e-6),),
}


def agreement(folder: Path) -> list[str]:
    """The rows of the table in `docs/indicators.md`: outputs that seed differently, with the bars until they agree."""
    spy = points_of(rows(folder / "ohlcv" / "spy_1d.csv"))
    stock = {
        pair.output: measure(pair, rows(folder / "stock_indicators_spy_1d" / f"{name}.csv"), spy)
        for name, pairs in STOCK_INDICATORS.items()
        for pair in pairs
    }
    seeded: dict[str, list[str]] = {}
    for pair in TALIB:
        found = []
        for base in BASES:
            bars = points_of(rows(folder / "ohlcv" / f"{base}.csv"))
            found.append(measure(pair, rows(folder / "talib_0.8.2" / f"{base}.csv"), bars))
        if any(found) or stock.get(pair.output):
            seeded[pair.output] = [_shown(one) for one in found]
    for output, bars_needed in stock.items():
        if bars_needed and output not in seeded:
            seeded[output] = ["-", "-", "-"]
    return [
        f"| `{output}` | {' | '.join(cells)} | {_shown(stock[output]) if output in stock else '-'} |"
        for output, cells in seeded.items()
    ]


def _shown(bars: int | None) -> str:
    return "not within" if bars is None else str(bars)


if __name__ == "__main__":
    import sys

    print("\n".join(agreement(Path(sys.argv[1]))))
