"""Trace context on the bus without a collector: handed on, with no span made."""

from __future__ import annotations

from opentelemetry import trace

from cryptopulse.common.bus.traces import consumed, published
from cryptopulse.common.contracts.topics import ALERT_EVENTS, TICKS
from cryptopulse.common.telemetry.tracing import attached, extract

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _current() -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


def test_a_publish_carries_the_context_of_its_cause() -> None:
    with (
        attached(extract({"traceparent": PARENT})),
        published(ALERT_EVENTS, "alert.1.2", "alerts") as headers,
    ):
        assert headers == {"traceparent": PARENT}


def test_a_publish_without_a_cause_carries_nothing() -> None:
    with published(TICKS, "batch.0.binance", "ingestor") as headers:
        assert headers == {}


def test_a_durable_message_continues_its_trace_and_a_live_batch_does_not() -> None:
    with consumed(ALERT_EVENTS, "alert.1.2", {"traceparent": PARENT}, "gateway"):
        assert _current() == PARENT.split("-")[1]
    with consumed(TICKS, "batch.0.binance", {"traceparent": PARENT}, "gateway"):
        assert _current() == "0" * 32
    assert _current() == "0" * 32
