"""all, any, not over leaves that may be unknown: three-valued logic, so that a missing value never makes a rule fire."""

from __future__ import annotations

from collections.abc import Iterator

from cryptopulse.common.contracts.http.alert_conditions import Composite, Leaf


def truth(condition: Leaf | Composite, leaves: list[bool | None]) -> bool | None:
    """The truth of a condition from the truths of its leaves (left to right); None is unknown (Kleene)."""
    rest = iter(leaves)
    return _truth(condition, rest)


def _truth(condition: Leaf | Composite, rest: Iterator[bool | None]) -> bool | None:
    if not isinstance(condition, Composite):
        return next(rest)
    parts = [_truth(child, rest) for child in condition.conditions]
    if condition.type == "not":
        return None if parts[0] is None else not parts[0]
    decided = condition.type == "any"
    if decided in parts:
        return decided
    return None if None in parts else not decided
