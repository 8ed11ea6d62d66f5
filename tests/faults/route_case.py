"""What the cases of the route have in common: figures while a fault lasts, the ledger after it, and who must have survived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.faults.judge import MARKETS, Judge
from tests.faults.report import Report, Stopwatch
from tests.faults.stand import FIVE, Stand, watching

LARGEST_MIB = 600.0
"""No service may need more memory than this, whatever happens; they rest at 80 to 150 MiB."""


async def until_fresh(stand: Stand) -> float:
    """Seconds until the gateway has a price that is newer than now."""
    watch = Stopwatch()
    before = await stand.newest()

    async def newer() -> bool:
        now = await stand.newest()
        return now is not None and now != before

    await stand.until(newer, what="a fresh price", seconds=120)
    return watch.seconds()


async def fill_from_metrics(stand: Stand, report: Report) -> None:
    """What was confirmed and what was dropped as a double since the processes started."""
    report.confirmed = await stand.count(
        "ingestor", "cryptopulse_bus_messages_published_total", 'outcome="confirmed"', 'topic="ticks"'
    )
    report.duplicates = await stand.count("ingestor", "cryptopulse_trades_duplicate_total")


async def route_case(
    stand: Stand,
    report: Report,
    during: Callable[[], Awaitable[None]],
    *,
    but: tuple[str, ...] = (),
    markets: tuple[tuple[str, str], ...] = MARKETS,
    fill: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Do the damage and its repair, wait for fresh prices, compare all minutes with the ledger; `but` may have ended.

    `fill` adds the case's own figures to the report before it is closed.
    """
    await stand.settled_in()
    judge = Judge(stand, markets=markets)
    pids = {service: stand.processes[service].pid for service in FIVE}
    async with watching(stand) as pulse:
        await during()
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    memory = {service: await stand.memory_mib(service) for service in FIVE}
    report.notes["largest_mib"] = max(memory.values())
    for service in FIVE:
        if service not in but:
            assert stand.is_running(service), f"{service} ended\n{stand.log(service)}"
            assert stand.processes[service].pid == pids[service], f"{service} was started anew"
    if fill is not None:
        await fill()
    assert max(memory.values()) < LARGEST_MIB, memory
    report.close()
