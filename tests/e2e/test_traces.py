"""One trace over all five services: in one process, every span in memory, the edges that must join them."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest
import websockets
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cryptopulse.common.config import SERVICES
from cryptopulse.common.runtime.command import run
from cryptopulse.common.runtime.shutdown import Signals
from cryptopulse.common.telemetry import tracing
from tools.harness.receiver import Receiver
from tools.harness.system import Backends, System
from tools.local_stack.config import settings_of

WAIT_SECONDS = 30


class Told(Signals):
    """Stops when the test says so."""

    def install(self) -> None:
        """The process's signals stay pytest's."""

    def remove(self) -> None:
        """As above."""


@dataclass
class OneProcess(System):
    """The system with its five services as tasks of this event loop; the venues stay a process."""

    tasks: dict[str, asyncio.Task[int]] = field(default_factory=dict)
    told: Told = field(default_factory=Told)

    def start(self, service: str) -> None:
        """Start one service as `__main__` does."""
        build = importlib.import_module(f"cryptopulse.{service}.bootstrap").build
        settings = settings_of(service).load(self.environment)
        self.tasks[service] = asyncio.create_task(run(settings, build, signals=self.told), name=service)

    async def stop(self) -> dict[str, int]:
        """Drain all five; then the venues."""
        self.told.stop.set()
        await asyncio.wait(self.tasks.values(), timeout=40)
        return await super().stop()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    yield tracing.collect_in_memory()
    tracing.shutdown()


class Edges:
    """Who caused whom, by the spans: a child continues its parent's trace, a batch is linked to what it holds."""

    def __init__(self, spans: tuple[ReadableSpan, ...]) -> None:
        self.by_id = {span.context.span_id: span for span in spans if span.context is not None}

    def causes(self, span: ReadableSpan, *, linked: bool) -> list[ReadableSpan]:
        """What a span was started by, or is linked to."""
        contexts = [link.context for link in span.links] if linked else [span.parent]
        return [self.by_id[one.span_id] for one in contexts if one is not None and one.span_id in self.by_id]

    def named(self, name: str, **wanted: str) -> list[ReadableSpan]:
        """Spans of a name with these attributes, `_` for the dot."""
        return [span for span in self.by_id.values() if span.name == name and is_of(span, **wanted)]

    def chain(self, last: list[ReadableSpan], *names: str) -> list[ReadableSpan]:
        """Those at the end of a chain of parents, or links by a leading `~`, from `last` back."""
        for name in names:
            plain = name.removeprefix("~")
            last = [
                cause
                for span in last
                for cause in self.causes(span, linked=name != plain)
                if cause.name == plain
            ]
        return last


def is_of(span: ReadableSpan, **wanted: str) -> bool:
    """Whether a span carries these attributes."""
    known = span.attributes or {}
    return all(known.get(name.replace("_", ".")) == value for name, value in wanted.items())


@pytest.mark.timeout(240)
async def test_a_trace_joins_the_services(
    spans: InMemorySpanExporter, rabbit_vhost: str, redis_db: str, postgres_db: str, tmp_path: Any
) -> None:
    backends = Backends(rabbit_vhost, redis_db, postgres_db)
    async with OneProcess(backends, tmp_path / "system") as system, Receiver() as receiver:
        for service in SERVICES:
            await system.until_ready(service)
        system.client.timeout = httpx.Timeout(30)
        await system.price("BTC")
        headers = await system.login()

        async def ordered() -> bool:
            order = {"symbol": "BTC", "quantity": "0.5", "price": "100"}
            answer = await system.client.post("/portfolio", json=order, headers=headers)
            return bool(answer.status_code == 201)

        # All five share one loop that also loads their first history: a slow answer is tried again.
        await system.until(ordered, what="a purchase is booked", of="portfolio")
        await one_alert(system, headers, receiver)
        for service in SERVICES:
            assert not system.tasks[service].done(), f"{service} ended"
        edges = Edges(spans.get_finished_spans())

    for consumer in ("indicators", "alerts"):
        handled = edges.named("ticks handle", messaging_client_id=consumer)
        found = edges.chain(handled, "~ticks publish")
        assert found, f"no ticks of {consumer} are linked to the ingestor's"
        assert all(is_of(span, messaging_client_id="ingestor", messaging_system="rabbitmq") for span in found)
        assert all(span.parent is None for span in handled), (
            "a batch has many causes: it continues none of them"
        )

    sent = edges.named("socket send")
    told = edges.chain(sent, "alert-events handle", "alert-events publish")
    assert told, "no frame of a socket continues an alert's trace"
    assert is_of(told[0], messaging_client_id="alerts", messaging_destination_name="alerts.events")
    fired = edges.chain(told, "ticks handle")
    assert fired, "the alert does not belong to the ticks that fired it"
    assert fired == edges.chain(edges.named("webhook deliver"), "ticks handle"), (
        "the webhook belongs to others"
    )
    assert edges.chain(fired, "~ticks publish"), "what fired is not linked to the ingestor's ticks"

    asked = edges.named("POST", peer_service="portfolio")
    outside = [cause for span in asked for cause in edges.causes(span, linked=False)]
    assert "POST /portfolio" in {span.name for span in outside}
    inside = [
        span
        for span in edges.by_id.values()
        if set(map(id, edges.causes(span, linked=False))) & set(map(id, asked))
    ]
    assert inside, "no span of the portfolio service continues the gateway's"
    assert all(is_of(span, http_request_method="POST") for span in inside)


async def one_alert(system: OneProcess, headers: dict[str, str], receiver: Receiver) -> None:
    """A rule over one venue's own trades fires: heard on a socket and at a webhook."""
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": [{"ch": "alerts"}]}))
        price = Decimal((await system.price("BTC"))["price"])
        threshold = str((price * Decimal("1.005")).quantize(Decimal("0.01")))
        condition = {"type": "price_cross_up", "value": threshold}
        rule = {"symbol": "BTC-USDT", "condition": condition, "webhook_url": receiver.url}
        made = await system.client.post("/v1/alerts", json=rule, headers=headers)
        assert made.status_code == 201, made.text
        assert made.json()["source"] == "binance"
        path = [
            [seconds, float(price) * factor]
            for seconds, factor in ((0, 0.99), (3, 0.99), (4, 1.02), (7, 0.99))
        ]
        script = {"venue": "binance", "symbol": "BTC-USDT", "path": [*path, [8, path[-2][1]]], "hold": True}
        await system.control("POST", "/script", json=script)
        async with asyncio.timeout(WAIT_SECONDS):
            while json.loads(await socket.recv()).get("type") != "alert":
                pass
        await receiver.first(WAIT_SECONDS)
