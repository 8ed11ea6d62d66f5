"""Request budgets: token pools of a venue and address, and who may spend the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, Literal

from cryptopulse.common.contracts.intervals import next_open, open_time

Unit = Literal["weight", "call"]


class Priority(IntEnum):
    """Who goes first. Each class leaves a part of every pool to those above it."""

    REPAIR = 0
    LIVE = 1
    HISTORY = 2
    CATALOGUE = 3


SMALL_POOL: Final = 5
"""Pools of fewer units are not divided among the classes."""
RESERVE: Final = {Priority.REPAIR: 0.0, Priority.LIVE: 0.1, Priority.HISTORY: 0.3, Priority.CATALOGUE: 0.2}
"""The share of a pool that a class may not touch. History is patient and hungry, so it leaves most."""


@dataclass(frozen=True, slots=True)
class PoolRule:
    """One pool: `capacity` units that refill evenly over `period_seconds`. `unit` says what a call takes.

    `weight`: the call's weight, `call`: one per call. A `month` pool does not refill before the calendar month (UTC) ends.
    """

    name: str
    capacity: int
    period_seconds: float
    unit: Unit = "weight"
    calendar: Literal["", "month"] = ""

    @property
    def rate(self) -> float:
        """Units that come back per second."""
        return self.capacity / self.period_seconds


def floor_of(rule: PoolRule, priority: Priority) -> float:
    """What a class must leave in a pool."""
    return 0.0 if rule.capacity < SMALL_POOL else rule.capacity * RESERVE[priority]


def cost_of(rule: PoolRule, weight: float, priority: Priority) -> float:
    """What a call takes from a pool; never more than the class can ever have, so that nothing waits for ever."""
    cost = weight if rule.unit == "weight" else 1.0
    return min(cost, rule.capacity - floor_of(rule, priority))


def month_of(now_ms: int) -> tuple[str, int]:
    """The calendar month (UTC) as `2026-11`, and when it ends in ms."""
    start = open_time(now_ms, "1M")
    day = datetime.fromtimestamp(start / 1000, UTC)
    return f"{day.year:04d}-{day.month:02d}", next_open(start, "1M")


@dataclass(slots=True)
class TokenPool:
    """A pool in this process, for when the shared one cannot be reached. Times in ms of our clock."""

    rule: PoolRule
    left: float
    updated_ms: int
    window: str = ""

    @classmethod
    def full(cls, rule: PoolRule, now_ms: int) -> TokenPool:
        """A pool that nobody has used."""
        return cls(rule, float(rule.capacity), now_ms, month_of(now_ms)[0])

    def wait_ms(self, weight: float, priority: Priority, now_ms: int) -> float:
        """0 when the call may be made now, else when to ask again."""
        self._refill(now_ms)
        missing = cost_of(self.rule, weight, priority) + floor_of(self.rule, priority) - self.left
        if missing <= 1e-9:
            return 0.0
        return month_of(now_ms)[1] - now_ms if self.rule.calendar else missing / self.rule.rate * 1_000

    def spend(self, weight: float, priority: Priority) -> None:
        """Take the call's cost; after `wait_ms` was 0."""
        self.left -= cost_of(self.rule, weight, priority)

    def correct(self, used: float, now_ms: int) -> None:
        """The venue counts `used` units of the present period: never believe to have more left than that."""
        self._refill(now_ms)
        self.left = min(self.left, self.rule.capacity - used)

    def _refill(self, now_ms: int) -> None:
        if self.rule.calendar:
            window, _ = month_of(now_ms)
            if window != self.window:
                self.window, self.left = window, float(self.rule.capacity)
        else:
            gone = max(0, now_ms - self.updated_ms) / 1_000
            self.left = min(float(self.rule.capacity), self.left + gone * self.rule.rate)
        self.updated_ms = now_ms
