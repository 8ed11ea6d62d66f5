"""Files over HTTP: the body is the file as it was exported; the answer says what became of every row."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fastapi.responses import Response

from cryptopulse.common.contracts.http.portfolio_reports import (
    ImportJobResponse,
    ImportProblem,
    ImportQuery,
    ImportResponse,
    ImportRow,
)
from cryptopulse.portfolio.application.imports.jobs import ImportJobs
from cryptopulse.portfolio.application.imports.reading import Options
from cryptopulse.portfolio.application.imports.use_case import (
    SHOWN_ROWS,
    Imported,
    Importer,
    Request,
    Verdict,
)
from cryptopulse.portfolio.application.ports import ImportJob
from cryptopulse.portfolio.entrypoints.requests import Asked, answer_of, response_of
from cryptopulse.portfolio.entrypoints.shapes import time_of

LONG_BYTES: Final = 256 * 1024
"""A longer file, of some 5,000 rows, is worked on in the background."""


class ImportsHttp:
    """Handlers named after the operation ids of the routes."""

    def __init__(self, importer: Importer, jobs: ImportJobs) -> None:
        self._importer = importer
        self._jobs = jobs

    async def import_transactions(self, ask: Asked) -> Response:
        query = ask.query(ImportQuery)
        number = ask.id("portfolio_id")
        request = Request(
            body=ask.body,
            format=query.format,
            commit=query.commit,
            flag_oversell=query.oversell == "flag",
            stablecoin_par=query.stablecoin_par,
            options=Options(timedelta(minutes=query.utc_offset_minutes), query.account, query.filename or ""),
            if_match=ask.if_match(),
        )
        if len(ask.body) > LONG_BYTES:
            job = await self._jobs.submit(ask.owner_id, number, request)
            return response_of(answer_of(_job(job), status=202))
        found = await self._importer.run(ask.owner_id, number, request)
        return response_of(answer_of(import_response(found), version=found.portfolio.version))

    async def get_import(self, ask: Asked) -> Response:
        job = await self._jobs.job(ask.owner_id, ask.id("portfolio_id"), ask.id("job_id"))
        return response_of(answer_of(_job(job)))


def _job(job: ImportJob) -> ImportJobResponse:
    return ImportJobResponse(
        id=job.id,
        portfolio_id=job.portfolio_id,
        state=job.state,  # type: ignore[arg-type] # one of its literals
        rows_read=job.rows_read,
        result=None if job.result is None else ImportResponse.model_validate_json(job.result),
        problem=None
        if job.problem_code is None
        else ImportProblem(code=job.problem_code, detail=job.problem or ""),
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


def import_response(found: Imported) -> ImportResponse:
    """Counts and the first rows."""
    counts = found.counts
    return ImportResponse(
        portfolio_id=found.portfolio.id,
        format=found.format,
        encoding=found.encoding,
        committed=found.committed,
        version=found.portfolio.version,
        total_rows=len(found.verdicts),
        ready=counts["ready"],
        recorded=counts["recorded"],
        duplicates=counts["duplicate"],
        ignored=counts["ignored"],
        errors=counts["error"],
        rows=[_row(verdict) for verdict in found.verdicts[:SHOWN_ROWS]],
        truncated=len(found.verdicts) > SHOWN_ROWS,
        first_at=None if found.first_us is None else time_of(found.first_us),
        last_at=None if found.last_us is None else time_of(found.last_us),
    )


def _row(verdict: Verdict) -> ImportRow:
    tx = verdict.transaction
    return ImportRow(
        row=verdict.row,
        status=verdict.status,  # type: ignore[arg-type] # one of its literals
        code=verdict.code,
        detail=verdict.detail,
        type=tx.kind if tx else None,
        asset=tx.asset if tx else None,
        quantity=tx.quantity if tx else None,
        transaction_id=verdict.transaction_id,
    )
