"""Holes: what happened while prices were not seen, told late with its minute, once; and dry runs over candles."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cryptopulse.alerts.domain.cooldown import Runtime
from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.dry_run import dry_run
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.market import Hole, Market
from cryptopulse.alerts.domain.refine import bars_to_refine, coarse_interval
from cryptopulse.alerts.domain.rules import Firing, Rule
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval, length_ms
from cryptopulse.common.testing.builders import a_candle, a_price_update, a_tick_batch, a_trade

MINUTE = 60_000
Number = Decimal | str | int
T0 = 1_700_000_040_000
assert T0 % MINUTE == 0


def bar(minute: int, low: Number, high: Number, close: Number, **more: Any) -> Candle:
    return a_candle(
        source="binance", open_time=T0 + minute * MINUTE, open=close, low=low, high=high, close=close, **more
    )


def a_rule(
    value: object, kind: str = "price_above", *, name: str = "al_1", trigger: str = "every_cross", **more: Any
) -> Rule:
    definition = RuleDefinition.model_validate(
        {
            "symbol": "BTC-USDT",
            "source": "binance",
            "condition": {"type": kind, "value": str(value)},
            "trigger": trigger,
        }
    )
    return Rule(name, more.pop("user", "ann"), 1, definition, runtime=Runtime(evaluated=True), **more)


def trade(engine: ShardEngine, price: object, number: int, at_ms: int) -> list[Firing]:
    found = a_trade(price=str(price), trade_id=number, event_us=at_ms * 1000)
    return engine.on_ticks(a_tick_batch([found]), at_ms * 1000)


def after_a_hole(*rules: Rule, minutes: int = 5) -> tuple[ShardEngine, Hole, list[Firing]]:
    """An engine that saw 95, then nothing for some minutes, then 96."""
    engine = ShardEngine()
    for rule in rules:
        engine.add(rule, T0 * 1000)
    trade(engine, 95, 1, T0 + 30_000)
    live = trade(engine, 96, 500, T0 + minutes * MINUTE + 30_000)
    (hole,) = engine.take_holes()
    return engine, hole, live


def test_a_crossing_in_a_hole_fires_late_with_its_minute() -> None:
    engine, hole, live = after_a_hole(a_rule(100), a_rule(90, "price_below", name="al_2"))
    assert live == []
    assert engine.positions()[0].holes == (hole,)
    candles = [
        bar(0, 94, 96, 95),
        bar(1, 94, 99, 97),
        bar(2, 97, 104, 98),
        bar(3, 96, 99, 97),
        bar(4, 88, 97, 96),
        bar(5, 95, 97, 96),
    ]
    fired = engine.replay(hole, candles, 1)
    told = [(firing.rule_id, firing.cause.late, firing.cause.data["minute"]) for firing in fired]
    assert told == [("al_1", True, T0 + 2 * MINUTE), ("al_2", True, T0 + 4 * MINUTE)]
    assert engine.positions()[0].holes == ()
    assert engine.price("BTC-USDT", "binance") == 96


def test_every_cross_fires_late_at_most_once_a_minute() -> None:
    engine, hole, _ = after_a_hole(a_rule(100))
    candles = [bar(minute, 94, 104, 95) for minute in range(6)]
    fired = engine.replay(hole, candles, 1)
    assert len(fired) == len({firing.dedupe_key for firing in fired}) == 6


def test_a_once_rule_fires_once_in_a_replay() -> None:
    engine, hole, _ = after_a_hole(a_rule(100, trigger="once"))
    assert len(engine.replay(hole, [bar(minute, 94, 104, 95) for minute in range(6)], 1)) == 1


def test_the_net_move_over_a_long_hole_is_late_and_told_once() -> None:
    engine = ShardEngine()
    engine.add(a_rule(100), T0 * 1000)
    trade(engine, 95, 1, T0 + 30_000)
    assert trade(engine, 105, 500, T0 + 5 * MINUTE + 30_000) == []
    (hole,) = engine.take_holes()
    candles = [
        bar(0, 94, 96, 95),
        bar(1, 94, 99, 97),
        bar(2, 97, 104, 103),
        bar(3, 102, 104, 103),
        bar(4, 102, 104, 103),
        bar(5, 103, 105, 105),
    ]
    fired = engine.replay(hole, candles, 1)
    assert [firing.cause.data["minute"] for firing in fired] == [T0 + 2 * MINUTE]


def test_without_candles_the_ends_are_compared_and_the_gap_is_told_once_per_owner() -> None:
    rules = [
        a_rule(100),
        a_rule(99, name="al_2"),
        a_rule(98, name="al_3", user="bob"),
        a_rule(500, name="al_4", user="cat", armed_ms=T0 + 60 * MINUTE),
    ]
    engine = ShardEngine()
    for rule in rules:
        engine.add(rule, T0 * 1000)
    trade(engine, 95, 1, T0 + 30_000)
    trade(engine, 105, 500, T0 + 5 * MINUTE + 30_000)
    (hole,) = engine.take_holes()
    fired = engine.replay(hole, [], 1)
    assert sorted(firing.rule_id for firing in fired if firing.type == "alert.triggered") == [
        "al_1",
        "al_2",
        "al_3",
    ]
    gaps = [firing for firing in fired if firing.type == "alert.gap"]
    assert sorted(firing.user_id for firing in gaps) == ["ann", "bob"]
    assert gaps[0].data["minutes"] == 6


def test_a_short_hole_is_crossed_at_once_and_its_excursion_later() -> None:
    engine = ShardEngine()
    for rule in (a_rule(96), a_rule(100, name="al_2")):
        engine.add(rule, T0 * 1000)
    trade(engine, 95, 1, T0 + 10_000)
    assert [firing.rule_id for firing in trade(engine, 97, 9, T0 + 20_000)] == ["al_1"]
    (hole,) = engine.take_holes()
    fired = engine.replay(hole, [bar(0, 94, 103, 97)], 1)
    assert [(firing.rule_id, firing.cause.late) for firing in fired] == [("al_2", True)]


def test_a_rule_made_after_the_minute_is_not_fired_for_it() -> None:
    engine, hole, _ = after_a_hole(a_rule(100, armed_ms=T0 + 3 * MINUTE))
    assert (
        engine.replay(hole, [bar(minute, 94, 104 if minute < 3 else 96, 95) for minute in range(6)], 1) == []
    )


def test_missed_ignore_is_honoured() -> None:
    definition = a_rule(100).definition.model_copy(update={"missed": "ignore"})
    engine, hole, _ = after_a_hole(Rule("al_1", "ann", 1, definition))
    assert engine.replay(hole, [bar(minute, 94, 104, 95) for minute in range(6)], 1) == []


def test_a_restart_comes_back_to_where_it_was_with_its_holes() -> None:
    engine, hole, _ = after_a_hole(a_rule(100))
    successor = ShardEngine()
    successor.restore(engine.positions())
    successor.add(a_rule(100), 1)
    assert successor.take_holes() == [hole]
    assert trade(successor, 101, 501, T0 + 6 * MINUTE)[0].price == 101
    assert trade(successor, 102, 501, T0 + 6 * MINUTE) == []


def test_a_hole_in_the_sequence_of_consolidated_prices_is_noted() -> None:
    definition = RuleDefinition.model_validate(
        {"symbol": "BTC-USD", "condition": {"type": "price_above", "value": "100"}, "trigger": "every_cross"}
    )
    engine = ShardEngine()
    engine.add(Rule("al_1", "ann", 1, definition), 1)
    engine.on_price(a_price_update(price=95, seq=1, event_us=T0 * 1000), 1)
    engine.on_price(a_price_update(price=95, seq=2, event_us=T0 * 1000 + 1), 1)
    assert engine.take_holes() == []
    engine.on_price(a_price_update(price=95, seq=4, event_us=T0 * 1000 + 2), 1)
    assert len(engine.take_holes()) == 1
    engine.on_price(a_price_update(price=95, epoch=2, seq=1, event_us=T0 * 1000 + 3), 1)
    assert len(engine.take_holes()) == 1
    assert engine.on_price(a_price_update(price=500, epoch=1, seq=9, event_us=T0 * 1000 + 4), 1) == []


def test_a_dry_run_says_what_the_live_rule_would_do() -> None:
    definition = a_rule(100, trigger="once").definition
    candles = [bar(0, 94, 96, 95), bar(1, 95, 101, 99), bar(2, 95, 200, 99)]
    assert [(firing.at_ms, firing.direction) for firing in dry_run(definition, candles)] == [
        (T0 + MINUTE, "up")
    ]


def test_hours_stand_for_minutes_where_nothing_is_crossed() -> None:
    definition = a_rule(100).definition
    hours = [
        a_candle(
            source="binance",
            interval="1h",
            open_time=T0 + number * 60 * MINUTE,
            open=close,
            low=low,
            high=high,
            close=close,
        )
        for number, (low, high, close) in enumerate(
            [(90, 95, 94), (93, 99, 98), (97, 101, 101), (102, 110, 105), (101, 104, 103)]
        )
    ]
    assert coarse_interval(definition) == "1h"
    found = bars_to_refine(definition, hours, {})
    assert [hours.index(hour) for hour in found] == [2]
    held = definition.model_copy(update={"for_seconds": 60})
    assert coarse_interval(held) is None


HOUR = 60 * MINUTE
H0 = T0 // HOUR * HOUR
CHANGES: tuple[dict[str, Any], ...] = (
    {"type": "pct_change", "pct": "0.8", "window": "15m"},
    {"type": "pct_change", "pct": "1.2", "window": "1h", "direction": "up"},
    {"type": "pct_change", "pct": "2", "window": "4h", "direction": "down"},
    {"type": "pct_change", "pct": "3", "ref": "since_created"},
    {"type": "trailing", "pct": "1.5", "from": "high"},
    {"type": "trailing", "pct": "2.5", "from": "low"},
)


@pytest.mark.parametrize(
    "condition", CHANGES, ids=lambda condition: f"{condition['type']}-{condition['pct']}"
)
@pytest.mark.parametrize("trigger", ["once", "every_cross", "once_per_bar"])
def test_minutes_of_the_refined_hours_fire_as_all_minutes_do(condition: dict[str, Any], trigger: str) -> None:
    spared = fired = 0
    for seed in range(6):
        dice, price, minutes = random.Random(seed), 100.0, []
        for number in range(60 * 48):
            after = price * (1 + dice.gauss(0, 0.0004 if number % 1400 > 200 else 0.003))
            low, high = min(price, after) * (1 - 0.0002), max(price, after) * (1 + 0.0002)
            opened, least, most, close = (f"{value:.4f}" for value in (price, low, high, after))
            at = H0 + number * MINUTE
            minutes.append(
                a_candle(source="binance", open_time=at, open=opened, low=least, high=most, close=close)
            )
            price = after
        definition = RuleDefinition.model_validate(
            {"symbol": "BTC-USDT", "source": "binance", "condition": condition, "trigger": trigger}
        )
        interval = coarse_interval(definition)
        assert interval is not None
        bars, step = derived(minutes, interval), length_ms(interval)
        refined: dict[int, list[Candle]] = {}
        while wanted := bars_to_refine(definition, bars, refined):
            for bar in wanted:
                refined[bar.open_time] = [
                    minute for minute in minutes if minute.open_time // step * step == bar.open_time
                ]
        mixed = [bar for bar in bars if bar.open_time not in refined]
        mixed += [minute for inside in refined.values() for minute in inside]
        mixed.sort(key=lambda candle: candle.open_time)
        exact = dry_run(definition, minutes)
        assert dry_run(definition, mixed) == exact
        spared, fired = spared + len(bars) - len(refined), fired + len(exact)
    assert fired
    assert spared


@pytest.mark.parametrize("hysteresis", [None, "0.5"])
@pytest.mark.parametrize(
    "condition",
    [*CHANGES, {"type": "pct_change", "pct": "2.5", "window": "1d"}],
    ids=lambda condition: f"{condition['type']}-{condition['pct']}",
)
def test_a_bar_passed_as_a_whole_leaves_everything_as_each_of_its_prices_would(
    condition: dict[str, Any], hysteresis: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if condition["type"] == "trailing" and hysteresis:
        pytest.skip("a trailing rule follows anew instead")
    definition = RuleDefinition.model_validate(
        {
            "symbol": "BTC-USDT", "source": "binance", "condition": condition, "trigger": "every_cross",
            "hysteresis": hysteresis and {"pct": hysteresis},
        }
    )  # fmt: skip
    steps, step = 0, ShardEngine._step

    def counted(*args: Any) -> None:
        nonlocal steps
        steps += 1
        step(*args)

    monkeypatch.setattr(ShardEngine, "_step", counted)
    walks = [a_walk(seed) for seed in range(4)]
    passed = [dry_run(definition, walk) for walk in walks]
    few, steps = steps, 0
    monkeypatch.setattr(Market, "stays", lambda *_: False)
    assert [dry_run(definition, walk) for walk in walks] == passed
    assert any(passed)
    assert few < steps


def a_walk(seed: int) -> list[Candle]:
    """Two days of minutes, of which an hour each day is lively; some stand still."""
    dice, price, minutes = random.Random(seed), 100.0, []
    for number in range(60 * 48):
        after = price * (1 + dice.gauss(0, 0.0004 if number % 1400 > 200 else 0.003) * dice.choice([0, 1, 1]))
        low, high = (
            (price, price) if after == price else (min(price, after) * 0.9998, max(price, after) * 1.0002)
        )
        opened, least, most, close = (f"{value:.3f}" for value in (price, low, high, after))
        at = H0 + number * MINUTE
        minutes.append(
            a_candle(source="binance", open_time=at, open=opened, low=least, high=most, close=close)
        )
        price = after
    return minutes


def derived(minutes: list[Candle], interval: Interval) -> list[Candle]:
    """The longer bars that minutes make."""
    found, count = [], length_ms(interval) // MINUTE
    for first in range(0, len(minutes), count):
        part = minutes[first : first + count]
        found.append(
            msgspec.structs.replace(
                part[0],
                interval=interval,
                high=max(minute.high for minute in part),
                low=min(minute.low for minute in part),
                close=part[-1].close,
            )
        )
    return found
