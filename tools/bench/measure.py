"""Interleaved measurements: each contender runs in turn, several rounds, so that a drifting machine hits all alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

SizeT = TypeVar("SizeT", int, str)
QUICK = os.environ.get("BENCH_QUICK") == "1"
"""True for a run that only shows that every case works: small sizes, one round."""


def sized(full: SizeT, quick: SizeT) -> SizeT:
    """A size for this run."""
    return quick if QUICK else full


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: items handled, CPU seconds of the process measured, wall seconds; `extra` are figures of its own."""

    items: int
    cpu_seconds: float
    wall_seconds: float
    extra: dict[str, float] = field(default_factory=dict)


Run = Callable[[], Awaitable[Sample] | Sample]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to measure. The first of a case is ours; the others are yardsticks."""

    name: str
    run: Run


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender did: per second of CPU and of wall time, the median over rounds with its spread."""

    case: str
    name: str
    unit: str
    rounds: int
    per_cpu_second: float
    low: float
    high: float
    per_wall_second: float
    cpu_us_per_item: float
    ratio: float | None = None
    hold: str = ""
    extra: dict[str, float] = field(default_factory=dict)
    note: str = ""
    """What no figure says."""


class Stopwatch:
    """CPU and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def sample(self, items: int, **extra: float) -> Sample:
        """What has passed until now, for that many items."""
        cpu = time.process_time() - self._cpu
        return Sample(items, cpu, time.perf_counter() - self._wall, extra)


async def interleaved(
    case: str, unit: str, contenders: Sequence[Contender], *, rounds: int = 5, warmup: int = 1, hold: str = ""
) -> list[Row]:
    """Run all contenders in turn, `rounds` times after a warm-up; a row each, with the ratio ours/yardstick pair by pair."""
    if QUICK:
        rounds, warmup = 1, 0
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(warmup + rounds):
        for contender in contenders:
            answer = contender.run()
            sample = answer if isinstance(answer, Sample) else await answer
            if number >= warmup:
                samples[contender.name].append(sample)
    ours = [_cpu_rate(sample) for sample in samples[contenders[0].name]]
    rows = []
    for place, contender in enumerate(contenders):
        taken = samples[contender.name]
        rates = [_cpu_rate(sample) for sample in taken]
        rate = statistics.median(rates)
        rows.append(
            Row(
                case=case,
                name=contender.name,
                unit=unit,
                rounds=rounds,
                per_cpu_second=rate,
                low=min(rates),
                high=max(rates),
                per_wall_second=statistics.median(s.items / s.wall_seconds for s in taken),
                cpu_us_per_item=1e6 / rate if rate else 0.0,
                ratio=statistics.median(a / b for a, b in zip(ours, rates, strict=True)) if place else None,
                hold="" if place else hold,
                extra=_medians(taken),
            )
        )
    return rows


def _cpu_rate(sample: Sample) -> float:
    return sample.items / sample.cpu_seconds if sample.cpu_seconds else 0.0


def _medians(samples: Sequence[Sample]) -> dict[str, float]:
    names = samples[0].extra if samples else {}
    return {name: statistics.median(sample.extra[name] for sample in samples) for name in names}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
