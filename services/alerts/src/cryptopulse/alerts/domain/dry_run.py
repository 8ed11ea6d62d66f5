"""When a rule would have fired over stored candles: the engine itself, walked through each bar's low and high."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.common.contracts.candles import Candle


@dataclass(frozen=True, slots=True)
class DryFiring:
    """One firing: the opening time of its bar, the price there, the direction."""

    at_ms: int
    price: Decimal
    direction: str


def dry_run(definition: RuleDefinition, candles: Iterable[Candle], user_id: str = "") -> list[DryFiring]:
    """Every firing over the candles (oldest first), for a rule made just before the first.

    The first candle's open is where the price stands at creation. Within a bar the price goes through its low and high on
    the way that is certain; what is not certain does not fire. `once` and `max_triggers` count as they would live.
    """
    engine = ShardEngine()
    rule: Rule | None = None
    found: list[DryFiring] = []
    for candle in candles:
        at_us = candle.open_time * 1000
        if rule is None:
            rule = Rule("dry", user_id, 1, definition, created_price=candle.open, armed_ms=candle.open_time)
            engine.add(rule, at_us)
            engine.on_bar_prices(candle, opening=True)
        found += [
            DryFiring(
                candle.open_time, candle.close if firing.price is None else firing.price, firing.direction
            )
            for firing in engine.on_bar_prices(candle)
            if firing.type == "alert.triggered"
        ]
        if rule.is_over:
            break
    return found
