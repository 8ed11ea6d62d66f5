"""The line for CloudWatch: rises, percentiles and ages since the line before, and nothing that the process has not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.telemetry.cloudwatch import FIGURES, CloudWatchWriter
from cryptopulse.common.telemetry.metrics import names


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def writer(registry: CollectorRegistry, clock: ManualClock | None = None) -> CloudWatchWriter:
    return CloudWatchWriter("gateway", "CryptoPulse/test", clock or ManualClock(), registry)


def read(line: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_process_without_any_of_the_figures_writes_nothing(registry: CollectorRegistry) -> None:
    assert writer(registry).line() == ""


def test_every_figure_is_read_from_a_metric_that_exists() -> None:
    assert {figure.source for figure in FIGURES} <= names()
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_each_metric_of_the_line_is_declared_with_its_unit(registry: CollectorRegistry) -> None:
    sockets = Gauge("cryptopulse_sockets_open", "x", ["tier"], registry=registry)
    sockets.labels("free").set(3)
    sockets.labels("pro").set(4)
    document = read(writer(registry).line())
    assert document["SocketsOpen"] == 7
    assert document["Service"] == "gateway"
    (declared,) = document["_aws"]["CloudWatchMetrics"]
    assert declared["Namespace"] == "CryptoPulse/test"
    assert declared["Dimensions"] == [["Service"]]
    assert declared["Metrics"] == [{"Name": "SocketsOpen", "Unit": "Count"}]


def test_counters_are_told_as_their_rise(registry: CollectorRegistry) -> None:
    requests = Counter("cryptopulse_http_requests_total", "x", ["status"], registry=registry)
    requests.labels("200").inc(10)
    ours = writer(registry)
    ours.line()
    requests.labels("200").inc(5)
    requests.labels("503").inc(2)
    document = read(ours.line())
    assert (document["HttpRequests"], document["HttpServerErrors"]) == (7, 2)
    assert read(ours.line())["HttpRequests"] == 0


def test_a_percentile_looks_at_what_was_observed_since(registry: CollectorRegistry) -> None:
    ages = Histogram("cryptopulse_tick_age_seconds", "x", registry=registry, buckets=(0.1, 1.0, 10.0))
    for _ in range(1000):
        ages.observe(5)
    ours = writer(registry)
    assert read(ours.line())["TickAge"] == 10.0
    for _ in range(100):
        ages.observe(0.05)
    assert read(ours.line())["TickAge"] == 0.1
    assert ours.line() == ""


def test_the_age_of_the_last_tick_is_that_of_the_newest_venue(registry: CollectorRegistry) -> None:
    clock = ManualClock()
    last = Gauge("cryptopulse_last_tick_timestamp_seconds", "x", ["venue"], registry=registry)
    now = clock.now_us() / 1e6
    last.labels("binance").set(now - 3)
    last.labels("coinbase").set(now - 90)
    assert read(writer(registry, clock).line())["LastTickAge"] == pytest.approx(3, abs=0.01)
