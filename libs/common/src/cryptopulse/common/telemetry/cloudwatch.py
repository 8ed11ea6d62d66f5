"""A few figures for CloudWatch, as one JSON line a minute on stdout in the Embedded Metric Format; off unless configured.

What ECS scales and alarms by has to be in CloudWatch; everything else stays in `/metrics`. Each process reports for
itself, so that the average over processes is the figure per task.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.samples import Sample

from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.telemetry.metric_names import MetricName

PERIOD_SECONDS: Final = 60.0
Kind = Literal["sum", "max", "min", "rise", "p95", "age"]
"""How the samples of a metric become one number: a sum, the largest or smallest, the rise of a counter since the last
line, the 95th percentile of a histogram since then, or the seconds since the newest of several times."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One CloudWatch metric: its name and unit there, and the metric of ours that it is read from."""

    name: str
    source: MetricName
    kind: Kind
    unit: Literal["Count", "Seconds", "None"] = "Count"
    where: tuple[str, str] | None = None
    """Label and prefix that a sample must have to count."""


FIGURES: Final[tuple[Figure, ...]] = (
    Figure("QueueReadyMessages", "cryptopulse_bus_queue_ready_messages", "sum"),
    Figure("QueueAge", "cryptopulse_bus_queue_age_seconds", "p95", "Seconds"),
    Figure("TickAge", "cryptopulse_tick_age_seconds", "p95", "Seconds"),
    Figure("LastTickAge", "cryptopulse_last_tick_timestamp_seconds", "age", "Seconds"),
    Figure("AlertLatency", "cryptopulse_alert_latency_seconds", "p95", "Seconds"),
    Figure("SocketsOpen", "cryptopulse_sockets_open", "sum"),
    Figure("HttpRequests", "cryptopulse_http_requests_total", "rise"),
    Figure("HttpServerErrors", "cryptopulse_http_requests_total", "rise", where=("status", "5")),
    Figure(
        "DeadLettered", "cryptopulse_bus_messages_handled_total", "rise", where=("outcome", "dead_lettered")
    ),
    Figure("TradesLost", "cryptopulse_trades_lost_total", "rise"),
    Figure("ProviderBudgetLeft", "cryptopulse_provider_budget_left_ratio", "min", "None"),
    Figure("OutboxOldestAge", "cryptopulse_outbox_oldest_age_seconds", "max", "Seconds"),
    Figure("EventLoopLag", "cryptopulse_event_loop_lag_seconds", "max", "Seconds"),
    Figure("LoopRestarts", "cryptopulse_loop_restarts_total", "rise"),
)


@dataclass
class CloudWatchWriter:
    """Writes the line. `write` takes one line without its end; stdout unless a test says otherwise."""

    service: str
    namespace: str
    clock: Clock = field(default_factory=SystemClock)
    registry: CollectorRegistry = REGISTRY
    write: Callable[[str], object] = field(default=lambda line: print(line, file=sys.stdout, flush=True))  # noqa: T201 - a log line
    _before: dict[str, float] = field(default_factory=dict)

    async def run(self, beat: Callable[[], None]) -> None:
        """A line each minute, for ever."""
        self.line()  # where counters stand now
        while True:
            for _ in range(6):
                beat()
                await asyncio.sleep(PERIOD_SECONDS / 6)
            if line := self.line():
                self.write(line)

    def line(self) -> str:
        """The figures of the time since the last call; empty when this process has none of them."""
        samples = self._samples()
        values: dict[str, float] = {}
        for figure in FIGURES:
            value = self._value(figure, samples.get(figure.source, []))
            if value is not None and math.isfinite(value):
                values[figure.name] = round(value, 6)
        if not values:
            return ""
        units = {figure.name: figure.unit for figure in FIGURES}
        document: dict[str, Any] = {
            "_aws": {
                "Timestamp": self.clock.now_us() // 1000,
                "CloudWatchMetrics": [
                    {
                        "Namespace": self.namespace,
                        "Dimensions": [["Service"]],
                        "Metrics": [{"Name": name, "Unit": units[name]} for name in values],
                    }
                ],
            },
            "Service": self.service,
            **values,
        }
        return orjson.dumps(document).decode()

    def _samples(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    found.setdefault(sample.name.removesuffix("_bucket"), []).append(sample)
        return found

    def _value(self, figure: Figure, samples: Iterable[Sample]) -> float | None:
        chosen = [
            sample
            for sample in samples
            if figure.where is None or sample.labels.get(figure.where[0], "").startswith(figure.where[1])
        ]
        if figure.kind == "p95":
            return self._percentile(figure, chosen)
        numbers = [sample.value for sample in chosen]
        if figure.kind == "rise":
            total = sum(numbers)
            before, self._before[figure.name] = self._before.get(figure.name, 0.0), total
            return max(0.0, total - before) if chosen or before else None
        if not numbers:
            return None
        if figure.kind == "age":
            newest = max(numbers)
            return self.clock.now_us() / 1e6 - newest if newest > 0 else None
        if figure.kind == "sum":
            return sum(numbers)
        return max(numbers) if figure.kind == "max" else min(numbers)

    def _percentile(self, figure: Figure, buckets: list[Sample]) -> float | None:
        """The upper bound of the bucket that holds the 95th percentile; None when nothing was observed since."""
        rises: dict[float, float] = {}
        for sample in buckets:
            if "le" not in sample.labels:
                continue
            key = f"{figure.source}{sorted(sample.labels.items())}"
            bound = float(sample.labels["le"])
            rises[bound] = rises.get(bound, 0.0) + sample.value - self._before.get(key, 0.0)
            self._before[key] = sample.value
        count = rises.get(math.inf, 0.0)
        if count <= 0:
            return None
        finite = sorted(bound for bound in rises if math.isfinite(bound))
        return next((bound for bound in finite if rises[bound] >= 0.95 * count), finite[-1])
