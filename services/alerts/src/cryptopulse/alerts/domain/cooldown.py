"""Whether a rule may fire now: cooldown, once per bar, hysteresis, snooze, expiry, the number of firings."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.common.contracts.intervals import open_time


@dataclass(slots=True)
class Runtime:
    """What a rule remembers between evaluations; stored beside the definition. Times in ms of the events' own clock."""

    fired: int = 0
    last_fired_ms: int | None = None
    last_bar_ms: int | None = None
    rearmed: bool = True
    """False after a firing until the value has gone back by the hysteresis."""
    truth: bool | None = None
    """Whether the condition held when last looked at."""
    firing: bool = False
    """Fired and still true, for rules that tell when it is resolved."""
    pending_since_us: int | None = None
    """Since when (our clock) the condition holds, for rules that must hold."""
    anchor: Decimal | None = None
    """The reference price: at creation, or the extreme that a trailing rule follows."""
    evaluated: bool = False
    """True once an engine has taken the rule over: crossings since its creation are accounted for."""
    fire_now: bool = False
    """The condition held at creation, and the rule is to fire for that."""

    def as_json(self) -> dict[str, Any]:
        """Only what differs from the start; decimals as text."""
        start = Runtime()
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: str(value) if isinstance(value, Decimal) else value
            for name, value in values.items()
            if value != getattr(start, name)
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Runtime:
        """The reverse of `as_json`; unknown names are ignored."""
        known = {name: values[name] for name in cls.__slots__ if name in values}
        if known.get("anchor") is not None:
            known["anchor"] = Decimal(known["anchor"])
        return cls(**known)


@dataclass(slots=True)
class Gate:
    """The checks before a firing, in one place; it changes nothing."""

    definition: RuleDefinition
    runtime: Runtime
    snoozed_until_ms: int | None = None
    expires_ms: int | None = None
    refused: str = field(default="", compare=False)

    def opens(self, at_ms: int) -> bool:
        """True when the rule may fire for something that happened at `at_ms`; else `refused` says why."""
        self.refused = self._refusal(at_ms)
        return not self.refused

    def _refusal(self, at_ms: int) -> str:
        runtime, definition = self.runtime, self.definition
        if self.expires_ms is not None and at_ms >= self.expires_ms:
            return "expired"
        if self.snoozed_until_ms is not None and at_ms < self.snoozed_until_ms:
            return "snoozed"
        if not runtime.rearmed:
            return "recovering"
        if runtime.firing:
            return "firing"
        if runtime.fired and (
            definition.trigger == "once" or runtime.fired >= (definition.max_triggers or runtime.fired + 1)
        ):
            return "completed"
        # Either side: a crossing that is handled again after a restart lies before the last firing.
        last = runtime.last_fired_ms
        if definition.cooldown_ms and last is not None and abs(at_ms - last) < definition.cooldown_ms:
            return "cooldown"
        if (
            definition.trigger.startswith("once_per_bar")
            and runtime.last_bar_ms is not None
            and open_time(at_ms, definition.bar) <= runtime.last_bar_ms
        ):
            return "same bar"
        return ""
