"""Whether a rule may fire now: cooldown, once per bar, hysteresis, snooze, expiry, the number of firings."""

from __future__ import annotations

from dataclasses import dataclass
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
        """Only what differs from the start; decimals as text. Written out: it is made for every firing."""
        values: dict[str, Any] = {}
        if self.fired:
            values["fired"] = self.fired
        if self.last_fired_ms is not None:
            values["last_fired_ms"] = self.last_fired_ms
        if self.last_bar_ms is not None:
            values["last_bar_ms"] = self.last_bar_ms
        if not self.rearmed:
            values["rearmed"] = False
        if self.truth is not None:
            values["truth"] = self.truth
        if self.firing:
            values["firing"] = True
        if self.pending_since_us is not None:
            values["pending_since_us"] = self.pending_since_us
        if self.anchor is not None:
            values["anchor"] = str(self.anchor)
        if self.evaluated:
            values["evaluated"] = True
        if self.fire_now:
            values["fire_now"] = True
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Runtime:
        """The reverse of `as_json`; unknown names are ignored."""
        known = {name: values[name] for name in cls.__slots__ if name in values}
        if known.get("anchor") is not None:
            known["anchor"] = Decimal(known["anchor"])
        return cls(**known)


def refusal(  # noqa: PLR0911 - one line per reason
    definition: RuleDefinition,
    runtime: Runtime,
    at_ms: int,
    *,
    snoozed_until_ms: int | None,
    expires_ms: int | None,
) -> str:
    """Why a rule may not fire for something that happened at `at_ms`; empty when it may."""
    if expires_ms is not None and at_ms >= expires_ms:
        return "expired"
    if snoozed_until_ms is not None and at_ms < snoozed_until_ms:
        return "snoozed"
    if not runtime.rearmed:
        return "recovering"
    if runtime.firing:
        return "firing"
    if not runtime.fired:
        return ""
    if definition.trigger == "once" or runtime.fired >= (definition.max_triggers or runtime.fired + 1):
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
