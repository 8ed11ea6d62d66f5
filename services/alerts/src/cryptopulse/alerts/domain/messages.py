"""The text of an event, and the body that webhooks get: made once, the same bytes signed and sent at every attempt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from cryptopulse.alerts.domain.definition import plain_number
from cryptopulse.alerts.domain.rules import Firing
from cryptopulse.common.contracts.alerts import AlertEvent

MAX_MESSAGE: Final = 1000
DEFAULT_TEXT: Final[dict[str, str]] = {
    "alert.triggered": "{symbol} {condition}: {price}",
    "alert.resolved": "{symbol} {condition}: no longer",
    "alert.expired": "{symbol} {condition}: expired",
    "alert.error": "{symbol} {condition}: cannot be evaluated",
    "alert.gap": "{symbol} {source}: prices are missing for a while",
}


def render(template: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` by its value; `{{` and `}}` are plain braces. Names that are not given stay as they are; no code."""
    out: list[str] = []
    at = 0
    while at < len(template):
        char = template[at]
        if template[at : at + 2] in {"{{", "}}"}:
            out.append(char)
            at += 2
            continue
        close = template.find("}", at) if char == "{" else -1
        name = template[at + 1 : close] if close > 0 else ""
        if name in values:
            out.append(values[name])
            at = close + 1
        else:
            out.append(char)
            at += 1
    return "".join(out)[:MAX_MESSAGE]


def text_of(firing: Firing) -> str:
    """The text of an event: the rule's own template when it fires, ours otherwise."""
    template = (
        firing.definition.message
        if firing.definition.message and firing.type == "alert.triggered"
        else DEFAULT_TEXT[firing.type]
    )
    return render(
        template,
        {
            "symbol": firing.symbol or "-",
            "source": firing.source,
            "price": "-" if firing.price is None else plain_number(firing.price),
            "threshold": "-" if firing.threshold is None else plain_number(firing.threshold),
            "condition": firing.condition,
            "direction": firing.direction,
            "time": rfc3339(firing.cause.at_ms),
            "note": firing.definition.note or "",
            "rule_id": firing.rule_id,
            "count": str(firing.data.get("count", 0)),
        },
    )


def rfc3339(at_ms: int) -> str:
    """`2026-01-02T03:04:05.678Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def bus_message(event_id: str, firing: Firing, text: str) -> AlertEvent:
    """The event as it goes over the bus."""
    return AlertEvent(
        id=event_id,
        type=firing.type,
        user_id=firing.user_id,
        rule_id=firing.rule_id,
        dedupe_key=firing.dedupe_key,
        at_ms=firing.cause.at_ms,
        symbol=firing.symbol,
        source=firing.source,
        condition=firing.condition,
        message=text,
        price=firing.price,
        threshold=firing.threshold,
        late=firing.cause.late,
        data={**firing.data, "direction": firing.direction, "state": firing.state},
        simulated=firing.cause.simulated,
    )


def webhook_body(event: AlertEvent) -> bytes:
    """`{"type","timestamp","data"}`, minified; decimals as text, times as RFC 3339."""
    return encode_body(
        event.type,
        rfc3339(event.at_ms),
        {
            "event_id": event.id,
            "alert_id": event.rule_id,
            "dedupe_key": event.dedupe_key,
            "symbol": event.symbol,
            "source": event.source,
            "condition": event.condition,
            "message": event.message,
            "price": None if event.price is None else plain_number(event.price),
            "threshold": None if event.threshold is None else plain_number(event.threshold),
            "late": event.late,
            "simulated": event.simulated,
            **{key: value for key, value in event.data.items() if key != "state"},
        },
    )


def encode_body(kind: str, timestamp: str, data: Mapping[str, Any]) -> bytes:
    """A webhook's body."""
    return msgspec.json.encode({"type": kind, "timestamp": timestamp, "data": data})
