"""Signals: pending while the bar forms, confirmed or withdrawn at its close, zones with hysteresis."""

from __future__ import annotations

from typing import Any

from cryptopulse.common.contracts.indicators import IndicatorUpdate, Warmup
from cryptopulse.indicators.domain.signals import SeriesKey, SignalBoard


def an_update(
    open_time: int, *, closed: bool = True, close: float = 100.0, **values: float | None
) -> IndicatorUpdate:
    return IndicatorUpdate(
        symbol="BTC-USD", source="consolidated", interval="1h", open_time=open_time, closed=closed, revision=0,
        as_of_us=0, seq=0, values={"atr_14": 1.0, **values}, warmup=Warmup(have=500, needed=78, converged=True), close=close,
    )  # fmt: skip


def said(board: SignalBoard, update: IndicatorUpdate) -> list[tuple[str, str, str]]:
    return [(s.kind, s.status, s.direction) for s in board.on_values(update, now_us=1)]


def test_a_cross_is_pending_then_confirmed_under_one_id() -> None:
    board = SignalBoard()
    board.on_values(an_update(0, sma_50=10, sma_200=11), now_us=1)
    pending = board.on_values(an_update(1, closed=False, sma_50=12, sma_200=11), now_us=2)
    assert board.on_values(an_update(1, closed=False, sma_50=12.5, sma_200=11), now_us=3) == []
    confirmed = board.on_values(an_update(1, sma_50=12, sma_200=11), now_us=4)
    assert [(s.kind, s.status, s.direction) for s in (*pending, *confirmed)] == [
        ("golden_cross", "pending", "up"),
        ("golden_cross", "confirmed", "up"),
    ]
    assert pending[0].id == confirmed[0].id


def test_a_preview_that_does_not_hold_is_withdrawn() -> None:
    board = SignalBoard()
    board.on_values(an_update(0, sma_50=10, sma_200=11), now_us=1)
    board.on_values(an_update(1, closed=False, sma_50=12, sma_200=11), now_us=2)
    assert said(board, an_update(1, sma_50=10, sma_200=11)) == [("golden_cross", "withdrawn", "up")]
    assert said(board, an_update(2, sma_50=10, sma_200=11)) == []


def test_a_zone_is_entered_once_and_left_with_hysteresis() -> None:
    board = SignalBoard()
    heard = [said(board, an_update(i, rsi_14=value)) for i, value in enumerate((60, 71, 69, 72, 67, 71))]
    assert heard == [
        [],
        [("rsi_overbought", "confirmed", "up")],
        [],
        [],
        [("rsi_overbought_left", "confirmed", "down")],
        [("rsi_overbought", "confirmed", "up")],
    ]


def test_a_market_that_does_not_move_is_not_overbought() -> None:
    board = SignalBoard()
    board.on_values(an_update(0, rsi_14=50), now_us=1)
    still = an_update(1, rsi_14=100.0, atr_14=0.0)
    assert said(board, still) == []


def test_breakouts_flips_spikes_and_squeezes() -> None:
    board = SignalBoard()
    before: dict[str, Any] = {"donchian_upper": 110.0, "donchian_lower": 90.0, "supertrend_direction": -1.0}
    narrow: dict[str, Any] = {
        "bb_upper": 105.0,
        "bb_lower": 95.0,
        "keltner_upper": 104.0,
        "keltner_lower": 96.0,
    }
    board.on_values(an_update(0, **before, **narrow), now_us=1)
    inside: dict[str, Any] = {
        "bb_upper": 103.0,
        "bb_lower": 97.0,
        "keltner_upper": 104.0,
        "keltner_lower": 96.0,
    }
    now = an_update(
        1, close=111.0, supertrend_direction=1.0, volume_ratio_20=4.0, volume_zscore_20=5.0, **inside
    )
    assert set(said(board, now)) == {
        ("donchian_breakout", "confirmed", "up"),
        ("supertrend_flip", "confirmed", "up"),
        ("volume_spike", "confirmed", "none"),
        ("bb_squeeze", "confirmed", "none"),
    }


def test_a_value_that_is_not_there_says_nothing() -> None:
    board = SignalBoard()
    board.on_values(an_update(0, sma_50=None, sma_200=11), now_us=1)
    assert said(board, an_update(1, sma_50=12, sma_200=11)) == []


def test_the_same_closed_bar_does_not_speak_twice() -> None:
    board = SignalBoard()
    board.on_values(an_update(0, sma_50=10, sma_200=11), now_us=1)
    assert len(said(board, an_update(1, sma_50=12, sma_200=11))) == 1
    assert said(board, an_update(1, sma_50=12, sma_200=11)) == []


def test_signals_of_a_symbol_are_numbered_by_one_within_the_owners_epoch() -> None:
    board = SignalBoard(9)
    board.on_values(an_update(0, sma_50=10, sma_200=11), now_us=1)
    found = board.on_values(an_update(1, closed=False, sma_50=12, sma_200=11), now_us=2)
    found += board.on_values(an_update(1, sma_50=12, sma_200=11), now_us=4)
    assert [(s.epoch, s.offset) for s in found] == [(9, 1), (9, 2)]


def test_a_new_owner_goes_on_from_what_was_told_last() -> None:
    key: SeriesKey = ("BTC-USD", "consolidated", "1h")
    last = an_update(0, sma_50=10, sma_200=11, rsi_14=71)
    before = SignalBoard()
    before.on_values(an_update(-1, sma_50=10, sma_200=11, rsi_14=60), now_us=1)
    before.on_values(last, now_us=1)
    before.on_values(an_update(1, closed=False, sma_50=12, sma_200=11, rsi_14=71), now_us=2)
    after = SignalBoard()
    after.prime(key, 0, last.values, before.inside(key))
    after.expect(before.pending())
    closed = an_update(1, sma_50=10, sma_200=11, rsi_14=69)
    assert said(after, closed) == said(before, closed) == [("golden_cross", "withdrawn", "up")]
    left = an_update(2, sma_50=12, sma_200=11, rsi_14=60)
    assert (
        said(after, left)
        == said(before, left)
        == [
            ("golden_cross", "confirmed", "up"),
            ("rsi_overbought_left", "confirmed", "down"),
        ]
    )
