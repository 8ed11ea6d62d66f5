"""Long files in the background: the caller sees how far they are, one at a time, and why one ended badly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.errors import Invalid, LimitExceeded, StoreUnavailable
from cryptopulse.portfolio.application.imports.jobs import WAITING_FILES, ImportJobs
from cryptopulse.portfolio.application.imports.reading import Options
from cryptopulse.portfolio.application.imports.use_case import Finish, Imported, Progress, Request
from cryptopulse.portfolio.application.ports import ImportJob

REQUEST = Request(b"", None, True, False, False, Options())


class World:
    """A store of jobs, and an importer that reads a thousand rows a quarter of a second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[tuple[int, str, Any]] = []
        self.fails: Exception | None = None
        self.running = self.most = 0
        importer: Any = self
        self.jobs = ImportJobs(importer, importer, self.clock, lambda found: found.format.encode())

    @asynccontextmanager
    async def unit(self, owner_id: str, *, readonly: bool = False) -> AsyncIterator[Any]:
        assert owner_id == "alice"
        yield self

    async def portfolio(self, portfolio_id: int) -> int:
        return portfolio_id

    async def new_job(self, portfolio_id: int) -> int:
        self.told.append((len({job for job, *_ in self.told}) + 1, "waiting", 0))
        return self.told[-1][0]

    async def job(self, portfolio_id: int, job_id: int) -> ImportJob:
        now = datetime.now(UTC)
        return ImportJob(job_id, portfolio_id, "waiting", 0, None, None, None, now, now)

    async def update_job(
        self, job_id: int, state: str, *, rows_read: int | None = None, result: bytes | None = None,
        problem: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.told.append((job_id, state, problem[0] if problem else result or rows_read))

    async def run(
        self, owner_id: str, portfolio_id: int, request: Request, progress: Progress, finish: Finish
    ) -> None:  # fmt: skip
        self.running += 1
        self.most = max(self.most, self.running)
        for rows in range(1_000, 13_000, 1_000):
            self.clock.advance(0.25)
            await progress(rows)
            await asyncio.sleep(0)
        self.running -= 1
        if self.fails is not None:
            raise self.fails
        portfolio: Any = None
        unit: Any = self
        await finish(unit, Imported(portfolio, "cryptopulse", "utf-8", True, [], Counter(), rows=12_000))

    async def work(self) -> None:
        """Until the queue is empty."""
        task = asyncio.create_task(self.jobs.run(lambda: None))
        while self.told[-1][1] in {"waiting", "running"}:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_progress_is_told_once_a_second_and_the_end_with_its_result() -> None:
    world = World()
    await world.jobs.submit("alice", 7, REQUEST)
    await world.work()
    assert world.told == [
        (1, "waiting", 0), (1, "running", 0), (1, "running", 4_000), (1, "running", 8_000), (1, "running", 12_000),
        (1, "done", b"cryptopulse"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [(Invalid("no", code="unknown-format"), "unknown-format"), (StoreUnavailable("away"), "unavailable")],
)
async def test_a_file_that_fails_says_why_and_the_next_one_is_taken(error: Exception, code: str) -> None:
    world = World()
    world.fails = error
    await world.jobs.submit("alice", 7, REQUEST)
    await world.work()
    assert world.told[-1] == (1, "failed", code)
    world.fails = None
    await world.jobs.submit("alice", 7, REQUEST)
    await world.work()
    assert world.told[-1][:2] == (2, "done")


async def test_files_wait_in_line_and_one_too_many_is_refused_for_now() -> None:
    world = World()
    for _ in range(WAITING_FILES):
        await world.jobs.submit("alice", 7, REQUEST)
    with pytest.raises(LimitExceeded) as refused:
        await world.jobs.submit("alice", 7, REQUEST)
    assert refused.value.retry_after_seconds == 60.0
    task = asyncio.create_task(world.jobs.run(lambda: None))
    while sum(state == "done" for _, state, _ in world.told) < WAITING_FILES:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.most == 1
