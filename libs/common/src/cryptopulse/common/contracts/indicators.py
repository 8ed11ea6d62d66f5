"""Indicator values and signals, as published by the owner of a shard."""

from __future__ import annotations

from typing import Literal

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.intervals import Interval

SignalStatus = Literal["pending", "confirmed", "withdrawn"]


class Warmup(Message):
    """How many bars the values rest on, how many they need, and whether every seeding agrees by now."""

    have: int
    needed: int
    converged: bool


class IndicatorUpdate(Message):
    """All live outputs of one (symbol, source, interval) at one bar. A value is None when undefined, never 0 or NaN.

    `closed` false: the forming bar. Final exactly once per `revision` with `closed` true. `as_of_us` is the event
    time up to which trades are in it.
    """

    symbol: str
    source: str
    interval: Interval
    open_time: int
    closed: bool
    revision: int
    as_of_us: int
    seq: int
    values: dict[str, float | None]
    warmup: Warmup
    close: float | None = None
    simulated: bool = False
    anchor: int | None = None
    """Open time in ms of the first bar of the fold: path-dependent values (OBV, ADL) count from it."""


class IndicatorBatch(Message):
    """Indicator values of one shard and interval.

    Of closed bars, `offsets[i]` numbers `updates[i]` within its (symbol, source, interval) and the `epoch`: from 1, by 1.
    """

    shard: int
    epoch: int
    interval: Interval
    updates: list[IndicatorUpdate]
    offsets: list[int] = []


class Signal(Message):
    """An event on indicator values: a cross, a zone, a squeeze, a breakout. `id` is stable over status changes.

    `offset` numbers the signals of a symbol within the owner's `epoch`: from 1, by 1.
    """

    id: str
    kind: str
    symbol: str
    source: str
    interval: Interval
    open_time: int
    status: SignalStatus
    direction: Literal["up", "down", "none"]
    at_us: int
    values: dict[str, float | None] = {}
    simulated: bool = False
    epoch: int = 0
    offset: int = 0
