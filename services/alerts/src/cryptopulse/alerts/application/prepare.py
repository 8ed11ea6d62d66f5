"""From a firing to what is stored and sent: an id, a text, the bus message and the webhook's bytes, each made once."""

from __future__ import annotations

import msgspec

from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.application.ports import PreparedEvent
from cryptopulse.alerts.domain.messages import bus_message, text_of, webhook_body
from cryptopulse.alerts.domain.rules import Firing


def prepare(firing: Firing, now_us: int) -> PreparedEvent:
    """The event of a firing."""
    event_id = new_id("ae", now_us // 1000)
    text = text_of(firing)
    message = bus_message(event_id, firing, text)
    return PreparedEvent(event_id, firing, text, webhook_body(message), msgspec.msgpack.encode(message))
