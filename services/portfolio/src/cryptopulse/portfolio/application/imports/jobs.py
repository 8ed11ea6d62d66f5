"""Long files, one at a time in the background: memory stays bounded, requests stay short, the caller sees how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import LimitExceeded, Refused, Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.portfolio.application.imports.use_case import Imported, Importer, Request
from cryptopulse.portfolio.application.ports import Books, ImportJob, Unit
from cryptopulse.portfolio.domain.money import use_money_context

WAITING_FILES: Final = 4
"""Files that wait in memory, each of at most 16 MiB; a further one is refused for the time being."""
BUSY: Final = "Other long files are being imported: send it again in a minute."
TELL_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 5.0
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Work:
    owner_id: str
    portfolio_id: int
    job_id: int
    request: Request


class ImportJobs:
    """A queue of files and the one loop that works on them. A file is recorded as a whole or not at all."""

    def __init__(
        self, importer: Importer, books: Books, clock: Clock, answer_of: Callable[[Imported], bytes]
    ) -> None:
        self._importer = importer
        self._books = books
        self._clock = clock
        self._answer_of = answer_of
        self._queue: asyncio.Queue[_Work] = asyncio.Queue(WAITING_FILES)

    async def submit(self, owner_id: str, portfolio_id: int, request: Request) -> ImportJob:
        """Take a file in. Raises `NotFound`; `LimitExceeded` while too many files wait."""
        async with self._books.unit(owner_id) as unit:
            await unit.portfolio(portfolio_id)
            if self._queue.full():
                raise LimitExceeded(BUSY, retry_after_seconds=60.0)
            job_id = await unit.new_job(portfolio_id)
            job = await unit.job(portfolio_id, job_id)
        try:
            self._queue.put_nowait(_Work(owner_id, portfolio_id, job_id, request))
        except asyncio.QueueFull:
            await self._tell(owner_id, job_id, "failed", problem=("busy", BUSY))
            raise LimitExceeded(BUSY, retry_after_seconds=60.0) from None
        return job

    async def job(self, owner_id: str, portfolio_id: int, job_id: int) -> ImportJob:
        """How far an import is. Raises `NotFound`."""
        async with self._books.unit(owner_id, readonly=True) as unit:
            await unit.portfolio(portfolio_id)
            return await unit.job(portfolio_id, job_id)

    async def run(self, beat: Callable[[], None]) -> None:
        """Work for ever."""
        use_money_context()
        while True:
            beat()
            try:
                work = await asyncio.wait_for(self._queue.get(), IDLE_SECONDS)
            except TimeoutError:
                continue
            await self._work(work, beat)

    async def _work(self, work: _Work, beat: Callable[[], None]) -> None:
        told = self._clock.monotonic()

        async def progress(rows: int) -> None:
            nonlocal told
            beat()
            now = self._clock.monotonic()
            if now - told >= TELL_SECONDS:
                told = now
                await self._tell(work.owner_id, work.job_id, "running", rows_read=rows)

        async def finish(unit: Unit, found: Imported) -> None:
            # With the books in one transaction: a job is done exactly when its file is recorded.
            body = await asyncio.to_thread(self._answer_of, found)
            await unit.update_job(work.job_id, "done", rows_read=found.rows, result=body)

        try:
            await self._tell(work.owner_id, work.job_id, "running", rows_read=0)
            await self._importer.run(work.owner_id, work.portfolio_id, work.request, progress, finish)
            return
        except Refused as error:
            problem = (error.code, error.detail)
        except Retryable as error:
            log.warning("an import waits for nobody", job=work.job_id, error=str(error))
            problem = (
                "unavailable",
                "A store or service was away; nothing was recorded: send the file again.",
            )
        await self._tell(work.owner_id, work.job_id, "failed", problem=problem)

    async def _tell(self, owner_id: str, job_id: int, state: str, **more: object) -> None:
        try:
            async with self._books.unit(owner_id) as unit:
                await unit.update_job(job_id, state, **more)  # type: ignore[arg-type] # its own keywords
        except Retryable as error:
            log.warning("the state of an import could not be kept", job=job_id, error=str(error))
