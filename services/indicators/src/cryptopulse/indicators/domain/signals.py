"""Signals on successive indicator values: crosses, zones with hysteresis, squeezes, breakouts, flips, volume spikes.

A condition that a forming bar meets is `pending`; when the bar closes it is `confirmed`, or `withdrawn` if it no longer
holds. The id of a signal stays the same over these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Literal

from msgspec import structs

from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal, SignalStatus
from cryptopulse.common.contracts.intervals import Interval

Values = Mapping[str, float | None]
Direction = Literal["up", "down", "none"]
Fired = tuple[str, Direction, tuple[str, ...]]
SeriesKey = tuple[str, str, Interval]

ZONES: Final = (
    ("rsi_overbought", "rsi_14", 70.0, 68.0, "up"),
    ("rsi_oversold", "rsi_14", 30.0, 32.0, "down"),
)
"""Kind, output, where the zone is entered, where it is left, its direction."""
SPIKE_RATIO: Final = 3.0
SPIKE_Z: Final = 3.0
TREND_ADX: Final = 25.0


def crossed(before: Values, now: Values, one: str, other: str) -> Direction:
    """`up` when `one` went from at or below `other` to above it, `down` the other way round."""
    a, b, c, d = before.get(one), before.get(other), now.get(one), now.get(other)
    if a is None or b is None or c is None or d is None:
        return "none"
    if a <= b and c > d:
        return "up"
    return "down" if a >= b and c < d else "none"


def _cross(up: str, down: str, one: str, other: str) -> Callable[[Values, Values, float], list[Fired]]:
    def rule(before: Values, now: Values, _close: float) -> list[Fired]:
        direction = crossed(before, now, one, other)
        if direction == "none":
            return []
        return [(up if direction == "up" else down, direction, (one, other))]

    return rule


def _stochastic(before: Values, now: Values, _close: float) -> list[Fired]:
    direction = crossed(before, now, "stoch_slow_k", "stoch_slow_d")
    level = before.get("stoch_slow_k")
    if level is None or direction == "none":
        return []
    if (direction == "up" and level < 20) or (direction == "down" and level > 80):
        return [("stoch_cross", direction, ("stoch_slow_k", "stoch_slow_d"))]
    return []


def _flip(kind: str, output: str) -> Callable[[Values, Values, float], list[Fired]]:
    def rule(before: Values, now: Values, _close: float) -> list[Fired]:
        a, b = before.get(output), now.get(output)
        if a is None or b is None or a == b:
            return []
        return [(kind, "up" if b > 0 else "down", (output,))]

    return rule


def _bands(before: Values, now: Values, _close: float) -> list[Fired]:
    a, b = before.get("bb_percent_b"), now.get("bb_percent_b")
    if a is None or b is None:
        return []
    if a <= 1 < b:
        return [("bb_breakout", "up", ("bb_percent_b",))]
    return [("bb_breakout", "down", ("bb_percent_b",))] if a >= 0 > b else []


def _squeezed(values: Values) -> bool | None:
    upper, lower = values.get("bb_upper"), values.get("bb_lower")
    top, bottom = values.get("keltner_upper"), values.get("keltner_lower")
    if upper is None or lower is None or top is None or bottom is None:
        return None
    return upper < top and lower > bottom


def _squeeze(before: Values, now: Values, _close: float) -> list[Fired]:
    was, is_now = _squeezed(before), _squeezed(now)
    if was is None or is_now is None or was == is_now:
        return []
    return [("bb_squeeze" if is_now else "bb_squeeze_released", "none", ("bb_width",))]


def _trend(before: Values, now: Values, _close: float) -> list[Fired]:
    a, b = before.get("adx_14"), now.get("adx_14")
    plus, minus = now.get("plus_di_14"), now.get("minus_di_14")
    if a is None or b is None or plus is None or minus is None or not a < TREND_ADX <= b:
        return []
    return [("adx_trend", "up" if plus > minus else "down", ("adx_14", "plus_di_14", "minus_di_14"))]


def _breakout(before: Values, _now: Values, close: float) -> list[Fired]:
    top, bottom = before.get("donchian_upper"), before.get("donchian_lower")
    if top is None or bottom is None:
        return []
    if close > top:
        return [("donchian_breakout", "up", ("donchian_upper",))]
    return [("donchian_breakout", "down", ("donchian_lower",))] if close < bottom else []


def _spike(_before: Values, now: Values, _close: float) -> list[Fired]:
    ratio, z = now.get("volume_ratio_20"), now.get("volume_zscore_20")
    if ratio is None or z is None or ratio < SPIKE_RATIO or z < SPIKE_Z:
        return []
    return [("volume_spike", "none", ("volume_ratio_20", "volume_zscore_20"))]


RULES: Final = (
    _cross("golden_cross", "death_cross", "sma_50", "sma_200"),
    _cross("ema_cross", "ema_cross", "ema_12", "ema_26"),
    _cross("macd_cross", "macd_cross", "macd", "macd_signal"),
    _stochastic,
    _flip("supertrend_flip", "supertrend_direction"),
    _flip("psar_flip", "psar_direction"),
    _bands,
    _squeeze,
    _trend,
    _breakout,
    _spike,
)
KINDS: Final = (
    "golden_cross", "death_cross", "ema_cross", "macd_cross", "stoch_cross", "supertrend_flip", "psar_flip",
    "bb_breakout", "bb_squeeze", "bb_squeeze_released", "adx_trend", "donchian_breakout", "volume_spike",
    *(name for zone in ZONES for name in (zone[0], f"{zone[0]}_left")),
)  # fmt: skip


class _Memory:
    __slots__ = ("before", "open_time", "pending", "zones")

    def __init__(self) -> None:
        self.before: Values | None = None
        self.open_time = -1
        self.pending: dict[str, Signal] = {}
        self.zones: dict[str, bool] = {}


class SignalBoard:
    """Remembers the last closed values of every series and what is pending on its forming bar."""

    def __init__(self, epoch: int = 0) -> None:
        self._epoch = epoch
        self._series: dict[SeriesKey, _Memory] = {}
        self._offsets: dict[str, int] = {}

    def on_values(self, update: IndicatorUpdate, *, now_us: int) -> list[Signal]:
        """What these values say anew, numbered. Corrections of closed bars (`revision` > 0) only replace what is remembered."""
        found = self._new(update, now_us)
        if not found:
            return found
        first = self._offsets.get(update.symbol, 0) + 1
        self._offsets[update.symbol] = first + len(found) - 1
        return [
            structs.replace(signal, epoch=self._epoch, offset=offset)
            for offset, signal in enumerate(found, start=first)
        ]

    def inside(self, key: SeriesKey) -> list[str]:
        """The zones that a series is inside of."""
        memory = self._series.get(key)
        return [] if memory is None else [kind for kind, is_inside in memory.zones.items() if is_inside]

    def pending(self) -> list[Signal]:
        """What is told as pending and neither confirmed nor withdrawn."""
        return [signal for memory in self._series.values() for signal in memory.pending.values()]

    def prime(self, key: SeriesKey, open_time: int, values: Values, inside: Collection[str]) -> None:
        """Go on from the final values that an owner before us told last."""
        memory = self._series.setdefault(key, _Memory())
        if open_time > memory.open_time:
            memory.before, memory.open_time = values, open_time
            memory.zones = {zone[0]: zone[0] in inside for zone in ZONES}

    def expect(self, pending: Iterable[Signal]) -> None:
        """Remember what an owner before us told as pending, so that it is confirmed or withdrawn."""
        for signal in pending:
            memory = self._series.setdefault((signal.symbol, signal.source, signal.interval), _Memory())
            if signal.open_time > memory.open_time:
                memory.pending[signal.kind] = signal

    def _new(self, update: IndicatorUpdate, now_us: int) -> list[Signal]:
        memory = self._series.setdefault((update.symbol, update.source, update.interval), _Memory())
        if update.closed and update.open_time <= memory.open_time:
            if update.open_time == memory.open_time:
                memory.before = update.values
            return []
        fired = self._fired(memory, update)
        if update.closed:
            signals = self._settle(memory, update, fired, now_us)
            memory.before, memory.open_time, memory.pending = update.values, update.open_time, {}
            return signals
        new = []
        for kind, direction, outputs in fired:
            if kind not in memory.pending:
                signal = _signal(update, kind, direction, outputs, "pending", now_us)
                memory.pending[kind] = signal
                new.append(signal)
        return new

    def _fired(self, memory: _Memory, update: IndicatorUpdate) -> list[Fired]:
        before, now, close = memory.before, update.values, update.close
        if before is None or close is None:
            return []
        found: list[Fired] = []
        for rule in RULES:
            found += rule(before, now, close)
        return found + self._zones(memory, now)

    def _zones(self, memory: _Memory, now: Values) -> list[Fired]:
        found: list[Fired] = []
        if not now.get("atr_14"):
            return found  # nothing moved: an RSI of 100 says nothing
        for kind, output, enter, leave, direction in ZONES:
            value = now.get(output)
            if value is None:
                continue
            upper = direction == "up"
            inside = memory.zones.get(kind)
            if inside is None:
                last = memory.before.get(output) if memory.before else None
                inside = last is not None and (last >= enter if upper else last <= enter)
                memory.zones[kind] = inside
            if not inside and (value >= enter if upper else value <= enter):
                found.append((kind, "up" if upper else "down", (output,)))
            elif inside and (value < leave if upper else value > leave):
                found.append((f"{kind}_left", "down" if upper else "up", (output,)))
        return found

    def _settle(
        self, memory: _Memory, update: IndicatorUpdate, fired: list[Fired], now_us: int
    ) -> list[Signal]:
        signals = []
        kinds = set()
        for kind, direction, outputs in fired:
            kinds.add(kind)
            signals.append(_signal(update, kind, direction, outputs, "confirmed", now_us))
            zone = kind.removesuffix("_left")
            if zone in memory.zones:
                memory.zones[zone] = zone == kind
        for kind, pending in memory.pending.items():
            if kind not in kinds and pending.open_time == update.open_time:
                signals.append(
                    _signal(update, kind, pending.direction, tuple(pending.values), "withdrawn", now_us)
                )
        return signals


def _signal(
    update: IndicatorUpdate,
    kind: str,
    direction: Direction,
    outputs: tuple[str, ...],
    status: SignalStatus,
    now_us: int,
) -> Signal:
    place = f"{kind}|{update.symbol}|{update.source}|{update.interval}|{update.open_time}"
    return Signal(
        id="sg_" + hashlib.blake2b(place.encode(), digest_size=12).hexdigest(),
        kind=kind,
        symbol=update.symbol,
        source=update.source,
        interval=update.interval,
        open_time=update.open_time,
        status=status,
        direction=direction,
        at_us=now_us,
        values={name: update.values.get(name) for name in outputs},
        simulated=update.simulated,
    )
