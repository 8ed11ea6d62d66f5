"""Pages of history and request budgets: pure arithmetic."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cryptopulse.common.contracts.intervals import INTERVALS, Interval, next_open, open_time
from cryptopulse.ingestor.domain.history import Series, pages
from cryptopulse.ingestor.domain.quota import PoolRule, Priority, TokenPool, month_of

FROM, TO = 1_700_000_123_456, 1_731_000_000_000


@pytest.mark.parametrize("interval", [i for i in INTERVALS if i != "1s"])
def test_pages_are_newest_first_aligned_and_cover_all_once(interval: Interval) -> None:
    start = max(FROM, TO - 5_000 * 60_000 + 1) if interval == "1m" else FROM
    found = list(pages(Series("v", "BTC-USD", interval, start, TO), 100))
    assert found[0][1] == open_time(TO, interval)
    assert found[-1][0] == next_open(open_time(start, interval), interval)
    for newer, older in pairwise(found):
        assert newer[0] == older[1]
    for begin, end in found:
        assert open_time(begin, interval) == begin < end
        count, at = 0, begin
        while at < end:
            at, count = next_open(at, interval), count + 1
        assert count <= (104 if interval == "1M" else 100)


def test_a_range_within_one_bucket_has_no_page() -> None:
    assert list(pages(Series("v", "BTC-USD", "1h", 3_600_001, 7_199_999), 100)) == []


def test_a_pool_refills_evenly_and_keeps_a_reserve_for_repairs() -> None:
    pool = TokenPool.full(PoolRule("w", 100, 10.0), 0)
    for _ in range(7):
        assert pool.wait_ms(10, Priority.HISTORY, 0) == 0
        pool.spend(10, Priority.HISTORY)
    assert pool.wait_ms(10, Priority.HISTORY, 0) == pytest.approx(1_000)
    assert pool.wait_ms(10, Priority.REPAIR, 0) == 0
    assert pool.wait_ms(10, Priority.HISTORY, 1_000) == 0


def test_the_venue_knows_better_how_much_is_used() -> None:
    pool = TokenPool.full(PoolRule("w", 100, 60.0), 0)
    pool.correct(95, 0)
    assert pool.left == 5
    pool.correct(10, 0)
    assert pool.left == 5


def test_a_cost_above_the_capacity_does_not_wait_for_ever() -> None:
    pool = TokenPool.full(PoolRule("w", 50, 60.0), 0)
    assert pool.wait_ms(80, Priority.CATALOGUE, 0) == 0


def test_a_month_pool_comes_back_with_the_calendar_month() -> None:
    november_30 = 1_795_996_800_000
    pool = TokenPool.full(PoolRule("m", 2, 1.0, unit="call", calendar="month"), november_30)
    pool.spend(1, Priority.LIVE)
    pool.spend(1, Priority.LIVE)
    wait = pool.wait_ms(1, Priority.LIVE, november_30)
    assert november_30 + wait == month_of(november_30)[1]
    assert pool.wait_ms(1, Priority.LIVE, int(november_30 + wait)) == 0
