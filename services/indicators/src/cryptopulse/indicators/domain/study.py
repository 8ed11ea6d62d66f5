"""What an indicator is: a pure evaluation of the bar at hand, and the state that a committed bar leaves behind.

`evaluate` never changes anything, and committing uses its result, so a forming value and the final one of the same
bar are equal to the last bit by construction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from cryptopulse.common.contracts.indicators import Warmup
from cryptopulse.indicators.domain.points import Point, Window

Values = tuple[float | None, ...]
State = Any
"""Immutable: numbers and (nested) tuples of numbers, so that a checkpoint is a reference."""
Carry = Any
Nested = tuple[Any, ...]
"""A state of nested tuples of numbers."""


class Study(Protocol):
    """One indicator with fixed parameters.

    `outputs` name its values. `needed` is the number of bars (this one included) until the first value; `settle` the
    number until every usual seeding agrees to 1e-9. `anchored`: values depend on the first bar for ever.
    """

    outputs: tuple[str, ...]
    needed: int
    settle: int
    anchored: bool

    def initial(self) -> State:
        """The state before the first bar."""
        ...

    def evaluate(self, state: State, window: Window, bar: Point) -> tuple[Values, Carry]:
        """The values at `bar`, which follows the closed bars of `window`, and what `advance` needs. Pure."""
        ...

    def advance(self, state: State, window: Window, bar: Point, carry: Carry) -> State:
        """The state after `bar` is committed; `window` does not hold `bar` yet. Pure."""
        ...


def warmup_of(studies: Iterable[Study], have: int, outputs: Collection[str] | None = None) -> Warmup:
    """The warm-up after `have` bars of those studies that give one of `outputs`, of all where None."""
    shown = [study for study in studies if outputs is None or not set(study.outputs).isdisjoint(outputs)]
    needed = max((study.needed for study in shown), default=1)
    settle = max((study.settle for study in shown), default=1)
    return Warmup(have=have, needed=needed, converged=have >= settle)


class Base:
    """Defaults that most studies share."""

    anchored = False
    outputs: tuple[str, ...]
    needed: int
    settle: int

    def initial(self) -> State:
        return None

    def advance(self, state: State, window: Window, bar: Point, carry: Carry) -> State:
        return carry


def float_label(value: float) -> str:
    """A parameter as part of an output's name: `2.0` -> `2`, `0.02` -> `0.02`."""
    return str(int(value)) if float(value).is_integer() else str(value)
