"""The rolling day equals a plain look over its minutes, whatever comes and goes."""

from __future__ import annotations

import random
from decimal import Decimal

from cryptopulse.common.contracts.intervals import DAY_MS, MINUTE_MS
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.day_stats import DayStats

START = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS


def a_bar(minute: int, dice: random.Random) -> Bar:
    close = Decimal(dice.randrange(900, 1_100))
    spread, volume = dice.randrange(0, 9), Decimal(dice.randrange(0, 1_000)) / 1_000
    return Bar(
        START + minute * MINUTE_MS, close, close + spread, close - spread, close, volume, volume, 1, volume
    )


def test_figures_equal_a_plain_look_over_the_day() -> None:
    dice = random.Random(5)
    stats, kept = DayStats(), {}
    minute = 0
    for step in range(4_000):
        minute += dice.choice((1, 1, 1, 1, 2, 9))
        bar = a_bar(minute, dice)
        stats.take(bar)
        kept[bar.open_time] = bar
        if step % 50 == 49:
            fixed = a_bar(minute - dice.randrange(0, 5), dice)
            stats.take(fixed)
            kept[fixed.open_time] = fixed
        if step % 97:
            continue
        newest = max(kept)
        inside = [one for at, one in kept.items() if at >= newest + MINUTE_MS - DAY_MS]
        price = kept[newest].close
        change, high, low, volume = stats.figures(price, newest + MINUTE_MS, None)
        assert (high, low) == (max(one.high for one in inside), min(one.low for one in inside))
        assert volume == sum((one.volume for one in inside), Decimal(0))
        before = [at for at in kept if at <= newest - DAY_MS]
        if before:
            old = kept[max(before)].close
            assert change == ((price - old) * 100 / old).quantize(Decimal("0.0001"))


def test_a_change_is_not_told_with_less_than_a_day() -> None:
    stats = DayStats()
    dice = random.Random(1)
    for minute in range(60):
        stats.take(a_bar(minute, dice))
    change, high, _, _ = stats.figures(Decimal(1_000), START + 60 * MINUTE_MS, None)
    assert change is None
    assert high is not None


def test_nothing_known_is_nothing_told() -> None:
    assert DayStats().figures(Decimal(1), START, None) == (None, None, None, None)
