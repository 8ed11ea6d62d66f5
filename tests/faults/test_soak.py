"""The soak: load for long with a random fault each minute; nothing lost, and memory, descriptors, tasks and queues stay flat.

A killed process begins anew, so flatness is judged over each process's own life, from two minutes after its start.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from tests.faults.judge import Judge
from tests.faults.report import Report
from tests.faults.route_case import LARGEST_MIB, fill_from_metrics, until_fresh
from tests.faults.stand import BEHIND, FIVE, Stand, watching

MINUTES = float(os.environ.get("CRYPTOPULSE_SOAK_MINUTES", "30"))
RATE = float(os.environ.get("CRYPTOPULSE_SOAK_RATE", "2000"))
REST_RATE: Final = 80
FAULT_EVERY_SECONDS: Final = 60.0
LOOK_EVERY_SECONDS: Final = 5.0
WARM_SECONDS: Final = 120.0
LEAST_LIFE_SECONDS: Final = 360.0
"""A life shorter than this, after its warm-up, says nothing about growth."""
QUEUED_MOST: Final = 2_000
"""Messages in all queues just before a fault, a minute after the last one: seconds of load, not a backlog that grows."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.soak, pytest.mark.slow]

VENUE_FAULTS: Final[tuple[dict[str, object], ...]] = (
    {"kind": "cut"},
    {"kind": "close", "code": 1012},
    {"kind": "half_open"},
    {"kind": "rest_status", "status": 429, "retry_after": 2, "count": 2},
    {"kind": "rest_cut", "count": 2},
    {"kind": "corrupt", "content": "truncated", "insert": True, "count": 5},
    {"kind": "drop", "channel": "trade", "probability": 0.02, "seconds": 20},
    {"kind": "duplicate", "channel": "trade", "probability": 0.1, "seconds": 20},
    {"kind": "reorder", "channel": "trade", "probability": 0.05, "window": 4, "seconds": 20},
)


@dataclass(frozen=True, slots=True)
class Look:
    """One process at one moment."""

    age: float
    mib: float
    descriptors: int
    tasks: int


@dataclass(slots=True)
class Lives:
    """What each process (service, pid) was seen to use, in order."""

    born: dict[tuple[str, int], float] = field(default_factory=dict)
    looks: dict[tuple[str, int], list[Look]] = field(default_factory=lambda: defaultdict(list))
    queued: list[int] = field(default_factory=list)

    async def look(self, stand: Stand) -> None:
        """Look at all five; one that is away or starting is left out."""
        for service in FIVE:
            process = stand.processes[service]
            tasks = await stand.count(service, "cryptopulse_event_loop_tasks")
            if process.poll() is not None or not tasks:
                continue
            life = service, process.pid
            born = self.born.setdefault(life, time.monotonic())
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            seen = Look(time.monotonic() - born, await stand.memory_mib(service), descriptors, tasks)
            self.looks[life].append(seen)

    def thirds(self) -> dict[str, tuple[Look, Look]]:
        """Service -> medians over the first and the last third of its longest life after the warm-up."""
        found: dict[str, tuple[float, Look, Look]] = {}
        for (service, _), looks in self.looks.items():
            warm = [look for look in looks if look.age > WARM_SECONDS]
            if not warm or (life := warm[-1].age - warm[0].age) < LEAST_LIFE_SECONDS:
                continue
            third = len(warm) // 3
            if service not in found or found[service][0] < life:
                found[service] = life, _median(warm[:third]), _median(warm[-third:])
        return {service: (first, last) for service, (_, first, last) in found.items()}


def _median(looks: list[Look]) -> Look:
    return Look(
        age=median(look.age for look in looks),
        mib=median(look.mib for look in looks),
        descriptors=int(median(look.descriptors for look in looks)),
        tasks=int(median(look.tasks for look in looks)),
    )


def faults_of(stand: Stand, dice: random.Random) -> dict[str, Callable[[], Awaitable[None]]]:
    """Every fault of the soak by name; each ends healed, or heals by itself within a minute."""

    async def service_killed() -> None:
        service = dice.choice(FIVE)
        stand.kill(service)
        await asyncio.sleep(dice.uniform(0, 5))
        stand.start(service)

    async def service_paused() -> None:
        process = stand.processes[dice.choice(FIVE)]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(2, 8))
        process.send_signal(signal.SIGCONT)

    async def server_killed() -> None:
        name = dice.choice(("rabbitmq", "redis", "postgres"))
        stand.servers.kill(name)
        await asyncio.sleep(dice.uniform(0, 8))
        await stand.servers.revive(name)

    async def connections_reset() -> None:
        assert stand.proxies is not None
        stand.proxies.reset(dice.choice(("rabbitmq", "redis", "postgres", *BEHIND)))

    async def silence() -> None:
        assert stand.proxies is not None
        stand.proxy[dice.choice(("rabbitmq", "redis", "postgres"))].toxics.blackhole = True
        await asyncio.sleep(dice.uniform(3, 15))
        stand.proxies.heal()

    async def venue_misbehaves() -> None:
        fault = dice.choice(VENUE_FAULTS)
        await stand.control("POST", "/fault", json={**fault, "venue": dice.choice(("binance", "coinbase"))})

    return {
        fault.__name__: fault
        for fault in (
            service_killed,
            service_paused,
            server_killed,
            connections_reset,
            silence,
            venue_misbehaves,
        )
    }


async def queued(stand: Stand) -> int:
    """Messages in all queues of the broker, dead letters left out."""
    listed = await asyncio.to_thread(
        stand.servers.rabbitmqctl, "list_queues", "--quiet", "--no-table-headers", "name", "messages"
    )
    rows = [line.split() for line in listed.splitlines()]
    return sum(int(row[1]) for row in rows if len(row) == 2 and ".dlq" not in row[0])


@pytest.mark.timeout(int(MINUTES * 60) + 1_200)
async def test_soak(stand: Stand, dice: random.Random) -> None:
    await stand.settled_in()
    report = Report(0, f"soak {MINUTES:.0f} min at {RATE:.0f} ticks/s")
    judge, lives, faults = Judge(stand), Lives(), faults_of(stand, dice)
    done: dict[str, int] = defaultdict(int)
    await stand.control("POST", "/rate", json={"rate": RATE})
    end, fault_at = time.monotonic() + MINUTES * 60, time.monotonic() + FAULT_EVERY_SECONDS
    async with watching(stand) as pulse:
        while time.monotonic() < end:
            await lives.look(stand)
            if time.monotonic() >= fault_at:
                fault_at += FAULT_EVERY_SECONDS
                lives.queued.append(await queued(stand))
                name = dice.choice(sorted(faults))
                done[name] += 1
                await faults[name]()
            await asyncio.sleep(LOOK_EVERY_SECONDS)
        await stand.heal()
        await stand.control("POST", "/rate", json={"rate": REST_RATE})
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    thirds = lives.thirds()
    report.notes |= {"faults": dict(done), "queued_most": max(lives.queued, default=0)}
    for service, (first, last) in sorted(thirds.items()):
        report.notes[service] = (
            f"{first.mib:.0f}>{last.mib:.0f}MiB,{first.descriptors}>{last.descriptors}fds,"
            f"{first.tasks}>{last.tasks}tasks/{(last.age - first.age) / 60:.0f}min"
        )
    report.close()
    assert max(lives.queued, default=0) < QUEUED_MOST, lives.queued
    assert MINUTES < 20 or thirds, "no process lived long enough to be judged"
    for service, (first, last) in thirds.items():
        assert last.mib < min(LARGEST_MIB, first.mib * 1.2 + 20), f"{service} grows: {first} .. {last}"
        assert last.descriptors <= first.descriptors + 10, f"{service} keeps descriptors: {first} .. {last}"
        assert last.tasks <= first.tasks + 10, f"{service} keeps tasks: {first} .. {last}"
