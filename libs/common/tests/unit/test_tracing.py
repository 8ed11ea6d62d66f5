"""The trace of a caller goes on through headers, batches are linked, and without a collector nothing breaks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cryptopulse.common.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    yield tracing.collect_in_memory()
    tracing.shutdown()


def test_a_context_is_handed_on_when_nothing_is_collected() -> None:
    assert not tracing.is_on()
    sent: dict[str, str] = {}
    with tracing.server_span("GET", PARENT):
        tracing.inject(sent)

    assert sent["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert not trace.get_current_span().get_span_context().is_valid


def test_nothing_is_injected_outside_of_a_trace() -> None:
    sent: dict[str, str] = {}
    with tracing.span("work"):
        tracing.inject(sent)

    assert sent == {}


@pytest.mark.parametrize(
    "value", ["", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01", 7, b"\xff", None]
)
def test_a_malformed_context_is_no_context(value: object) -> None:
    assert tracing.extract({"traceparent": value}) is None


def test_a_context_may_come_as_bytes_from_amqp() -> None:
    assert tracing.extract({"traceparent": PARENT.encode()}) is not None


def test_a_consumer_continues_the_producers_trace(exporter: InMemorySpanExporter) -> None:
    headers: dict[str, str] = {}
    with tracing.span("publish", kind="producer", messaging_system="rabbitmq"):
        tracing.inject(headers)
    with tracing.span("handle", kind="consumer", parent=tracing.extract(headers)):
        pass

    publish, handle = exporter.get_finished_spans()
    assert handle.parent is not None
    assert publish.context is not None
    assert handle.parent.span_id == publish.context.span_id
    assert handle.kind is SpanKind.CONSUMER
    assert publish.attributes == {"messaging.system": "rabbitmq"}


def test_a_batch_is_linked_to_all_its_messages_and_continues_none(exporter: InMemorySpanExporter) -> None:
    headers: list[dict[str, str]] = []
    for _ in range(3):
        with tracing.span("publish"):
            headers.append({})
            tracing.inject(headers[-1])
    with tracing.span("handle batch", linked=[*headers, {"traceparent": "garbage"}, {}]):
        pass

    *published, batch = exporter.get_finished_spans()
    assert batch.parent is None
    assert [link.context.trace_id for link in batch.links] == [
        span.context.trace_id for span in published if span.context
    ]


def test_an_underscore_in_an_attribute_is_written_twice(exporter: InMemorySpanExporter) -> None:
    with tracing.span("publish", messaging_rabbitmq_destination_routing__key="batch.0"):
        pass

    assert exporter.get_finished_spans()[0].attributes == {
        "messaging.rabbitmq.destination.routing_key": "batch.0"
    }


def test_a_failing_block_marks_its_span(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), tracing.span("work"):
        raise ValueError("no")

    assert exporter.get_finished_spans()[0].status.status_code is StatusCode.ERROR


def test_a_request_span_is_named_after_its_route(exporter: InMemorySpanExporter) -> None:
    with tracing.server_span("GET", PARENT) as span:
        span.describe("GET", "/prices/{symbol}", 503)

    (done,) = exporter.get_finished_spans()
    assert done.name == "GET /prices/{symbol}"
    assert done.parent is not None
    assert done.status.status_code is StatusCode.ERROR
    assert done.attributes is not None
    assert done.attributes["http.route"] == "/prices/{symbol}"


def test_without_an_address_tracing_stays_off() -> None:
    assert tracing.configure("alerts", "1", endpoint=None) is False
    assert not tracing.is_on()


class Collector(BaseHTTPRequestHandler):
    """Notes the paths and sizes of what it gets."""

    got: ClassVar[list[tuple[str, int]]] = []

    def do_POST(self) -> None:
        """An export."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((self.path, len(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def test_spans_reach_a_collector_over_http() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/"
        assert tracing.configure("alerts", "1", endpoint=endpoint, sample_ratio=1.0)
        with tracing.server_span("GET", PARENT):
            pass
        tracing.shutdown()
        server.shutdown()
    ((path, size),) = Collector.got
    assert path == "/v1/traces"
    assert size > 100


def test_a_collector_that_is_away_costs_the_spans_only(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert tracing.configure("alerts", "1", endpoint=f"http://127.0.0.1:{port}", sample_ratio=1.0)
    for _ in range(3_000):  # more than the queue holds
        with tracing.server_span("GET", PARENT):
            pass
    tracing.shutdown(timeout_seconds=0.5)
    assert not tracing.is_on()
    caplog.clear()


def test_a_tracer_that_was_taken_early_records_while_tracing_is_on() -> None:
    tracer = trace.get_tracer("a library")
    with tracer.start_as_current_span("before"):
        pass
    exporter = tracing.collect_in_memory()
    with tracer.start_as_current_span("meanwhile"):
        tracer.start_span("inside").end()
    tracing.shutdown()
    with tracer.start_as_current_span("after"):
        pass

    assert [span.name for span in exporter.get_finished_spans()] == ["inside", "meanwhile"]


def test_a_library_s_span_hands_the_caller_s_context_on_while_tracing_is_off() -> None:
    tracing.collect_in_memory()
    tracing.shutdown()
    sent: dict[str, str] = {}
    with tracing.server_span("GET", PARENT), trace.get_tracer("a library").start_as_current_span("publish"):
        tracing.inject(sent)

    assert sent["traceparent"].split("-")[1] == PARENT.split("-")[1]


def test_what_people_wait_for_is_always_recorded_and_the_rest_lightly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tracing._provider
    monkeypatch.setattr(tracing, "_provider", lambda *args, ratio: whole(*args, ratio=0.0))
    exporter = tracing.collect_in_memory()
    with tracing.span("tick"):
        pass
    with tracing.span("delivery", always=True):
        pass
    with tracing.span("publish", messaging_destination_name="alerts.events"), tracing.span("inside"):
        pass
    tracing.shutdown()

    assert [span.name for span in exporter.get_finished_spans()] == ["delivery", "inside", "publish"]


def test_what_an_unrecorded_tick_tells_a_user_is_recorded_and_keeps_its_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tracing._provider
    monkeypatch.setattr(tracing, "_provider", lambda *args, ratio: whole(*args, ratio=0.0))
    exporter = tracing.collect_in_memory()
    with tracing.span("ticks handle") as tick:
        with tracing.span("row of the outbox"):
            tracing.inject(stored := dict[str, str]())
        with (
            tracing.attached(tracing.extract(stored)),
            tracing.span("publish", messaging_destination_name="alerts.events"),
        ):
            tracing.inject(sent := dict[str, str]())
    with tracing.span("handle", parent=tracing.extract(sent)):
        pass
    tracing.shutdown()

    found = exporter.get_finished_spans()
    assert [span.name for span in found] == ["publish", "handle"]
    assert {span.context.trace_id for span in found if span.context} == {tick.get_span_context().trace_id}
