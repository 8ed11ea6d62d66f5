"""Traces across processes: W3C trace context in HTTP and AMQP headers, spans where someone collects them.

Without a collector nothing is recorded and nothing is sent; the context of a caller is handed on all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

TRACEPARENT: Final = "traceparent"
Kind = Literal["internal", "producer", "consumer", "client", "server"]

_KINDS: Final[dict[str, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
}
_ALWAYS: Final = "cryptopulse.always"
_ALWAYS_EXCHANGES: Final = frozenset({"alerts.events", "portfolio.events"})
"""What people wait for is traced fully; ticks and requests lightly."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Tracing(trace.TracerProvider):
    """The one set-up of this process, which can be turned on and off.

    OpenTelemetry lets a process name its provider only once; this one stays, and whoever got a tracer from it early
    records from the moment on that a collector is there.
    """

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self.tracer: trace.Tracer | None = None
        self._is_named = False

    def use(self, provider: TracerProvider | None) -> None:
        """Record with `provider` from now on; None: not at all."""
        self.provider = provider
        self.tracer = provider.get_tracer("cryptopulse") if provider is not None else None
        if provider is not None and not self._is_named:
            trace.set_tracer_provider(self)
            self._is_named = True

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes | None = None,
    ) -> trace.Tracer:
        """A tracer that follows what is in use."""
        del instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        return _FollowingTracer(self)


class _FollowingTracer(trace.Tracer):
    """Starts spans with whatever provider is in use at that moment."""

    _off: Final = trace.NoOpTracer()

    def __init__(self, tracing: _Tracing) -> None:
        self._tracing = tracing

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return (self._tracing.tracer or self._off).start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return (self._tracing.tracer or self._off).start_as_current_span(*args, **kwargs)


_tracing: Final = _Tracing()


def configure(service: str, version: str, *, endpoint: str | None = None, sample_ratio: float = 0.05) -> bool:
    """Send spans to an OTLP collector at `endpoint`; None leaves tracing off. Returns whether it is on.

    A collector that is away costs dropped spans only. Roots are sampled by `sample_ratio`; a caller's wish to record is
    followed.
    """
    if endpoint is None:
        return False
    # Here, since it brings an HTTP stack of its own that a service without traces need not load.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    _tracing.use(
        _provider(service, version, BatchSpanProcessor(exporter, max_queue_size=2048), ratio=sample_ratio)
    )
    return True


def collect_in_memory(service: str = "test") -> InMemorySpanExporter:
    """Record every span of this process for a test; `shutdown` ends it."""
    exporter = InMemorySpanExporter()
    _tracing.use(_provider(service, "0", SimpleSpanProcessor(exporter), ratio=1.0))
    return exporter


def shutdown(timeout_seconds: float = 3.0) -> None:
    """Send what is still held, bounded, and turn tracing off."""
    provider = _tracing.provider
    _tracing.use(None)
    if provider is not None:
        # A thread of its own: the exporter tries a collector that is away again and again, whatever timeout it is given.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(timeout_seconds)


def _provider(service: str, version: str, processor: SpanProcessor, *, ratio: float) -> TracerProvider:
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"cryptopulse-{service}", "service.version": version}),
        sampler=ParentBased(
            _Lightly(ratio), remote_parent_not_sampled=_Lightly(0.0), local_parent_not_sampled=_Lightly(0.0)
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor)
    return provider


class _Lightly(Sampler):
    """Records what is marked or tells a user something, also below a tick that is not recorded, and a part of the rest."""

    def __init__(self, ratio: float) -> None:
        self._some = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: otel_context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        known = attributes or {}
        wanted = known.get(_ALWAYS) is True or known.get("messaging.destination.name") in _ALWAYS_EXCHANGES
        sampler = ALWAYS_ON if wanted else self._some
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Lightly({self._some.get_description()})"


def is_on() -> bool:
    """True while spans are recorded by this process."""
    return _tracing.tracer is not None


def inject(headers: MutableMapping[str, Any]) -> None:
    """Write the current trace context into `headers`; nothing when there is none."""
    if trace.get_current_span().get_span_context().is_valid:
        _PROPAGATOR.inject(headers)


def extract(headers: Mapping[str, Any]) -> otel_context.Context | None:
    """The trace context that came with a request or message, None when there is none or it is malformed."""
    value = headers.get(TRACEPARENT)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str) or not value:
        return None
    found = _PROPAGATOR.extract({TRACEPARENT: value})
    return found if trace.get_current_span(found).get_span_context().is_valid else None


@contextmanager
def attached(context: otel_context.Context | None) -> Iterator[None]:
    """Work under a context that came from elsewhere."""
    if context is None:
        yield
        return
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: otel_context.Context | None = None,
    linked: Sequence[Mapping[str, Any]] = (),
    always: bool = False,
    **attributes: str | float | bool,
) -> Iterator[Span]:
    """A span around a piece of work, current while it lasts; an exception marks it as failed.

    `linked` are the headers of the messages of a batch: their traces are linked, not continued. `always` records a new
    trace whatever the sampling ratio. `_` in the name of an attribute is written as a dot, `__` as an underscore.
    """
    tracer = _tracing.tracer
    if tracer is None:
        with attached(parent):
            yield trace.get_current_span()
        return
    links = [Link(found) for headers in linked if (found := _span_context(headers)) is not None]
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=_KINDS[kind],
        links=links,
        attributes={_dotted(key): value for key, value in attributes.items()}
        | ({_ALWAYS: True} if always else {}),
    ) as current:
        yield current


def _dotted(name: str) -> str:
    return name.replace("__", "\0").replace("_", ".").replace("\0", "_")


def _span_context(headers: Mapping[str, Any]) -> trace.SpanContext | None:
    context = extract(headers)
    return None if context is None else trace.get_current_span(context).get_span_context()


class ServerSpan:
    """The span of one request; told at the end what it was."""

    def __init__(self, current: Span | None) -> None:
        self._span = current

    def describe(self, method: str, route: str, status: int) -> None:
        """Name the span after the route's template and note the outcome."""
        if self._span is None:
            return
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))


_NO_SPAN: Final = ServerSpan(None)


@contextmanager
def server_span(name: str, parent: str | None) -> Iterator[ServerSpan]:
    """The span of a request that came with `traceparent`; almost free when there is neither a parent nor a collector."""
    context = extract({TRACEPARENT: parent}) if parent else None
    if _tracing.tracer is None:
        with attached(context):
            yield _NO_SPAN
        return
    with _tracing.tracer.start_as_current_span(name, context=context, kind=SpanKind.SERVER) as current:
        yield ServerSpan(current)
