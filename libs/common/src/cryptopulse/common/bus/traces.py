"""W3C trace context across the bus: a producer span per publish, a consumer span that continues or links it.

Without a collector no spans are made, which is a tenth of a publish, and only an existing context is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cryptopulse.common.contracts.topics import Topic
from cryptopulse.common.telemetry import tracing

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("cryptopulse.bus")
_NOTHING = nullcontext()


def _attributes(topic: Topic, key: str, service: str) -> dict[str, str]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.client.id": service,
        "messaging.destination.name": topic.exchange,
        "messaging.rabbitmq.destination.routing_key": key,
    }


@contextmanager
def published(topic: Topic, key: str, service: str) -> Iterator[dict[str, str]]:
    """A producer span; yields the headers that carry its context."""
    headers: dict[str, str] = {}
    if not tracing.is_on():
        tracing.inject(headers)
        yield headers
        return
    with _tracer.start_as_current_span(
        f"{topic.name} publish", kind=SpanKind.PRODUCER, attributes=_attributes(topic, key, service)
    ):
        _propagator.inject(headers)
        yield headers


def consumed(
    topic: Topic, key: str, headers: Mapping[str, Any], service: str
) -> AbstractContextManager[None]:
    """A consumer span. A durable message continues its producer's trace; a live batch, which has many causes, only links it."""
    if topic.delivery == "live" and not tracing.is_on():
        return _NOTHING
    return _consumed(topic, key, headers, service)


@contextmanager
def _consumed(topic: Topic, key: str, headers: Mapping[str, Any], service: str) -> Iterator[None]:
    carrier = {
        name: value for name in ("traceparent", "tracestate") if isinstance(value := headers.get(name), str)
    }
    context = _propagator.extract(carrier) if carrier else None
    if not tracing.is_on():
        with tracing.attached(context if topic.delivery == "durable" else None):
            yield
        return
    attributes = _attributes(topic, key, service)
    if context is None or topic.delivery == "durable":
        with _tracer.start_as_current_span(
            f"{topic.name} handle", context=context, kind=SpanKind.CONSUMER, attributes=attributes
        ):
            yield
        return
    links = [Link(trace.get_current_span(context).get_span_context())]
    with _tracer.start_as_current_span(
        f"{topic.name} handle", kind=SpanKind.CONSUMER, attributes=attributes, links=links
    ):
        yield
