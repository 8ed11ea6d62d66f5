"""Daily values of a book from its day ends and closes: V_d = sum of quantity(end of d) * close_d, per asset, not per day.

A day without a close carries the last one for at most seven days, flagged; after that the value is unknown, not 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from cryptopulse.portfolio.domain.book import DayEnd
from cryptopulse.portfolio.domain.money import ZERO, money_context

CARRY_DAYS: Final = 7


@dataclass(slots=True)
class AssetSeries:
    """One asset over a window of days: value at each day's end (None unknown), net flow by day, days with a carried close."""

    asset: str
    values: list[Decimal | None]
    flows: dict[int, Decimal]
    carried: set[int]


@dataclass(slots=True)
class Series:
    """A whole book over the days [first, last]; `left_out` are assets without any close, with their flows."""

    first: int
    last: int
    assets: list[AssetSeries]
    values: list[Decimal | None]
    flows: dict[int, Decimal]
    invested: list[tuple[int, Decimal]]
    left_out: list[str] = field(default_factory=list)

    def carried(self) -> dict[int, list[str]]:
        """Assets whose close is an older one, by day."""
        found: dict[int, list[str]] = {}
        for asset in self.assets:
            for day in asset.carried:
                found.setdefault(day, []).append(asset.asset)
        return found


def day_ends_by_asset(days: Sequence[DayEnd]) -> dict[str, list[DayEnd]]:
    """The day ends of each asset in order; a later record of the same day replaces an earlier one."""
    found: dict[str, dict[int, DayEnd]] = {}
    for end in days:
        found.setdefault(end.asset, {})[end.day] = end
    return {asset: [by_day[day] for day in sorted(by_day)] for asset, by_day in found.items()}


def daily_series(
    ends: Mapping[str, Sequence[DayEnd]],
    closes: Mapping[str, Mapping[int, Decimal]],
    first: int,
    last: int,
    rates: Mapping[int, Decimal] | None = None,
) -> Series:
    """The series over [first, last]. `rates` are USD per unit of the base currency by day; None: the base is the dollar."""
    with money_context():
        length = last - first + 1
        rate_list = None if rates is None else filled(rates, first, last)[0]
        assets: list[AssetSeries] = []
        left_out: list[str] = []
        for asset, records in sorted(ends.items()):
            if not closes.get(asset) and any(record.quantity for record in records):
                left_out.append(asset)
                continue
            assets.append(_asset_series(asset, records, closes.get(asset, {}), first, last, rate_list))
        values: list[Decimal | None] = [ZERO] * length
        for asset_series in assets:
            values = [
                None if total is None or value is None else total + value
                for total, value in zip(values, asset_series.values, strict=True)
            ]
        flows: dict[int, Decimal] = {}
        for asset_series in assets:
            for day, flow in asset_series.flows.items():
                flows[day] = flows.get(day, ZERO) + flow
        return Series(first, last, assets, values, flows, _invested(ends, left_out), left_out)


def _asset_series(
    asset: str,
    records: Sequence[DayEnd],
    closes: Mapping[int, Decimal],
    first: int,
    last: int,
    rates: Sequence[Decimal | None] | None,
) -> AssetSeries:
    prices, carried = filled(closes, first, last)
    if rates is not None:
        prices = [
            None if price is None or not rate else price / rate
            for price, rate in zip(prices, rates, strict=True)
        ]
    values: list[Decimal | None] = []
    held: set[int] = set()
    flows: dict[int, Decimal] = {}
    flow_before = ZERO
    steps = [*records, None]
    quantity, day = ZERO, first
    for record in steps:
        until = last + 1 if record is None else min(max(record.day, first), last + 1)
        if until > day:
            part = prices[day - first : until - first]
            if quantity:
                values += [None if price is None else quantity * price for price in part]
                held.update(range(day, until))
            else:
                values += [ZERO] * len(part)
            day = until
        if record is not None:
            if record.day <= last:
                quantity = record.quantity
            net = record.flow_in - record.flow_out
            if first <= record.day <= last and net != flow_before:
                flows[record.day] = net - flow_before
            flow_before = net
    return AssetSeries(asset, values, flows, carried & held)


def filled(closes: Mapping[int, Decimal], first: int, last: int) -> tuple[list[Decimal | None], set[int]]:
    """A close for each day, carried at most seven days; and which days carry."""
    prices: list[Decimal | None] = []
    carried: set[int] = set()
    known = next((closes[day] for day in range(first - 1, first - 1 - CARRY_DAYS, -1) if day in closes), None)
    age = next((first - day for day in range(first - 1, first - 1 - CARRY_DAYS, -1) if day in closes), 0) - 1
    for day in range(first, last + 1):
        close = closes.get(day)
        if close is not None:
            known, age = close, 0
            prices.append(close)
            continue
        age += 1
        if known is not None and age <= CARRY_DAYS:
            carried.add(day)
            prices.append(known)
        else:
            prices.append(None)
    return prices, carried


def _invested(ends: Mapping[str, Sequence[DayEnd]], left_out: Sequence[str]) -> list[tuple[int, Decimal]]:
    """Steps (day, capital invested from then on, fees left out)."""
    changes: dict[int, Decimal] = {}
    for asset, records in ends.items():
        before = ZERO
        for record in records if asset not in left_out else ():
            changes[record.day] = changes.get(record.day, ZERO) + record.bare - before
            before = record.bare
    total = ZERO
    steps = []
    for day in sorted(changes):
        total += changes[day]
        steps.append((day, total))
    return steps
