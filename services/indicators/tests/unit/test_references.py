"""Other programs' vectors: TA-Lib, Stock Indicators, Lean, StockCharts; forming 5m bars; corrected bars."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.points import Point, Scale
from cryptopulse.indicators.domain.registry import live_studies


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "indicator_references", Path(__file__).with_name("references.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


references: Any = _load()
SETTLED = 300
"""Bars after which every seeding agrees."""
DOC = Path(__file__).parents[4] / "docs" / "indicators.md"


@pytest.fixture
def vectors(shared_data: Path) -> Path:
    return shared_data / "indicator_vectors"


@pytest.mark.parametrize("base", references.BASES)
@pytest.mark.parametrize("pair", references.TALIB, ids=lambda pair: pair.column)
def test_agrees_with_talib(vectors: Path, base: str, pair: Any) -> None:
    bars = references.points_of(references.rows(vectors / "ohlcv" / f"{base}.csv"))
    needed = references.measure(pair, references.rows(vectors / "talib_0.8.2" / f"{base}.csv"), bars)
    assert needed is not None
    assert needed <= SETTLED


@pytest.mark.parametrize("base", references.BASES)
def test_obv_differs_from_talib_by_unchanged_closes_only(vectors: Path, base: str) -> None:
    bars = references.points_of(references.rows(vectors / "ohlcv" / f"{base}.csv"))
    theirs = [float(row["obv"]) for row in references.rows(vectors / "talib_0.8.2" / f"{base}.csv")]
    series = IndicatorSeries([references.study("obv")], Scale())
    ours = [series.commit(bar)[0] for bar in bars]
    held = 0.0
    for index, bar in enumerate(bars):
        if index and bar.c == bars[index - 1].c:
            held += bar.v / bar.vs
        mine = ours[index]
        assert mine is not None
        assert mine - theirs[index] == pytest.approx(held, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("base", references.BASES)
def test_psar_and_aroon_agree_with_talib_but_after_reversals_and_on_ties(vectors: Path, base: str) -> None:
    bars = references.points_of(references.rows(vectors / "ohlcv" / f"{base}.csv"))
    table = references.rows(vectors / "talib_0.8.2" / f"{base}.csv")
    for column, made, output, most in (
        ("sar", "psar", "psar", 0.12),
        ("aroon_up_25", "aroon", "aroon_up_25", 0.03),
        ("aroon_down_25", "aroon", "aroon_down_25", 0.03),
    ):
        pair = references.Pair(column, references.study(made), output, "unit")
        found = [error for _, error in references.errors(pair, bars, [row[column] for row in table])]
        other = sum(1 for error in found if error is not None and error > 1e-9)
        assert other <= most * len(found), column


def _sheets(table: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(name, pair, id=f"{name}-{pair.column}")
        for name, pairs in table.items()
        for pair in pairs
    ]


@pytest.mark.parametrize(("name", "pair"), _sheets(references.STOCK_INDICATORS))
def test_agrees_with_stock_indicators(vectors: Path, name: str, pair: Any) -> None:
    bars = references.points_of(references.rows(vectors / "ohlcv" / "spy_1d.csv"))
    needed = references.measure(
        pair, references.rows(vectors / "stock_indicators_spy_1d" / f"{name}.csv"), bars
    )
    assert needed is not None
    assert needed <= SETTLED


@pytest.mark.parametrize(("name", "pair"), _sheets(references.LEAN))
def test_agrees_with_lean(vectors: Path, name: str, pair: Any) -> None:
    lines = references.rows(vectors / "lean" / name)
    needed = references.measure(pair, lines, references.points_of(lines))
    assert needed is not None
    assert needed <= SETTLED


@pytest.mark.parametrize(("name", "pair"), _sheets(references.STOCKCHARTS))
def test_agrees_with_stockcharts(vectors: Path, name: str, pair: Any) -> None:
    lines = references.rows(vectors / "ta_stockcharts" / name)
    needed = references.measure(pair, lines, references.points_of(lines))
    assert needed is not None
    assert needed <= 100


def test_the_documented_bars_until_agreement_are_the_measured_ones(vectors: Path) -> None:
    measured = references.agreement(vectors)
    written = [line for line in DOC.read_text().splitlines() if line in measured]
    assert written == measured, "docs/indicators.md should say:\n" + "\n".join(measured)


# --- forming and corrected bars ----------------------------------------------------------------------------------

FORMING = {
    "sma_20": "sma_20",
    "ema_12": "ema_12",
    "ema_26": "ema_26",
    "rsi_14": "rsi_14",
    "macd": "macd",
    "macd_signal": "macd_signal",
    "bb_upper_20_2": "bb_upper",
    "bb_lower_20_2": "bb_lower",
    "atr_14": "atr_14",
    "stoch_k_14": "stoch_k_14",
    "adx_14": "adx_14",
    "obv": "obv",
    "vwap_roll_14": "vwap_14",
}


def folded(part: list[Point]) -> Point:
    first, last = part[0], part[-1]
    at = first.open_time - first.open_time % 300_000
    scale = Scale(len(str(first.ps)) - 1, len(str(first.vs)) - 1)
    return Point(
        at,
        first.o,
        max(bar.h for bar in part),
        min(bar.l for bar in part),
        last.c,
        sum(bar.v for bar in part),
        scale,
        as_of=last.as_of,
        fraction=len(part) / 5,
    )


def test_a_forming_5m_bar_has_the_reference_values_at_every_minute_and_keeps_the_last(vectors: Path) -> None:
    minutes = references.points_of(references.rows(vectors / "ohlcv" / "btcusdt_1m.csv"), 60_000)
    expected = {
        int(row["minute_bar"]): row
        for row in references.rows(vectors / "provisional" / "btcusdt_5m_from_1m.csv")
    }
    series = IndicatorSeries(live_studies("5m"), Scale())
    compared = 0
    turnover = 0.0
    for index in range(len(minutes)):
        inside = index % 5
        part = minutes[index - inside : index + 1]
        assert part[0].open_time % 300_000 == 0
        bar = folded(part)
        row = expected.get(index)
        values: dict[str, float | None] = {}
        if row is not None:
            values = dict(zip(series.names, series.provisional(bar), strict=True))
            for column, output in FORMING.items():
                truth, ours = float(row[column]), values[output]
                unit = bar.fc if output.startswith("macd") else turnover + 1 if output == "obv" else 1.0
                assert ours is not None
                assert abs(ours - truth) <= 1e-9 * max(abs(truth), unit), (index, output)
            assert (row["closed"] == "True") == (inside == 4)
            compared += 1
        if inside == 4:
            final = dict(zip(series.names, series.commit(bar), strict=True))
            turnover += bar.v / bar.vs
            assert row is None or final == values
    assert compared == len(expected)


def test_replayed_corrections_give_the_reference_tails_bit_equal_to_an_uninterrupted_run(
    vectors: Path,
) -> None:
    lines = [dict(row) for row in references.rows(vectors / "ohlcv" / "btcusdt_1m.csv")[:1000]]
    edits = references.rows(vectors / "corrections" / "btcusdt_1m_first1000.edits.csv")
    series = IndicatorSeries(live_studies("1m"), Scale())
    checkpoint = series
    original = references.points_of(lines, 60_000)
    first = min(int(edit["bar"]) for edit in edits)
    for index, bar in enumerate(original):
        if index == first:
            checkpoint = series.twin()
        series.commit(bar)
    for edit in edits:
        for name in ("open", "high", "low", "close", "volume"):
            assert float(lines[int(edit["bar"])][name]) == float(edit[f"old_{name}"])
            lines[int(edit["bar"])][name] = edit[f"new_{name}"]
    edited = references.points_of(lines, 60_000)
    whole = IndicatorSeries(live_studies("1m"), Scale())
    truth = [whole.commit(bar) for bar in edited]
    replayed = [checkpoint.commit(bar) for bar in edited[first:]]
    assert replayed == truth[first:]
    assert series.provisional(edited[-1]) != truth[-1]
    tail = references.rows(vectors / "corrections" / "btcusdt_1m_first1000.expected_tail_exact.csv")
    columns = {
        "sma_20": "sma_20", "sma_200": "sma_200", "ema_12_firstseed": "ema_12", "ema_26_firstseed": "ema_26",
        "macd_firstseed": "macd", "macd_signal_firstseed": "macd_signal", "rsi_14_ta": "rsi_14",
        "stddev_pop_20": "bb_deviation", "bb_upper_20_2": "bb_upper", "bb_lower_20_2": "bb_lower",
        "bb_pctb_20_2": "bb_percent_b", "atr_14_ta_tv": "atr_14", "stoch_k_14": "stoch_k_14",
        "stoch_d_14_3": "stoch_d_14", "willr_14": "williams_r_14", "plus_di_14": "plus_di_14",
        "minus_di_14": "minus_di_14", "adx_14_wilder": "adx_14", "cci_20": "cci_20", "vwap_roll_14": "vwap_14",
        "obv_ta_equal_adds": "obv", "dc_upper_20": "donchian_upper", "dc_lower_20": "donchian_lower",
        "roc_12": "roc_12", "wma_20": "wma_20", "volume_ratio_prev20": "volume_ratio_20",
        "volume_zscore_prev20": "volume_zscore_20",
    }  # fmt: skip
    for row in tail:
        values = dict(zip(whole.names, truth[int(row["bar"])], strict=True))
        close = edited[int(row["bar"])].fc
        for column, output in columns.items():
            ours, due = values[output], float(row[column])
            unit = close if output.startswith("macd") else 1.0
            assert ours is not None
            assert abs(ours - due) <= 1e-10 * max(abs(due), unit), (row["bar"], column)
    assert len(tail) == 120
