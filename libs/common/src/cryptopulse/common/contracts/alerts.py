"""Alert events, as they leave the outbox of the alerts service."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from cryptopulse.common.contracts.base import Message

AlertEventType = Literal[
    "alert.triggered", "alert.resolved", "alert.expired", "alert.error", "alert.gap", "alert.summary"
]


class AlertEvent(Message):
    """Something that happened to a user's rule. `id` and `dedupe_key` are stable over repeats; times in ms UTC."""

    id: str
    type: AlertEventType
    user_id: str
    rule_id: str
    dedupe_key: str
    at_ms: int
    symbol: str
    source: str
    condition: str
    message: str
    price: Decimal | None = None
    threshold: Decimal | None = None
    late: bool = False
    data: dict[str, Any] = {}
    simulated: bool = False
