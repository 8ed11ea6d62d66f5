from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.alerts.domain.trailing import TrailingBook
from cryptopulse.alerts.domain.windows import RollingExtremes, VolumeWindow

steps = st.lists(
    st.one_of(st.integers(50, 150).map(Decimal), st.tuples(st.integers(1, 40).map(Decimal))),
    min_size=1,
    max_size=60,
)


@given(steps, st.booleans())
def test_shared_groups_fire_what_rules_of_their_own_would(
    given_steps: list[Decimal | tuple[Decimal]], from_high: bool
) -> None:
    book: TrailingBook[int] = TrailingBook(from_high=from_high)
    own: dict[int, tuple[Decimal, Decimal]] = {}
    price = Decimal(100)
    book.move(price)
    for number, step in enumerate(given_steps):
        if isinstance(step, tuple):
            book.add(number, step[0], price)
            own[number] = (step[0], price)
            continue
        price = step
        expected = set()
        for item, (pct, anchor) in list(own.items()):
            extreme = max(anchor, price) if from_high else min(anchor, price)
            own[item] = (pct, extreme)
            trigger = extreme * (1 - pct / 100) if from_high else extreme * (1 + pct / 100)
            if price <= trigger if from_high else price >= trigger:
                expected.add(item)
                del own[item]
        assert {item for item, _ in book.move(price)} == expected
        for item, (_, extreme) in own.items():
            assert book.anchor(item) == extreme
    for item in list(own):
        book.remove(item)
    assert len(book) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 100)), min_size=1, max_size=80))
def test_rolling_extremes_equal_a_scan_of_the_window(moves: list[tuple[int, int]]) -> None:
    window = RollingExtremes(60_000_000, max_points=60_000_000)
    at, seen = 0, []
    for pause, price in moves:
        at += pause * 1_000_000
        seen.append((at, price))
        inside = [value for when, value in seen if when >= at - 60_000_000]
        above, below = window.push(at, Decimal(price))
        assert above == (price / min(inside) - 1) * 100
        assert below == (1 - price / max(inside)) * 100


def test_a_volume_is_compared_with_the_bars_before_it() -> None:
    window = VolumeWindow()
    for number in range(3):
        assert window.push(number * 60_000, Decimal(10), (3,)) == {}
    assert window.push(180_000, Decimal(30), (3,)) == {3: 3.0}
    assert window.push(180_000, Decimal(500), (3,)) == {}
