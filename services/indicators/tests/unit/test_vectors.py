"""Every indicator against the reference vectors: `ta` where definitions agree, 50-digit decimals where they judge."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import Point, Scale, digits_of
from cryptopulse.indicators.domain.registry import BY_NAME
from cryptopulse.indicators.domain.study import Study

BASES = ("btcusdt_1d", "btcusdt_1m", "spy_1d")
EDGES = ("flat", "monotone_up", "micro_price", "gappy_thin")
INTERVAL = {"btcusdt_1d": "1d", "btcusdt_1m": "1m", "spy_1d": "1d"}


def study(name: str, **parameters: float) -> Study:
    return BY_NAME[name].make("1d", parameters)


@cache
def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def points(path: Path, bar_ms: int = 60_000) -> list[Point]:
    lines = rows(path)
    prices = [Decimal(line[name]) for line in lines for name in ("open", "high", "low", "close")]
    volumes = [Decimal(line["volume"]) for line in lines]
    scale = Scale(max(8, *map(digits_of, prices)), max(8, *map(digits_of, volumes)))
    found = []
    for index, line in enumerate(lines):
        text = line.get("open_time_utc")
        at = (
            int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
            if text
            else index * bar_ms
        )
        o, h, low, c = (
            Scale.integer(Decimal(line[name]), scale.price_factor)
            for name in ("open", "high", "low", "close")
        )
        v = Scale.integer(Decimal(line["volume"]), scale.volume_factor)
        found.append(Point(at, o, h, low, c, v, scale, as_of=at + bar_ms))
    return found


def fold(bars: Sequence[Point], *studies: Study) -> list[dict[str, float | None]]:
    series = IndicatorSeries(studies, Scale())
    return [dict(zip(series.names, series.commit(bar), strict=True)) for bar in bars]


class Column:
    """One column of a vector file, the output that must equal it, and the scale of the tolerance."""

    def __init__(self, column: str, made: Study, output: str, scale: str = "value") -> None:
        self.column, self.study, self.output, self.scale = column, made, output, scale


def columns_of_ta() -> list[Column]:
    found = [Column(f"sma_{n}", study("sma", period=n), f"sma_{n}") for n in (5, 10, 20, 50, 100, 200)]
    found += [Column(f"ema_{n}", study("ema", period=n), f"ema_{n}") for n in (9, 12, 21, 26, 50, 200)]
    found += [Column(f"wma_{n}", study("wma", period=n), f"wma_{n}") for n in (9, 20)]
    found += [Column(f"rsi_{n}", study("rsi", period=n), f"rsi_{n}", "unit") for n in (7, 14, 21)]
    macd, bands, keltner = study("macd"), study("bbands"), study("keltner")
    found += [
        Column("macd_12_26_9", macd, "macd", "close"),
        Column("macd_signal_12_26_9", macd, "macd_signal", "close"),
        Column("macd_hist_12_26_9", macd, "macd_histogram", "close"),
        Column("bb_mid_20_2", bands, "bb_middle"),
        Column("bb_upper_20_2", bands, "bb_upper"),
        Column("bb_lower_20_2", bands, "bb_lower"),
        Column("atr_14", study("atr"), "atr_14"),
        Column("atr_10", study("atr", period=10), "atr_10"),
        Column("kc_mid_20_10_2", keltner, "keltner_middle", "ours-later"),
        Column("kc_upper_20_10_2", keltner, "keltner_upper", "ours-later"),
        Column("kc_lower_20_10_2", keltner, "keltner_lower", "ours-later"),
        Column("dc_upper_20", study("donchian"), "donchian_upper"),
        Column("dc_lower_20", study("donchian"), "donchian_lower"),
        Column("dc_mid_20", study("donchian"), "donchian_middle"),
        Column("stoch_k_14", study("stoch"), "stoch_k_14", "unit"),
        Column("stoch_d_14_3", study("stoch"), "stoch_d_14", "unit"),
        Column("stochrsi_14", study("stochrsi"), "stochrsi_14", "unit"),
        Column("stochrsi_k_14_3", study("stochrsi"), "stochrsi_k", "unit"),
        Column("stochrsi_d_14_3_3", study("stochrsi"), "stochrsi_d", "unit"),
        Column("cci_20", study("cci"), "cci_20", "unit"),
        Column("willr_14", study("williams_r"), "williams_r_14", "unit"),
        Column("obv", study("obv"), "obv", "volume"),
        Column("adl", study("adl"), "adl", "volume"),
        Column("cmf_20", study("cmf"), "cmf_20", "unit"),
        Column("vwap_roll_14", study("vwap"), "vwap_14"),
        Column("roc_12", study("roc"), "roc_12", "unit"),
        Column("trix_15", study("trix"), "trix_15", "unit"),
        Column("aroon_up_25", study("aroon"), "aroon_up_25", "unit"),
        Column("aroon_down_25", study("aroon"), "aroon_down_25", "unit"),
        Column("ichi_tenkan_9", study("ichimoku"), "ichimoku_conversion"),
        Column("ichi_kijun_26", study("ichimoku"), "ichimoku_base"),
        Column("ichi_a_unshifted", study("ichimoku"), "ichimoku_span_a"),
        Column("ichi_b_52_unshifted", study("ichimoku"), "ichimoku_span_b", "ours-later"),
        Column("psar", study("psar"), "psar", "ours-later"),
    ]
    return found


TA = columns_of_ta()
EXACT = [
    *[Column(f"sma_{n}", study("sma", period=n), f"sma_{n}") for n in (20, 50, 200)],
    Column("ema_12_firstseed", study("ema", period=12), "ema_12"),
    Column("ema_26_firstseed", study("ema", period=26), "ema_26"),
    Column("macd_firstseed", study("macd"), "macd", "close"),
    Column("macd_signal_firstseed", study("macd"), "macd_signal", "close"),
    Column("macd_hist_firstseed", study("macd"), "macd_histogram", "close"),
    Column("rsi_14_ta", study("rsi"), "rsi_14", "unit"),
    Column("stddev_pop_20", study("bbands"), "bb_deviation"),
    Column("bb_upper_20_2", study("bbands"), "bb_upper"),
    Column("bb_lower_20_2", study("bbands"), "bb_lower"),
    Column("bb_width_pct_20_2", study("bbands"), "bb_width"),
    Column("bb_pctb_20_2", study("bbands"), "bb_percent_b"),
    Column("atr_14_ta_tv", study("atr"), "atr_14"),
    Column("stoch_k_14", study("stoch"), "stoch_k_14", "unit"),
    Column("stoch_d_14_3", study("stoch"), "stoch_d_14", "unit"),
    Column("willr_14", study("williams_r"), "williams_r_14", "unit"),
    Column("plus_di_14", study("adx"), "plus_di_14", "unit"),
    Column("minus_di_14", study("adx"), "minus_di_14", "unit"),
    Column("adx_14_wilder", study("adx"), "adx_14", "unit"),
    Column("cci_20", study("cci"), "cci_20", "unit"),
    Column("vwap_roll_14", study("vwap"), "vwap_14"),
    Column("vwap_utc_day_anchored", study("vwap_day"), "vwap_day"),
    Column("obv_ta_equal_adds", study("obv"), "obv", "volume"),
    Column("dc_upper_20", study("donchian"), "donchian_upper"),
    Column("dc_lower_20", study("donchian"), "donchian_lower"),
    Column("roc_12", study("roc"), "roc_12", "unit"),
    Column("wma_20", study("wma"), "wma_20"),
    Column("logret_stdev_sample_30", study("volatility"), "return_deviation_30"),
    Column("volume_ratio_prev20", study("volume_spike"), "volume_ratio_20", "unit"),
    Column("volume_zscore_prev20", study("volume_spike"), "volume_zscore_20", "unit"),
]


def compare(
    case: Column,
    expected: list[dict[str, str]],
    bars: list[Point],
    *,
    offset: int = 0,
    tolerance: float = 1e-9,
) -> float:
    """Assert every row; returns the largest relative error."""
    got = fold(bars, case.study)
    turnover = 0
    worst = 0.0
    compared = 0
    rows_by_bar = {int(row["bar"]): row for row in expected}
    for index, bar in enumerate(bars):
        turnover += bar.v
        row = rows_by_bar.get(index)
        if row is None:
            continue
        text, ours = row[case.column], got[index][case.output]
        if text == "" or (ours is None and case.scale == "ours-later" and index < 80):
            assert ours is None or case.scale == "later", (
                f"{case.column} bar {index}: {ours} where none is due"
            )
            continue
        truth = float(text)
        assert ours is not None, f"{case.column} bar {index}: no value, {truth} is due"
        unit = {"close": abs(bar.fc), "unit": 1.0, "volume": turnover / bar.vs}.get(case.scale, abs(truth))
        error = abs(ours - truth) / max(abs(truth), unit, 1e-300)
        worst = max(worst, error)
        assert error <= tolerance, f"{case.column} bar {index}: {ours!r} for {truth!r} ({error:.2e})"
        compared += 1
    due = sum(1 for row in expected if row[case.column] != "")
    assert compared >= min(due, 10) - (80 if case.scale == "ours-later" else 0)
    return worst


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", TA, ids=lambda case: case.column)
def test_equals_ta(shared_data: Path, base: str, case: Column) -> None:
    folder = shared_data / "indicator_vectors"
    expected = rows(folder / "ta_0.11.0" / f"{base}.csv")
    if case.column.startswith("atr"):
        # `ta` prints zeros while it warms up: no value.
        expected = [
            row | ({case.column: ""} if int(row["bar"]) < int(case.column[4:]) - 1 else {})
            for row in expected
        ]
    compare(
        case,
        expected,
        points(folder / "ohlcv" / f"{base}.csv", 86_400_000 if base != "btcusdt_1m" else 60_000),
    )


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.column)
def test_equals_exact_decimals(shared_data: Path, base: str, case: Column) -> None:
    folder = shared_data / "indicator_vectors"
    expected = rows(folder / "exact_decimal" / f"{base}.csv")
    bars = points(folder / "ohlcv" / f"{base}.csv", 86_400_000 if base != "btcusdt_1m" else 60_000)
    compare(case, expected, bars, tolerance=1e-11)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    "case",
    [case for case in EXACT if case.column != "vwap_utc_day_anchored"],  # these bars carry no times
    ids=lambda case: case.column,
)
def test_equals_exact_decimals_at_the_edges(shared_data: Path, edge: str, case: Column) -> None:
    folder = shared_data / "indicator_vectors" / "edge"
    compare(case, rows(folder / f"{edge}.exact.csv"), points(folder / f"{edge}.ohlcv.csv"), tolerance=1e-10)
