"""A rule in the hands of the engine: what it remembers, when it fires, and the state that follows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from cryptopulse.alerts.domain.cooldown import Runtime, refusal
from cryptopulse.alerts.domain.definition import RuleDefinition, describe
from cryptopulse.alerts.domain.thresholds import Number
from cryptopulse.common.contracts.alerts import AlertEventType
from cryptopulse.common.contracts.http.alert_conditions import PriceRange
from cryptopulse.common.contracts.intervals import open_time

Direction = str
"""`up`, `down`, or `none` for what has no direction."""


class Cause(msgspec.Struct, frozen=True):
    """What happened to a value: the event's own time, ours, and a name that is the same whenever it is handled again.

    `sequence` is the trade's id, the price's (epoch, seq), the bar's opening time ...: with the rule's id it is the
    dedupe key of what follows, so that handling an input twice makes one event.
    """

    at_us: int
    now_us: int
    sequence: str
    symbol: str = ""
    source: str = ""
    simulated: bool = False
    late: bool = False
    data: Mapping[str, Any] = {}

    @property
    def at_ms(self) -> int:
        """The event's own time in ms."""
        return self.at_us // 1000


class Firing(msgspec.Struct, frozen=True):
    """An event of a rule that is to be stored, with the state of the rule after it. `version` is the one it was made at.

    Its words are made when they are asked for: the evaluation of ticks does not wait for text.
    """

    rule_id: str
    user_id: str
    version: int
    type: AlertEventType
    cause: Cause
    definition: RuleDefinition
    state: str
    runtime: dict[str, Any]
    price: Decimal | None = None
    threshold: Decimal | None = None
    direction: Direction = "none"
    data: Mapping[str, Any] = {}

    @property
    def symbol(self) -> str:
        """Where it happened; empty for what has no market."""
        return self.cause.symbol or self.definition.symbol or ""

    @property
    def source(self) -> str:
        """The venue, or `consolidated`."""
        return self.cause.source or self.definition.source

    @property
    def condition(self) -> str:
        """The rule's condition in a few words."""
        return describe(self.definition)

    @property
    def dedupe_key(self) -> str:
        """One key per (rule, kind of event, what caused it)."""
        return hashlib.sha256(f"{self.rule_id}|{self.type}|{self.cause.sequence}".encode()).hexdigest()


_OVER: Final = frozenset({"completed", "expired", "error"})


@dataclass(slots=True, eq=False)
class Rule:
    """One rule that is evaluated. `version` follows the row's: a firing made at another version is refused by the store."""

    id: str
    user_id: str
    version: int
    definition: RuleDefinition
    state: str = "armed"
    runtime: Runtime = field(default_factory=Runtime)
    snoozed_until_ms: int | None = None
    expires_ms: int | None = None
    created_price: Decimal | None = None
    armed_ms: int = 0
    """When it was made, or armed again: nothing before counts."""
    dirty: bool = False
    """Something of `runtime` changed that is not yet stored."""

    @property
    def is_over(self) -> bool:
        """True when the rule will never fire again and is to be taken out of the engine."""
        return self.state in _OVER

    @property
    def tracks_end(self) -> bool:
        """True when the end of the condition matters, not only its beginning."""
        definition = self.definition
        # A jump over a whole range leaves one side for the other: whether that is news depends on where it was.
        is_range = isinstance(definition.condition, PriceRange)
        return bool(definition.for_seconds or definition.notify_resolved or is_range)

    def enter(
        self, cause: Cause, value: Number | None, threshold: Number | None, direction: Direction
    ) -> Firing | None:
        """The condition became true. -> the firing, or None when it must hold first or may not fire now."""
        self.note_truth(True)
        if self.definition.for_seconds and not cause.late:
            if self.runtime.pending_since_us is None:
                self.runtime.pending_since_us = cause.now_us
                self.state = "pending" if self.state == "armed" else self.state
                self.dirty = True
            return None
        return self.fire(cause, value, threshold, direction)

    def leave(self, cause: Cause, value: Number | None, threshold: Number | None) -> Firing | None:
        """The condition is no longer true. -> `alert.resolved` when that was asked for and it had fired."""
        self.note_truth(False)
        if self.runtime.pending_since_us is not None:
            self.runtime.pending_since_us = None
            self.state = "armed" if self.state == "pending" else self.state
            self.dirty = True
        if not self.runtime.firing:
            return None
        self.runtime.firing = False
        self.state = self._state_after()
        return self._event("alert.resolved", cause, value, threshold, "none")

    def held(self, cause: Cause, value: Number | None) -> Firing | None:
        """The condition has held for the time asked: fire."""
        if self.runtime.pending_since_us is None:
            return None
        self.runtime.pending_since_us = None
        self.dirty = True
        self.state = "armed" if self.state == "pending" else self.state
        return self.fire(cause, value, None, "none")

    def fire(
        self, cause: Cause, value: Number | None, threshold: Number | None, direction: Direction
    ) -> Firing | None:
        """Fire, unless the gate is closed; the state moves on."""
        if self.state in _OVER or self.refusal(cause.at_ms):
            return None
        runtime, definition = self.runtime, self.definition
        runtime.fired += 1
        runtime.last_fired_ms = cause.at_ms
        if definition.trigger.startswith("once_per_bar"):
            runtime.last_bar_ms = open_time(cause.at_ms, definition.bar)
        if definition.hysteresis is not None:
            runtime.rearmed = False
        runtime.firing = definition.notify_resolved and not cause.late
        self.state = self._state_after()
        return self._event("alert.triggered", cause, value, threshold, direction)

    def expire(self, cause: Cause) -> Firing | None:
        """The rule's time is over."""
        if self.is_over:
            return None
        self.state = "expired"
        return self._event("alert.expired", cause, None, None, "none")

    def fail(self, cause: Cause, reason: str) -> Firing | None:
        """The rule cannot be evaluated any more, e.g. its portfolio is gone."""
        if self.is_over:
            return None
        self.state = "error"
        return self._event("alert.error", cause, None, None, "none", {"reason": reason})

    def gap(self, cause: Cause, data: Mapping[str, Any]) -> Firing:
        """For a while nothing is known of the rule's market; its state stays."""
        return self._event("alert.gap", cause, None, None, "none", data)

    def rearm(self) -> None:
        """The value has gone back by the hysteresis."""
        if not self.runtime.rearmed:
            self.runtime.rearmed = True
            self.dirty = True
            if self.state == "recovering":
                self.state = "armed"

    def note_truth(self, truth: bool | None) -> None:
        """Remember whether the condition holds."""
        if self.runtime.truth is not truth:
            self.runtime.truth = truth
            self.dirty = True

    def refusal(self, at_ms: int) -> str:
        """Why it may not fire for something at `at_ms`; empty when it may."""
        return refusal(
            self.definition,
            self.runtime,
            at_ms,
            snoozed_until_ms=self.snoozed_until_ms,
            expires_ms=self.expires_ms,
        )

    def _state_after(self) -> str:
        """The public state after an event, by what the rule still waits for."""
        definition, runtime = self.definition, self.runtime
        if runtime.firing:
            return "firing"
        if (definition.trigger == "once" and runtime.fired) or (
            definition.max_triggers is not None and runtime.fired >= definition.max_triggers
        ):
            return "completed"
        if not runtime.rearmed:
            return "recovering"
        return "cooldown" if definition.cooldown_ms and runtime.fired else "armed"

    def _event(
        self,
        kind: AlertEventType,
        cause: Cause,
        value: Number | None,
        threshold: Number | None,
        direction: Direction,
        data: Mapping[str, Any] | None = None,
    ) -> Firing:
        runtime = self.runtime
        facts: dict[str, Any] = {**cause.data, **data} if data else {**cause.data}
        facts["count"] = runtime.fired
        # By position: by name costs seven times as much, and this is made for every firing.
        firing = Firing(
            self.id,
            self.user_id,
            self.version,
            kind,
            cause,
            self.definition,
            self.state,
            runtime.as_json(),
            _decimal(value),
            _decimal(threshold),
            direction,
            facts,
        )
        self.version += 1
        self.dirty = False
        return firing


def _decimal(value: Number | None) -> Decimal | None:
    """A value for an event: decimals as they are, floats (indicators, percents) at 12 significant digits."""
    if value is None or isinstance(value, Decimal):
        return value
    return Decimal(f"{value:.12g}")
