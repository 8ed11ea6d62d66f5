"""A rule wired into the engine: its leaves, and the wires that lead from thresholds back to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cryptopulse.alerts.domain import composite
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.alerts.domain.thresholds import Edge, Number, ThresholdIndex
from cryptopulse.alerts.domain.trailing import TrailingBook
from cryptopulse.alerts.domain.wiring import LeafView, Metric, Role, Values
from cryptopulse.common.contracts.http.alert_conditions import Composite, PriceThreshold

if TYPE_CHECKING:
    from cryptopulse.alerts.domain.market import Market


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
    strands: list[Strand] = field(default_factory=list)
    markets: list[Market] = field(default_factory=list)
    follows: tuple[TrailingBook[Wire], Wire] | None = None
    is_composite: bool = field(init=False)
    """True when the rule is all, any or not of leaves."""
    is_plain: bool = field(init=False)
    """True for one threshold on one value: that its wire was crossed says all there is to know."""

    def __post_init__(self) -> None:
        self.is_composite = isinstance(self.rule.definition.condition, Composite)
        self.is_plain = isinstance(self.rule.definition.condition, PriceThreshold)

    def truth(self, values: Values) -> bool | None:
        """Whether the rule's condition holds at these values, None while that is unknown."""
        return composite.truth(self.rule.definition.condition, [view.holds(values) for view in self.views])


class Strand(NamedTuple):
    """A threshold that was added for a rule."""

    levels: ThresholdIndex[Wire]
    metric: Metric
    edge: Edge
    threshold: Number
    wire: Wire
