"""All indicators of one (symbol, source, interval): `commit` a closed bar, look at a forming one with `provisional`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from cryptopulse.common.contracts.indicators import Warmup
from cryptopulse.indicators.domain import fused
from cryptopulse.indicators.domain.points import Point, Scale, Window
from cryptopulse.indicators.domain.study import State, Study


class IndicatorSeries:
    """The state machine of one series. Bars come oldest first, each once.

    `provisional(bar)` changes nothing and returns what `commit(bar)` would, to the last bit.
    `anchor` is the open time in ms of the first bar ever committed.
    """

    __slots__ = (
        "_look", "_others", "_parts", "_place", "anchor", "last_open", "names", "needed", "scale", "settle", "states",
        "studies", "window",
    )  # fmt: skip

    def __init__(self, studies: Sequence[Study], scale: Scale) -> None:
        self.studies = tuple(studies)
        self.scale = scale
        self.window = Window()
        self.states: list[State] = [study.initial() for study in self.studies]
        self.names = tuple(name for study in self.studies for name in study.outputs)
        self.needed = max((study.needed for study in self.studies), default=1)
        self.settle = max((study.settle for study in self.studies), default=1)
        self.anchor: int | None = None
        self.last_open: int | None = None
        self._parts = fused.positions(self.studies)
        self._others = [at for at in range(len(self.studies)) if at not in (self._parts or ())]
        ordered = [*(self._parts or ()), *self._others]
        shown = [name for at in ordered for name in self.studies[at].outputs]
        self._place = None if shown == list(self.names) else itemgetter(*map(shown.index, self.names))
        self._look: fused.Look | None = None

    def provisional(self, bar: Point) -> list[float | None]:
        """The values as if `bar` closed now, in the order of `names`."""
        look = self._look or self.arm()
        if look is None:
            looked: list[float | None] = []
            for study, state in zip(self.studies, self.states, strict=True):
                looked.extend(study.evaluate(state, self.window, bar)[0])
            return looked
        values = [*look(bar)]
        for at in self._others:
            values.extend(self.studies[at].evaluate(self.states[at], self.window, bar)[0])
        return values if self._place is None else list(self._place(values))

    def arm(self) -> fused.Look | None:
        """The fused look at the bar that follows; None in warm-up and where its parts are not in the set."""
        if self._parts is None:
            return None
        self._look = fused.arm([self.states[at] for at in self._parts], self.window, self.scale)
        return self._look

    def commit(self, bar: Point) -> list[float | None]:
        """Take a closed bar in and return its final values. Bars that are not newer than the last are refused."""
        if self.last_open is not None and bar.open_time <= self.last_open:
            raise ValueError(f"bar {bar.open_time} is not after {self.last_open}")
        window = self.window
        values: list[float | None] = []
        states: list[State] = []
        for study, state in zip(self.studies, self.states, strict=True):
            found, carry = study.evaluate(state, window, bar)
            states.append(study.advance(state, window, bar, carry))
            values.extend(found)
        self.states = states
        self._look = None
        window.push(bar)
        self.last_open = bar.open_time
        if self.anchor is None:
            self.anchor = bar.open_time
        return values

    @property
    def warmup(self) -> Warmup:
        """How far the whole set is."""
        return self.warmup_at(self.window.count)

    def warmup_at(self, have: int) -> Warmup:
        """The same after `have` bars."""
        return Warmup(have=have, needed=self.needed, converged=have >= self.settle)

    def state(self) -> tuple[int, int | None, int | None, list[Any]]:
        """What cannot be read back from stored bars: count, anchor, last bar and the studies' states."""
        return (self.window.count, self.anchor, self.last_open, list(self.states))

    def restore(self, state: tuple[int, int | None, int | None, list[Any]], bars: Iterable[Point]) -> None:
        """Go on from a saved state; `bars` are the newest closed ones up to its last, oldest first, for the windows."""
        count, self.anchor, self.last_open, states = state
        if len(states) != len(self.studies):
            raise ValueError(f"a state of {len(states)} studies, {len(self.studies)} are live")
        self.window = Window()
        for bar in bars:
            if self.last_open is not None and bar.open_time <= self.last_open:
                self.window.push(bar)
        self.window.count = count
        self.states = list(states)
        self._look = None

    def twin(self) -> IndicatorSeries:
        """An independent copy: committing to one does not touch the other."""
        other = IndicatorSeries(self.studies, self.scale)
        other.window = self.window.copy()
        other.states = list(self.states)
        other.anchor, other.last_open = self.anchor, self.last_open
        return other


MAX_PACKED_INT = 2**63 - 1


def encodable(value: Any) -> Any:
    """States as msgpack can carry them: integers beyond 64 bits become text with a mark."""
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_PACKED_INT:
        return f"i{value:x}"
    return value


def decoded(value: Any) -> Any:
    """The inverse of `encodable`; sequences come back as tuples, the outermost levels as `restore` wants them."""
    count, anchor, last_open, states = value
    return (count, anchor, last_open, [_decoded(state) for state in states])


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(item) for item in value)
    if isinstance(value, str):
        return int(value[1:], 16)
    return value
