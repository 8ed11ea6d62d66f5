"""The gap guard: each id once, in order, whatever order they come in."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptopulse.common.contracts.ticks import BACKFILL, LATE, SNAPSHOT, Trade
from cryptopulse.ingestor.domain.ordering import HELD_LIMIT, SPAN_IDS, Gap, TradeGuard

SECOND = 1_000_000


def a_trade(trade_id: int, *, symbol: str = "BTC-USDT", at: int | None = None, flags: int = 0) -> Trade:
    event = 1_700_000_000 * SECOND + trade_id * 1_000 if at is None else at
    return Trade(symbol, trade_id, Decimal(1), Decimal(1), "buy", event, event, flags)


def feed(guard: TradeGuard, *trades: Trade) -> list[Trade]:
    passed: list[Trade] = []
    for trade in trades:
        passed += [trade] if guard.offer(trade) else guard.settle(trade)
    return passed


def ids(trades: list[Trade]) -> list[int]:
    return [trade.trade_id for trade in trades]


def test_the_first_trade_is_the_base_and_the_next_pass() -> None:
    assert ids(feed(TradeGuard(), *map(a_trade, (100, 101, 102)))) == [100, 101, 102]


def test_duplicates_are_dropped_and_counted() -> None:
    guard = TradeGuard()
    passed = feed(guard, a_trade(100, flags=SNAPSHOT), a_trade(100), a_trade(101), a_trade(101), a_trade(100))
    assert ids(passed) == [100, 101]
    assert guard.counts.duplicates == 3


def test_a_straggler_closes_the_hole_in_order() -> None:
    guard = TradeGuard()
    assert ids(feed(guard, *map(a_trade, (100, 102, 101, 103)))) == [100, 101, 102, 103]
    assert guard.due(10**18) == []
    assert guard.held == 0


def test_a_gap_is_due_once_after_its_patience() -> None:
    guard = TradeGuard(hold_us=2 * SECOND)
    feed(guard, a_trade(100), a_trade(103))
    held_since = a_trade(103).received_us
    assert guard.due(held_since + SECOND) == []
    assert [(g.first_id, g.last_id) for g in guard.due(held_since + 2 * SECOND)] == [(101, 102)]
    assert guard.due(held_since + 9 * SECOND) == []


def test_a_repair_passes_in_id_order_flagged_and_frees_what_waited() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(100), a_trade(103), a_trade(104))
    (gap,) = guard.due(10**18)
    passed, lost = guard.repaired(gap, [a_trade(101), a_trade(102)])
    assert ids(passed) == [101, 102, 103, 104]
    assert [bool(trade.flags & BACKFILL) for trade in passed] == [True, True, False, False]
    assert lost == []
    assert feed(guard, a_trade(105))[0].trade_id == 105


def test_what_the_venue_no_longer_has_is_declared_exactly() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(100), a_trade(106))
    (gap,) = guard.due(10**18)
    passed, lost = guard.repaired(gap, [a_trade(102), a_trade(103)])
    assert ids(passed) == [102, 103, 106]
    assert [(g.first_id, g.last_id) for g in lost] == [(101, 101), (104, 105)]
    assert guard.counts.lost == 3


def test_a_declared_trade_that_comes_late_passes_once_as_late() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(100), a_trade(102))
    (gap,) = guard.due(10**18)
    guard.repaired(gap, [])
    late = feed(guard, a_trade(101), a_trade(101))
    assert ids(late) == [101]
    assert late[0].flags & LATE
    assert guard.counts.lost == 0


def test_a_repair_that_overlaps_the_live_trades_doubles_nothing() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(100), a_trade(103))
    (gap,) = guard.due(10**18)
    passed = feed(guard, a_trade(101), a_trade(102))
    more, lost = guard.repaired(gap, [a_trade(101), a_trade(102)])
    assert ids(passed + more) == [101, 102, 103]
    assert lost == []


def test_holes_close_together_are_one_gap_and_the_held_between_them_keep_their_turn() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(1), a_trade(3), a_trade(6), a_trade(7))
    (gap,) = guard.due(10**18)
    assert (gap.first_id, gap.last_id) == (2, 5)
    assert gap.to_us == a_trade(6).event_us
    passed, lost = guard.repaired(gap, [a_trade(n) for n in (2, 3, 5)])
    assert [(trade.trade_id, bool(trade.flags & BACKFILL)) for trade in passed] == [
        (2, True), (3, False), (5, True), (6, False), (7, False),
    ]  # fmt: skip
    assert [(hole.first_id, hole.last_id) for hole in lost] == [(4, 4)]


def test_holes_far_apart_or_still_young_are_named_one_after_the_other() -> None:
    guard = TradeGuard(hold_us=2_000_000)
    feed(guard, a_trade(1), a_trade(3))
    feed(guard, a_trade(3 + SPAN_IDS))
    old = a_trade(3).received_us + 2_000_000
    (first,) = guard.due(old + 10**12)
    assert (first.first_id, first.last_id) == (2, 1 + SPAN_IDS)
    young = TradeGuard(hold_us=2_000_000)
    late = msgspec.structs.replace(a_trade(5), received_us=old)
    feed(young, a_trade(1), a_trade(3), late)
    (gap,) = young.due(old)
    assert (gap.first_id, gap.last_id) == (2, 2)
    passed, _ = young.repaired(gap, [a_trade(2)])
    assert ids(passed) == [2, 3]
    (second,) = young.due(old + 2_000_000)
    assert (second.first_id, second.last_id) == (4, 4)


def test_what_was_passed_over_comes_late_once_and_leaves_open_gaps_alone() -> None:
    guard = TradeGuard(hold_us=0)
    feed(guard, a_trade(1), a_trade(5))
    (gap,) = guard.due(10**18)
    passed, (hole,) = guard.repaired(gap, [])
    assert (ids(passed), hole.first_id, hole.last_id) == ([5], 2, 4)
    feed(guard, a_trade(8))
    (waiting,) = guard.due(10**18)
    late = guard.repaired_late(hole, [a_trade(4), a_trade(2), a_trade(7)])
    assert ids(late) == [2, 4]
    assert all(trade.flags & LATE and trade.flags & BACKFILL for trade in late)
    assert guard.repaired_late(hole, [a_trade(2)]) == []
    assert guard.due(10**18) == []
    assert ids(guard.repaired(waiting, [a_trade(6), a_trade(7)])[0]) == [6, 7, 8]
    assert guard.counts.lost == 1


def test_a_renumbering_backwards_is_believed_after_three_and_loses_none() -> None:
    guard = TradeGuard()
    feed(guard, a_trade(5_000_000))
    later = a_trade(5_000_000).event_us
    fresh = [a_trade(n, at=later + n * 1_000) for n in (1, 2, 3, 4)]
    assert ids(feed(guard, *fresh)) == [1, 2, 3, 4]
    assert guard.counts.rebased == 1


def test_a_jump_far_ahead_is_a_new_numbering_and_no_gap() -> None:
    guard = TradeGuard()
    feed(guard, a_trade(10))
    assert ids(feed(guard, a_trade(10**12), a_trade(10**12 + 1))) == [10**12, 10**12 + 1]
    assert guard.due(10**18) == []


def test_a_seed_of_an_earlier_process_makes_the_time_down_a_gap() -> None:
    guard = TradeGuard(hold_us=0)
    guard.seed("BTC-USDT", 50, 1)
    assert feed(guard, a_trade(53)) == []
    (gap,) = guard.due(10**18)
    assert (gap.first_id, gap.last_id) == (51, 52)


def test_memory_behind_a_gap_is_bounded_and_the_stream_goes_on() -> None:
    guard = TradeGuard(hold_us=10**12)
    passed = feed(guard, a_trade(1), *(a_trade(n) for n in range(3, 3 + 2 * HELD_LIMIT + 10)))
    assert guard.held == 0
    assert ids(passed) == [1, *range(3, 3 + 2 * HELD_LIMIT + 10)]
    more, _ = guard.repaired(Gap("BTC-USDT", 2, 2, 0, 0), [a_trade(2)])
    assert [(t.trade_id, t.flags) for t in more] == [(2, BACKFILL | LATE)]


def test_a_heartbeat_id_ahead_of_ours_is_a_gap() -> None:
    guard = TradeGuard()
    feed(guard, a_trade(7))
    assert guard.expect("BTC-USDT", 7, 0) is None
    gap = guard.expect("BTC-USDT", 9, 0)
    assert gap is not None
    assert (gap.first_id, gap.last_id) == (8, 9)
    assert guard.expect("ETH-USDT", 9, 0) is None


@settings(deadline=None)
@given(st.integers(1, 60), st.randoms(use_true_random=False), st.floats(0, 0.4), st.floats(0, 0.4))
def test_any_loss_order_and_doubling_ends_with_each_id_once(
    count: int, rand: random.Random, drop: float, double: float
) -> None:
    guard = TradeGuard(hold_us=0)
    sent = [a_trade(n) for n in range(1, count + 1)]
    stream = [t for t in sent[1:] if rand.random() > drop]
    stream += [t for t in stream if rand.random() < double]
    rand.shuffle(stream)
    passed = feed(guard, sent[0], *stream)
    newest = max((t.trade_id for t in stream), default=1)
    for _ in range(count):
        for gap in guard.due(10**18):
            more, lost = guard.repaired(gap, [t for t in sent if gap.first_id <= t.trade_id <= gap.last_id])
            passed += more
            assert lost == []
    assert ids(passed) == list(range(1, newest + 1))
    assert guard.held == 0


def test_a_step_back_of_our_clock_delays_a_repair_and_loses_nothing() -> None:
    guard = TradeGuard(hold_us=2_000_000)
    assert feed(guard, a_trade(1)) == [a_trade(1)]
    ahead = a_trade(3)
    assert feed(guard, ahead) == []
    received = ahead.received_us
    assert guard.due(received - 5_000_000) == []
    (gap,) = guard.due(received + 2_000_000)
    passed, lost = guard.repaired(gap, [a_trade(2)])
    assert ([trade.trade_id for trade in passed], lost) == ([2, 3], [])
