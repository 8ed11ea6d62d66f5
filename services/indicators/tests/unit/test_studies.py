"""Properties of every indicator: a forming value is the final one, looking changes nothing, states travel."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from cryptopulse.indicators.domain import fused
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries, decoded, encodable
from cryptopulse.indicators.domain.momentum import extremes_with
from cryptopulse.indicators.domain.points import Point, Scale, Window
from cryptopulse.indicators.domain.registry import (
    DEFINITIONS,
    BadParameterError,
    Definition,
    find,
    live_studies,
)
from cryptopulse.indicators.domain.study import warmup_of

SCALE = Scale()


def walk(count: int, seed: int = 7, bar_ms: int = 60_000) -> list[Point]:
    """A seeded market on a tick grid of 0.01, with ties, flat bars and bars without volume."""
    dice = random.Random(seed)
    tick = 10**6
    price, found = 60_000 * 100, []
    for index in range(count):
        if dice.random() < 0.1:
            o = h = low = c = price
            v = 0
        else:
            o = price
            c = max(100, price + dice.choice((-30, -10, -1, 0, 0, 1, 10, 30)))
            h, low = max(o, c) + dice.choice((0, 0, 1, 5)), min(o, c) - dice.choice((0, 0, 1, 5))
            v = dice.randrange(0, 5 * 10**8)
        price = c
        at = 1_700_000_000_000 // bar_ms * bar_ms + index * bar_ms
        found.append(Point(at, o * tick, h * tick, low * tick, c * tick, v, SCALE, as_of=at + bar_ms))
    return found


def bits(values: list[float | None]) -> list[str | None]:
    return [None if value is None else value.hex() for value in values]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
def test_a_provisional_value_equals_the_committed_one_to_the_last_bit(definition: Definition) -> None:
    looked = IndicatorSeries([definition.make("1m", given) for given in definition.live], SCALE)
    plain = IndicatorSeries([definition.make("1m", given) for given in definition.live], SCALE)
    bars = walk(5_000)
    for index, bar in enumerate(bars):
        for other in bars[index : index + 2]:
            looked.provisional(other)
        before = bits(looked.provisional(bar))
        assert before == bits(looked.commit(bar)) == bits(plain.commit(bar))


@pytest.mark.parametrize("seed", [7, 21])
def test_the_fused_look_is_the_studies_to_the_last_bit(seed: int) -> None:
    series = IndicatorSeries(live_studies("1m"), SCALE)
    plain = IndicatorSeries(live_studies("1m"), SCALE)
    names = [series.names.index(name) for name in fused.OUTPUTS]
    bars = walk(5_000, seed=seed)
    flat = [
        Point(
            bars[-1].open_time + (index + 1) * 60_000,
            *(bars[-1].c,) * 4,
            0,
            SCALE,
            as_of=bars[-1].as_of + (index + 1) * 60_000,
        )
        for index in range(60)
    ]
    looked = 0
    for bar in [*bars, *flat]:
        look = series.arm()
        whole = bits(series.provisional(bar))
        committed = series.commit(bar)
        assert whole == bits(committed) == bits(plain.commit(bar))
        if look is not None:
            assert bits(list(look(bar))) == bits([committed[at] for at in names])
            looked += 1
    assert looked == 5_060 - fused.LEAST_BARS


def test_other_parameters_are_not_taken_for_the_fused_ones() -> None:
    others = [find("sma_20")[0].make("1m", {"period": 20}), find("stoch")[0].make("1m", {"smooth": 5})]
    assert fused.positions(others) is None
    assert fused.positions([*live_studies("1m")]) is not None
    changed = [study for study in live_studies("1m") if study.outputs[0] != "stoch_k_14"]
    assert fused.positions([*changed, others[1]]) is None


def test_no_value_is_ever_nan_or_infinite() -> None:
    series = IndicatorSeries(live_studies("1m"), SCALE)
    for bar in walk(2_000, seed=3):
        for name, value in zip(series.names, series.commit(bar), strict=True):
            assert value is None or math.isfinite(value), name


def test_every_output_has_a_value_from_its_needed_bar_on() -> None:
    bars = walk(1_600, seed=11)
    for definition in DEFINITIONS:
        for given in definition.live:
            study = definition.make("1m", given)
            series = IndicatorSeries([study], SCALE)
            first: dict[str, int] = {}
            for index, bar in enumerate(bars):
                for name, value in zip(series.names, series.commit(bar), strict=True):
                    if value is not None:
                        first.setdefault(name, index + 1)
            if definition.name in ("change", "pivots", "levels", "volatility"):
                assert first, definition.name
                continue
            assert set(first) == set(study.outputs), definition.name
            assert max(first.values()) <= study.needed + 3, (definition.name, first, study.needed)


def test_states_survive_encoding_and_go_on_bit_for_bit() -> None:
    bars = walk(900, seed=5)
    whole = IndicatorSeries(live_studies("5m"), SCALE)
    for bar in bars[:600]:
        whole.commit(bar)
    packed = msgspec.msgpack.encode(encodable(whole.state()))
    resumed = IndicatorSeries(live_studies("5m"), SCALE)
    resumed.restore(decoded(msgspec.msgpack.decode(packed)), bars[:600])
    for bar in bars[600:]:
        assert bits(whole.commit(bar)) == bits(resumed.commit(bar))


def test_a_bar_that_is_not_newer_is_refused() -> None:
    series = IndicatorSeries(live_studies("1m"), SCALE)
    bars = walk(3)
    series.commit(bars[1])
    with pytest.raises(ValueError, match="is not after"):
        series.commit(bars[1])


def test_parameters_out_of_bounds_are_refused_by_name() -> None:
    definition, given = find("rsi_7")
    assert definition.make("1h", given).outputs == ("rsi_7",)
    with pytest.raises(BadParameterError, match=r"rsi\.period must be an integer from 2 to 250"):
        definition.make("1h", {"period": 1000})
    with pytest.raises(BadParameterError, match="has no parameter 'length'"):
        definition.make("1h", {"length": 9})


def test_values_do_not_depend_on_the_scale_of_the_integers() -> None:
    fine = Scale(12, 10)
    coarse_series = IndicatorSeries(live_studies("1m"), SCALE)
    fine_series = IndicatorSeries(live_studies("1m"), fine)
    for bar in walk(700, seed=13):
        twin = Point(
            bar.open_time,
            bar.o * 10**4,
            bar.h * 10**4,
            bar.l * 10**4,
            bar.c * 10**4,
            bar.v * 10**2,
            fine,
            as_of=bar.as_of,
        )
        coarse, finer = coarse_series.commit(bar), fine_series.commit(twin)
        assert dict(zip(coarse_series.names, bits(coarse), strict=True)) == dict(
            zip(fine_series.names, bits(finer), strict=True)
        )


def test_the_warm_up_told_is_that_of_the_indicators_shown() -> None:
    studies = live_studies("1h")
    shown = warmup_of(studies, 340, ["rsi_14"])
    assert (shown.needed, shown.converged) == (14, True)
    everything = warmup_of(studies, 340)
    assert everything.needed == 200
    assert not everything.converged


@pytest.mark.parametrize("length", [1, 2, 13, 51, 249])
def test_extremes_carried_from_bar_to_bar_are_those_of_the_bars(length: int) -> None:
    window, known = Window(), None
    bars = walk(1_500)
    for index, bar in enumerate(bars):
        known = extremes_with(window, bar, length, known)
        window.push(bar)
        newest = bars[max(0, index + 1 - length) : index + 1]
        whole = (max(b.h for b in newest), min(b.l for b in newest))
        assert known == (whole if index + 1 >= length else None)
