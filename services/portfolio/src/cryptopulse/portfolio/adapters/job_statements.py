"""Statements on imports that run in the background."""

from __future__ import annotations

from typing import Final

from cryptopulse.common.errors import NotFound
from cryptopulse.portfolio.adapters.statements import Statements
from cryptopulse.portfolio.application.ports import ImportJob

KEPT_DAYS: Final = 7
SILENT_SECONDS: Final = 90
"""A running job that has not been heard of for so long died with its process."""
WAITING_SECONDS: Final = 900
"""So did one that waits for so long."""


class JobStatements(Statements):
    """Import jobs; the outcome is kept as it will be answered."""

    async def new_job(self, portfolio_id: int) -> int:
        """A waiting one. Old ones of this owner go."""
        await self._db.execute(
            "DELETE FROM import_job WHERE owner_id = $1 AND created_at < now() - make_interval(days => $2)",
            self._owner, KEPT_DAYS,
        )  # fmt: skip
        number: int = await self._db.fetchval(
            "INSERT INTO import_job (portfolio_id, owner_id, state) VALUES ($1, $2, 'waiting') RETURNING id",
            portfolio_id, self._owner,
        )  # fmt: skip
        return number

    async def job(self, portfolio_id: int, job_id: int) -> ImportJob:
        """By id. One whose process is gone reads as failed."""
        row = await self._db.fetchrow(
            "SELECT *, state = 'running' AND updated_at < now() - make_interval(secs => $4) "
            "OR state = 'waiting' AND updated_at < now() - make_interval(secs => $5) AS is_dead "
            "FROM import_job WHERE portfolio_id = $1 AND id = $2 AND owner_id = $3",
            portfolio_id, job_id, self._owner, SILENT_SECONDS, WAITING_SECONDS,
        )  # fmt: skip
        if row is None:
            raise NotFound("There is no such import in this portfolio.", code="job-not-found")
        dead = row["is_dead"]
        return ImportJob(
            id=row["id"],
            portfolio_id=portfolio_id,
            state="failed" if dead else row["state"],
            rows_read=row["rows_read"],
            result=None if row["result"] is None else bytes(row["result"]),
            problem_code="interrupted" if dead else row["problem_code"],
            problem="The import was interrupted and recorded nothing: send the file again."
            if dead
            else row["problem"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )

    async def update_job(
        self,
        job_id: int,
        state: str,
        *,
        rows_read: int | None = None,
        result: bytes | None = None,
        problem: tuple[str, str] | None = None,
    ) -> None:
        """How far it is, or how it ended; `problem` is code and text."""
        code, text = problem or (None, None)
        await self._db.execute(
            "UPDATE import_job SET state = $3, rows_read = coalesce($4, rows_read), result = $5, problem_code = $6, "
            "problem = $7, updated_at = now() WHERE id = $1 AND owner_id = $2",
            job_id, self._owner, state, rows_read, result, code, text,
        )  # fmt: skip
