"""A rule wired into the engine: its leaves, and the wires that lead from thresholds back to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptopulse.alerts.domain import composite
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.alerts.domain.thresholds import Edge, Number
from cryptopulse.alerts.domain.trailing import TrailingBook
from cryptopulse.alerts.domain.wiring import LeafView, Metric, Role, Values


@dataclass(slots=True, eq=False)
class Wire:
    """Leads from a threshold to a leaf of a rule."""

    attachment: Attachment
    leaf: int
    role: Role


@dataclass(slots=True, eq=False)
class Attachment:
    """A rule with what it hangs on, all of which is taken out with it."""

    rule: Rule
    views: list[LeafView]
    strands: list[tuple[Metric, Edge, Number, Wire]] = field(default_factory=list)
    markets: list[tuple[str, str]] = field(default_factory=list)
    follows: tuple[TrailingBook[Wire], Wire] | None = None

    @property
    def is_composite(self) -> bool:
        """True when the rule is all, any or not of leaves."""
        return self.rule.definition.is_composite

    def truth(self, values: Values) -> bool | None:
        """Whether the rule's condition holds at these values, None while that is unknown."""
        return composite.truth(self.rule.definition.condition, [view.holds(values) for view in self.views])
