from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.alerts.domain.thresholds import Edge, ThresholdIndex, path

numbers = st.integers(0, 12).map(Decimal)


@given(
    st.lists(st.tuples(st.sampled_from(list(Edge)), numbers), max_size=25),
    st.lists(st.one_of(numbers, st.tuples(st.sampled_from(list(Edge)), numbers)), max_size=40),
)
def test_the_index_hits_exactly_what_a_linear_scan_hits(
    first: list[tuple[Edge, Decimal]], steps: list[Decimal | tuple[Edge, Decimal]]
) -> None:
    index: ThresholdIndex[int] = ThresholdIndex()
    watched = []
    for number, (edge, threshold) in enumerate(first):
        index.add(edge, threshold, number)
        watched.append((edge, threshold, number))
    before: Decimal | None = None
    for number, step in enumerate(steps, start=100):
        if isinstance(step, tuple):
            index.add(step[0], step[1], number)
            watched.append((*step, number))
            continue
        expected = [
            item
            for edge, threshold, item in watched
            if before is not None and edge.is_between(threshold, before, step)
        ]
        assert sorted(hit[0] for hit in index.move(step)) == sorted(expected)
        before = step


def test_a_jump_over_twenty_thresholds_hits_all_of_them_in_the_order_of_the_way() -> None:
    index: ThresholdIndex[int] = ThresholdIndex()
    for level in range(20):
        index.add(Edge.REACH_UP, Decimal(100 + level), level)
    index.move(Decimal(50))
    assert [item for item, _, _ in index.move(Decimal(500))] == list(range(20))


def test_an_equal_price_never_hits_again() -> None:
    index: ThresholdIndex[str] = ThresholdIndex()
    index.add(Edge.REACH_UP, Decimal(100), "above")
    index.move(Decimal(99))
    assert len(index.move(Decimal(100))) == 1
    assert not index.move(Decimal(100))
    assert not index.move(Decimal(101))


def test_a_threshold_that_was_passed_the_other_way_is_live_again() -> None:
    index: ThresholdIndex[str] = ThresholdIndex()
    index.add(Edge.REACH_UP, Decimal(100), "up")
    index.add(Edge.REACH_DOWN, Decimal(90), "down")
    for price, expected in [(110, []), (95, []), (101, ["up"]), (99, []), (100, ["up"]), (90, ["down"])]:
        assert [item for item, _, _ in index.move(Decimal(price))] == expected, price


def test_states_begin_at_the_threshold_and_end_just_beyond_it() -> None:
    index: ThresholdIndex[str] = ThresholdIndex()
    index.add(Edge.REACH_UP, Decimal(100), "begin")
    index.add(Edge.LEAVE_DOWN, Decimal(100), "end")
    seen = [[item for item, _, _ in index.move(Decimal(price))] for price in (99, 100, 101, 100, 99)]
    assert seen == [[], ["begin"], [], [], ["end"]]


def test_loading_many_equals_adding_them() -> None:
    one: ThresholdIndex[int] = ThresholdIndex()
    two: ThresholdIndex[int] = ThresholdIndex()
    pairs = [(Decimal(number % 7), number) for number in range(30)]
    one.load(Edge.REACH_UP, pairs)
    for level, item in pairs:
        two.add(Edge.REACH_UP, level, item)
    for price in (0, 3, 1, 6):
        assert one.move(Decimal(price)) == two.move(Decimal(price))


def test_the_way_through_a_bar_holds_only_certain_crossings() -> None:
    assert path(Decimal(100), Decimal(90), Decimal(110), Decimal(105)) == (
        Decimal(90),
        Decimal(110),
        Decimal(105),
    )
    assert path(Decimal(100), Decimal(90), Decimal(110), Decimal(95)) == (
        Decimal(110),
        Decimal(90),
        Decimal(95),
    )
    assert path(None, Decimal(90), Decimal(110), Decimal(95)) == (Decimal(95),)
    index: ThresholdIndex[str] = ThresholdIndex()
    index.add(Edge.REACH_UP, Decimal(98), "up")
    index.reset(Decimal(100))
    # Falls from 100 to 95 with nothing above 100: that 98 was crossed upwards is not certain.
    assert not [
        hit
        for point in path(Decimal(100), Decimal(94), Decimal(100), Decimal(95))
        for hit in index.move(point)
    ]
