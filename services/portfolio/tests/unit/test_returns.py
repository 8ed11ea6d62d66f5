"""Returns and risk: the edges that a formula alone gets wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.portfolio.domain.returns import (
    Known,
    annualised,
    average_invested,
    linked,
    money_weighted,
    time_weighted,
)
from cryptopulse.portfolio.domain.risk import calmar, max_drawdown, sharpe, sortino, volatility
from cryptopulse.portfolio.domain.series import filled

D = Decimal


def rate(*flows: tuple[int, str]) -> Any:
    return money_weighted({day: D(amount) for day, amount in flows})


def test_a_rotation_within_a_day_dilutes_nothing_when_flows_are_netted() -> None:
    days = linked([(1, D(110))], {1: D(110) - D(110)}, before=D(100))
    assert days[0].result == D("0.1")


def test_a_deposit_is_neutral_and_a_withdrawal_counts_until_the_end_of_its_day() -> None:
    days = linked([(1, D(210)), (2, D(105))], {1: D(100), 2: D(-126)}, before=D(100))
    assert days[0].result == D("0.05")
    assert days[1].result == D("0.1")
    assert time_weighted(days) == D("0.155")


def test_a_day_without_a_value_is_linked_over() -> None:
    days = linked([(1, None), (2, D(220))], {1: D(100)}, before=D(100))
    assert [day.result for day in days] == [None, D("0.1")]


def test_nothing_in_means_no_return() -> None:
    assert [d.result for d in linked([(1, D(0)), (2, D(5))], {})] == [0, 0]
    assert time_weighted([]) is None


@pytest.mark.parametrize(
    ("flows", "reason"),
    [
        ([(0, "-100"), (10, "-5")], "no-sign-change"),
        ([(5, "-100")], "no-sign-change"),
        ([], "no-sign-change"),
        ([(5, "0")], "no-sign-change"),
        ([(0, "-1"), (1, "1000000")], "no-root"),
    ],
)
def test_a_rate_that_is_not_there_is_none_with_a_reason(flows: list[tuple[int, str]], reason: str) -> None:
    found = rate(*flows)
    assert found.annual == Known(None, reason)


def test_flows_of_one_day_have_no_rate() -> None:
    assert money_weighted({7: D(5)}).annual.value is None


def test_a_year_doubles_and_the_period_follows() -> None:
    assert rate((0, "-100"), (365, "200")).annual.value == pytest.approx(1.0)
    half = rate((0, "-100"), (73, "110"))
    assert half.annual.value == pytest.approx(1.1**5 - 1)
    assert half.period.value == pytest.approx(0.1)


def test_several_roots_are_said_and_the_nearest_to_zero_is_taken() -> None:
    found = rate((0, "-100"), (365, "230"), (730, "-132"))
    assert found.multiple_roots is True
    assert found.annual.value == pytest.approx(0.1)


def test_a_loss_of_nearly_everything_has_a_rate() -> None:
    assert rate((0, "-100"), (365, "0.01")).annual.value == pytest.approx(-0.9999)


def test_short_periods_are_not_blown_up_to_a_year() -> None:
    assert annualised(D("0.1"), 364).reason == "shorter-than-a-year"
    assert annualised(D("0.21"), 730).value == pytest.approx(0.1)
    assert annualised(D(-1), 400).value == -1.0


def test_average_invested_weighs_by_time_and_skips_days_without_capital() -> None:
    assert average_invested([(0, D(100)), (10, D(200))], 0, 20) == 150
    assert average_invested([(0, D(100)), (10, D(0)), (20, D(300))], 0, 30) == 200
    assert average_invested([(5, D(70))], 5, 5) == 70


def test_a_drawdown_begins_at_the_first_value_and_ends_only_above_the_peak() -> None:
    found = max_drawdown([-0.5, 1.0, 0.1])
    assert (found.depth, found.peak, found.trough, found.recovered) == (-0.5, -1, 0, 2)
    assert max_drawdown([0.1, 0.1]).depth == 0.0
    assert max_drawdown([0.1, -0.2]).recovered is None


def test_risk_figures_against_worked_values() -> None:
    returns = [0.01, -0.01] * 20
    spread = (40 * 0.0001 / 39) ** 0.5
    assert volatility(returns).value == pytest.approx(spread * 365**0.5)
    assert sharpe([0.02, 0.0] * 20).value == pytest.approx(0.01 / spread * 365**0.5)
    assert sortino([0.02, -0.01] * 20).value == pytest.approx(0.005 / (0.0001 / 2) ** 0.5 * 365**0.5)
    assert calmar(Known(0.3), -0.1).value == pytest.approx(3.0)


def test_spreads_of_too_little_or_nothing_are_none() -> None:
    assert volatility([0.1] * 29).reason == "fewer-than-30-returns"
    assert sharpe([0.1] * 40).reason == "no-variation"
    assert sortino([0.1] * 40).reason == "no-downside"
    assert calmar(Known(0.1), 0.0).reason == "no-drawdown"


def test_closes_are_carried_seven_days_and_no_longer() -> None:
    prices, carried = filled({0: D(5)}, 1, 9)
    assert prices == [D(5)] * 7 + [None, None]
    assert carried == set(range(1, 8))
