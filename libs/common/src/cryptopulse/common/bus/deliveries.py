"""A message in the hands of a consumer, whatever bus it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Received:
    """The `Delivery` of both buses. `tag` rises by 1 with each message of a subscription's channel; `epoch` names that channel."""

    message: Any
    message_id: str
    routing_key: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False
    sent_us: int = 0
    tag: int = 0
    epoch: int = 0
    delivery_count: int = 0
