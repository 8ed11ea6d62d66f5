"""Traces are on and nobody collects them: the process becomes ready, does its work and ends in time with exit code 0."""

from __future__ import annotations

import asyncio
import time

import pytest

from .conftest import Process, Receiver, Service, free_port, until
from .test_alerts_route import applied, heard_events, send_price, with_market

LAST_SPANS_SECONDS = 3.0
"""How long a process that ends waits for a collector: `tracing.shutdown`."""


@pytest.fixture(autouse=True)
def collector_port(process: Process) -> int:
    """Where the collector would be. It is asked for before `service` starts the process."""
    port = free_port()
    process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    return port


async def test_a_collector_that_is_away_harms_nothing(
    collector_port: int, service: Service, receiver: Receiver
) -> None:
    await with_market(service)
    heard = await heard_events(service)
    rule = {"symbol": "BTC", "condition": "above", "price": "70000", "webhook_url": receiver.url}
    made = await service.as_user("ann").post("/alerts", json=rule)
    assert made.status_code == 201, made.text
    await applied(service, made.json()["id"])
    await send_price(service, "69000", 1)
    await send_price(service, "70001", 2)
    await until(lambda: len(heard) == 1 and len(receiver.requests) == 1, what="event and webhook")
    log = service.process.log
    await until(lambda: f"port={collector_port}" in log.read_text(), what="an export that was refused")

    started = time.monotonic()
    code = await asyncio.to_thread(service.process.stop)
    taken = time.monotonic() - started
    assert code == 0, log.read_text()[-4000:]
    assert taken < LAST_SPANS_SECONDS + 5
    assert "Traceback" not in log.read_text()
