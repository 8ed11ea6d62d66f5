"""Indicators of one shard: closed bars are committed, forming ones looked at, corrected series rebuilt from stored bars."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Warmup
from cryptopulse.common.contracts.intervals import PUBLIC_INTERVALS, Interval, next_open
from cryptopulse.indicators.application.ports import CandleStore
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries, decoded, encodable
from cryptopulse.indicators.domain.points import MIN_DIGITS, Point, Scale, ScaleExceededError, digits_of
from cryptopulse.indicators.domain.registry import DEFINITION_VERSION, live_studies

Key = tuple[str, str, Interval]
WARM_BARS: Final = 1_000
KEPT_FINALS: Final = 20
YIELD_EVERY: Final = 40
"""Bars folded between two looks at the loop: about two milliseconds."""


def point_of(
    bar: Bar | Candle, interval: Interval, scale: Scale, *, as_of: int | None = None, fraction: float = 1.0
) -> Point:
    """A bar as indicators read it. Raises `ScaleExceededError` when it has more decimals than the series."""
    price, integer = scale.price_factor, Scale.integer
    return Point(
        bar.open_time,
        integer(bar.open, price),
        integer(bar.high, price),
        integer(bar.low, price),
        integer(bar.close, price),
        integer(bar.volume, scale.volume_factor),
        scale,
        as_of=next_open(bar.open_time, interval) if as_of is None else as_of,
        fraction=fraction,
    )


def scale_of(bars: Iterable[Bar | Candle], least: Scale | None = None) -> Scale:
    """A scale that holds all of these bars, no smaller than `least`."""
    price, volume = (MIN_DIGITS,) * 2 if least is None else (least.price_digits, least.volume_digits)
    for bar in bars:
        price = max(price, *map(digits_of, (bar.open, bar.high, bar.low, bar.close)))
        volume = max(volume, digits_of(bar.volume))
    return Scale(price, volume)


def points_of(bars: Sequence[Bar | Candle], interval: Interval) -> tuple[Scale, list[Point]]:
    """Closed bars as indicators read them, and the scale that holds them all.

    Nearly all fit the smallest scale, and values do not depend on the scale: digits are counted only where they do not.
    """
    scale = Scale()
    try:
        return scale, [point_of(bar, interval, scale) for bar in bars]
    except ScaleExceededError:
        scale = scale_of(bars)
        return scale, [point_of(bar, interval, scale) for bar in bars]


class SavedSeries(msgspec.Struct, array_like=True):
    """A series' state as it is stored: useless under another definition version."""

    version: int
    price_digits: int
    volume_digits: int
    seq: int
    revision: int
    state: list[Any]
    changed_from: int | None = None
    """Set where the state is worthless: a bar from this open time on was corrected, and the fold is not done yet."""
    told_until: int | None = None
    """Open time of the newest final values that were told; `told_from` is the oldest that is told anew when bars appear."""
    anchor: int | None = None
    told_from: int | None = None
    before: list[float | None] | None = None
    """The values that were told at `told_until`, and which zones they are inside of: signals go on from them."""
    inside: list[str] = []


class LiveSeries:
    """One live series with what surrounds it."""

    __slots__ = (
        "anchor",
        "backlog",
        "core",
        "finals",
        "inside",
        "least_scale",
        "revision",
        "seq",
        "told_from",
        "told_until",
    )

    def __init__(self) -> None:
        self.core: IndicatorSeries | None = None
        self.backlog: list[Bar] = []
        self.seq = 0
        self.revision = 0
        """How often values that were final were corrected."""
        self.finals: dict[int, tuple[float | None, ...]] = {}
        """The newest final values as they were told, by open time."""
        self.inside: list[str] = []
        """Zones of signals that the newest final values are inside of."""
        self.told_until: int | None = None
        self.told_from: int | None = None
        self.anchor: int | None = None
        """Where a saved state began, until there is a core again."""
        self.least_scale = Scale()
        """What forming bars needed: the stored ones alone may get by with fewer decimals."""

    def is_untold(self, open_time: int) -> bool:
        """Whether this closed bar is newer than all whose values were told: an owner before us did not come to it."""
        return self.told_until is not None and open_time > self.told_until

    def told(self, open_time: int, values: Sequence[float | None]) -> None:
        """Remember what was told as final."""
        self.finals[open_time] = tuple(values)
        self.told_until = max(open_time, self.told_until or open_time)
        self.told_from = open_time if self.told_from is None else min(self.told_from, open_time)
        while len(self.finals) > KEPT_FINALS:
            del self.finals[next(iter(self.finals))]
            self.told_from = max(self.told_from, next(iter(self.finals)))


class IndicatorBook:
    """All live series of a shard. `dirty` are series that must be built, or rebuilt after a correction."""

    def __init__(self, store: CandleStore, *, warm_bars: int = WARM_BARS) -> None:
        self._store = store
        self._warm_bars = warm_bars
        self.series: dict[Key, LiveSeries] = {}
        self.dirty: dict[Key, int | None] = {}
        """Series to rebuild -> open time of the first bar that changed, None when it is only being built."""
        self.changed: set[Key] = set()
        """Series whose state is newer than what is saved."""
        self.untold: list[IndicatorUpdate] = []
        """Final values of bars that closed before our time and were not told; the caller takes them."""
        self.primes: list[tuple[Key, int, dict[str, float | None], list[str]]] = []
        """The final values that restored series told last, with the zones they are inside of; the caller takes them."""
        self.marked: set[Key] = set()
        """Series whose saved state is worthless since a correction, and not yet said to be."""

    def follow(self, symbol: str, source: str) -> None:
        """Have every interval of this symbol and source live."""
        for interval in PUBLIC_INTERVALS:
            key = (symbol, source, interval)
            if key not in self.series:
                self.series[key] = LiveSeries()
                self.dirty[key] = None

    def mark(self, key: Key, changed_from: int) -> None:
        """A bar that was committed has changed: the series is rebuilt, and its saved state is no longer good."""
        known = self.dirty.get(key)
        self.dirty[key] = changed_from if known is None else min(known, changed_from)
        self.marked.add(key)

    def note_history(self, key: Key, open_time: int, *, corrected: bool) -> None:
        """A stored bar was made or changed. What was told as final after it is told anew where its values changed."""
        live = self.series.get(key)
        if live is None:
            return
        last = -1 if live.core is None or live.core.last_open is None else live.core.last_open
        told = -1 if live.told_until is None else live.told_until
        if open_time > max(last, told):
            self.dirty.setdefault(key, None)
        elif corrected:
            self.mark(key, open_time)
        else:
            self.mark(key, max(open_time, max(last, told) + 1 if live.told_from is None else live.told_from))

    def on_closed(
        self, symbol: str, source: str, interval: Interval, bar: Bar, *, as_of_us: int
    ) -> IndicatorUpdate | None:
        """A bar closed: its final values, None while the series is being built or when the bar corrects an older one."""
        key = (symbol, source, interval)
        live = self.series.get(key)
        if live is None:
            return None
        core = live.core
        corrects = core is not None and core.last_open is not None and bar.open_time <= core.last_open
        if core is None or corrects or key in self.dirty:
            live.backlog.append(bar)
            if live.told_until is None and core is None:
                # From here on everything is to be told, whoever owns the series when it is built.
                live.told_until, live.told_from = bar.open_time - 1, bar.open_time
                self.mark(key, bar.open_time)
            elif corrects or (live.told_until is not None and bar.open_time <= live.told_until):
                self.mark(key, bar.open_time)
            return None
        try:
            values = core.commit(point_of(bar, interval, core.scale))
        except ScaleExceededError:
            self.dirty[key] = None
            live.backlog.append(bar)
            return None
        live.told(bar.open_time, values)
        self.changed.add(key)
        return self._update(key, live, core, bar, values, closed=True, as_of_us=as_of_us)

    def _update(
        self,
        key: Key,
        live: LiveSeries,
        core: IndicatorSeries,
        bar: Bar | Candle,
        values: Sequence[float | None],
        *,
        closed: bool,
        as_of_us: int,
    ) -> IndicatorUpdate:
        live.seq += 1
        have = core.window.count + (0 if closed else 1)
        return IndicatorUpdate(
            symbol=key[0],
            source=key[1],
            interval=key[2],
            open_time=bar.open_time,
            closed=closed,
            revision=bar.revision,
            as_of_us=as_of_us,
            seq=live.seq,
            values=dict(zip(core.names, values, strict=True)),
            warmup=Warmup(have=have, needed=core.needed, converged=have >= core.settle),
            close=float(bar.close),
            simulated=bar.simulated,
            anchor=core.anchor,
        )

    def provisional(self, key: Key, bar: Bar, *, now_ms: int) -> IndicatorUpdate | None:
        """Values of a forming bar at a time on the venue's clock; None while the series is being built."""
        live = self.series.get(key)
        core = live.core if live is not None else None
        if live is None or core is None or key in self.dirty:
            return None
        if core.last_open is not None and bar.open_time <= core.last_open:
            return None
        interval = key[2]
        end = next_open(bar.open_time, interval)
        as_of = min(max(now_ms, bar.open_time + 1), end)
        fraction = (as_of - bar.open_time) / (end - bar.open_time)
        try:
            point = point_of(bar, interval, core.scale, as_of=as_of, fraction=fraction)
        except ScaleExceededError:
            live.least_scale = scale_of([bar], live.least_scale)
            self.dirty[key] = None
            return None
        return self._update(
            key, live, core, bar, core.provisional(point), closed=False, as_of_us=as_of * 1000
        )

    # --- building ------------------------------------------------------------------------------------------------

    async def rebuild(self, key: Key) -> list[IndicatorUpdate]:
        """Fold the stored bars anew and swap the series in; answers corrected final values, oldest first.

        Bars that close meanwhile wait in the backlog and are committed at the end, in order.
        """
        symbol, source, interval = key
        live = self.series[key]
        changed_from = self.dirty.get(key)
        anchor = live.core.anchor if live.core is not None else live.anchor
        bars = await self._bars(symbol, source, interval, anchor, live)
        core = IndicatorSeries(live_studies(interval), scale_of(bars, live.least_scale))
        waited = {bar.open_time for bar in live.backlog}
        found: list[tuple[Candle | Bar, list[float | None], int]] = []
        for count, bar in enumerate(bars, 1):
            values = core.commit(point_of(bar, interval, core.scale))
            changed = changed_from is not None and bar.open_time >= changed_from
            if bar.open_time in waited or changed or live.is_untold(bar.open_time):
                found.append((bar, values, count))
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if {bar.open_time for bar in live.backlog} != waited or self.dirty.get(key) != changed_from:
            return []  # something closed or was corrected meanwhile: the next round has it
        live.core = core
        updates = self._told_anew(key, live, core, found)
        live.backlog = []
        self.dirty.pop(key, None)
        self.marked.discard(key)
        self.changed.add(key)
        return updates

    def _told_anew(
        self,
        key: Key,
        live: LiveSeries,
        core: IndicatorSeries,
        found: list[tuple[Candle | Bar, list[float | None], int]],
    ) -> list[IndicatorUpdate]:
        """Updates of bars that were never told, and of those whose values are not what was told, under a new revision."""
        changed = [item for item in found if live.finals.get(item[0].open_time) != tuple(item[1])]
        until = -1 if live.told_until is None else live.told_until
        if any(bar.open_time <= until or bar.revision for bar, _, _ in changed):
            live.revision += 1
        updates = []
        for bar, values, have in changed:
            again = bar.open_time <= until or bar.revision > 0
            live.told(bar.open_time, values)
            update = self._update(
                key, live, core, bar, values, closed=True, as_of_us=next_open(bar.open_time, key[2]) * 1000
            )
            updates.append(
                msgspec.structs.replace(
                    update,
                    revision=live.revision if again else 0,
                    warmup=core.warmup_at(have),
                )
            )
        return updates

    async def _bars(
        self, symbol: str, source: str, interval: Interval, anchor: int | None, live: LiveSeries
    ) -> list[Candle | Bar]:
        """Stored bars from the anchor on (the newest of a bounded number), with waiting ones that are not stored yet."""
        limit = self._warm_bars
        stored = await self._store.range(symbol, source, interval, from_ms=None, to_ms=None, limit=limit)
        if anchor is not None and stored and stored[0].open_time > anchor:
            stored = await self._store.range(
                symbol, source, interval, from_ms=None, to_ms=None, limit=20 * limit
            )
            stored = [bar for bar in stored if bar.open_time >= anchor]
        newest = {bar.open_time: bar for bar in live.backlog}
        merged: dict[int, Candle | Bar] = {bar.open_time: bar for bar in stored}
        for at, bar in newest.items():
            known = merged.get(at)
            if known is None or bar.revision >= known.revision:
                merged[at] = bar
        return [merged[at] for at in sorted(merged)]

    # --- states --------------------------------------------------------------------------------------------------

    def take_states(self) -> dict[str, bytes]:
        """States that changed since the last call, encoded, by `<symbol>|<source>|<interval>`."""
        found = {}
        for key in self.changed:
            live = self.series[key]
            if live.core is None or self.dirty.get(key) is not None:
                continue
            found["|".join(key)] = _saved(live, live.core, encodable(live.core.state()), None)
        self.changed = set()
        return found

    def marks(self) -> dict[str, bytes]:
        """What must replace the saved states of `marked` series before the effect of the correction may be acked."""
        found = {}
        for key in self.marked:
            live = self.series[key]
            found["|".join(key)] = _saved(live, live.core, [], self.dirty.get(key))
        return found

    async def restore(self, states: dict[str, bytes], pending: Sequence[Candle]) -> int:
        """Go on from saved states: read back the bars of their windows, commit what closed since. Answers how many.

        A series whose state cannot be used is built from stored bars.
        """
        restored = 0
        waiting: dict[Key, list[Candle]] = {}
        for candle in pending:
            waiting.setdefault((candle.symbol, candle.source, candle.interval), []).append(candle)
        for name, packed in states.items():
            symbol, source, interval = name.split("|")
            key: Key = (symbol, source, cast("Interval", interval))
            live = self.series.setdefault(key, LiveSeries())
            self.dirty.setdefault(key, None)
            saved = msgspec.msgpack.decode(packed, type=SavedSeries)
            if saved.version != DEFINITION_VERSION:
                continue
            live.seq, live.revision = saved.seq, saved.revision
            live.told_until, live.told_from, live.anchor = saved.told_until, saved.told_from, saved.anchor
            for bar in live.backlog:
                if saved.told_until is not None and bar.open_time <= saved.told_until:
                    self.mark(key, bar.open_time)
            if saved.changed_from is not None:
                self.mark(key, saved.changed_from)
                continue
            if await self._resume(key, live, saved, waiting.get(key, [])):
                restored += 1
        return restored

    async def _resume(self, key: Key, live: LiveSeries, saved: SavedSeries, pending: list[Candle]) -> bool:
        state = decoded(saved.state)
        symbol, source, interval = key
        core = IndicatorSeries(live_studies(interval), Scale(saved.price_digits, saved.volume_digits))
        stored = await self._store.range(symbol, source, interval, from_ms=None, to_ms=None, limit=1_600)
        merged: dict[int, Candle] = {bar.open_time: bar for bar in stored}
        for bar in pending:
            merged[bar.open_time] = bar
        bars = [merged[at] for at in sorted(merged)]
        last = state[2]
        if last is None or last not in merged:
            return False
        try:
            points = [point_of(bar, interval, core.scale) for bar in bars]
            core.restore(state, points)
            newer = [
                (bar, core.commit(point))
                for bar, point in zip(bars, points, strict=True)
                if bar.open_time > last
            ]
        except (ScaleExceededError, ValueError):
            return False
        live.core = core
        live.inside = saved.inside
        if saved.before is not None and saved.told_until is not None:
            told = dict(zip(core.names, saved.before, strict=True))
            self.primes.append((key, saved.told_until, told, saved.inside))
            live.finals[saved.told_until] = tuple(saved.before)
        found = [
            (bar, values, core.window.count - len(newer) + at)
            for at, (bar, values) in enumerate(newer, 1)
            if live.is_untold(bar.open_time)
        ]
        self.untold += self._told_anew(key, live, core, list(found))
        self.dirty.setdefault(key, None)
        if self.dirty[key] is None and not live.backlog:
            del self.dirty[key]
        return True


def _saved(
    live: LiveSeries, core: IndicatorSeries | None, state: list[Any], changed_from: int | None
) -> bytes:
    before = None if live.told_until is None else live.finals.get(live.told_until)
    return msgspec.msgpack.encode(
        SavedSeries(
            DEFINITION_VERSION,
            MIN_DIGITS if core is None else core.scale.price_digits,
            MIN_DIGITS if core is None else core.scale.volume_digits,
            live.seq,
            live.revision,
            state,
            changed_from,
            live.told_until,
            live.anchor if core is None else core.anchor,
            live.told_from,
            None if before is None else list(before),
            live.inside,
        )
    )
