"""Texts to exact decimals and times: what is believed, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cryptopulse.common.contracts.values import ValueRefusedError
from cryptopulse.ingestor.domain import numbers
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.numbers import Numbers
from cryptopulse.ingestor.domain.times import from_ms_or_us, from_rfc3339

BAD = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1",
    "0",
    "",
    "1." + "1" * 30,
    "1_000",
    " 1",
    "１２",
    "0x10",
    "0.0",
]


@pytest.mark.parametrize("text", [b for b in BAD if b not in (" 1", "1_000", "１２")])
def test_unbelievable_prices_are_refused(text: str) -> None:
    with pytest.raises(ValueRefusedError):
        Numbers().exact(text)


@pytest.mark.parametrize("text", ["61837.63000000", "0.00000001", "1e-8", "999999999999999999"])
def test_a_price_is_kept_as_it_was_written(text: str) -> None:
    assert str(Numbers().exact(text)) == str(Decimal(text))


def test_zero_is_a_size_only_where_it_may_be() -> None:
    assert Numbers(zero_allowed=True).exact("0.000") == 0
    with pytest.raises(ValueRefusedError):
        Numbers().exact("0.000")


def test_the_table_of_known_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "CACHE_LIMIT", 10)
    table = Numbers()
    for n in range(1, 100):
        table.exact(str(n))
    assert len(table._known) <= 10


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-08-09T21:05:48.228568804Z", 1_786_309_548_228_568),
        ("2021-04-17T16:43:29.571587Z", 1_618_677_809_571_587),
        ("2021-04-17T16:43:29Z", 1_618_677_809_000_000),
        ("2021-04-17T18:43:29.5+02:00", 1_618_677_809_500_000),
    ],
)
def test_rfc3339_of_any_fraction_is_read(text: str, us: int) -> None:
    assert from_rfc3339(text) == us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1999-01-01T00:00:00Z",
        "2021-04-17T16:43:29.5x",
        "2021-04-17T16:43:29.²Z",
        "0001-01-01T00:00:00+23:59",
        "2500-01-01T00:00:00Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueRefusedError):
        from_rfc3339(text)


def test_milliseconds_and_microseconds_are_told_apart() -> None:
    assert from_ms_or_us(1_723_161_255_342) == from_ms_or_us(1_723_161_255_342_000) == 1_723_161_255_342_000
    for bad in (0, -1, 1_000_000_000, 10**18):
        with pytest.raises(ValueRefusedError):
            from_ms_or_us(bad)


def test_the_clock_offset_is_the_least_delayed_difference_of_any_size() -> None:
    two_years = -2 * 365 * 86_400 * 1_000_000
    offset = ClockOffset()
    assert offset.us == 0
    for n in range(200):
        delay = 5_000 + (n * 7919 % 40_000)
        offset.sample(1_000_000_000_000 + two_years - delay, 1_000_000_000_000)
    assert two_years - 12_000 < offset.us <= two_years - 5_000


def test_the_clock_offset_follows_a_step_of_our_clock() -> None:
    offset = ClockOffset()
    for _ in range(128):
        offset.sample(1_000_000, 1_000_000)
    for _ in range(64):
        offset.sample(1_000_000, 6_000_000)
    assert offset.us == -5_000_000
