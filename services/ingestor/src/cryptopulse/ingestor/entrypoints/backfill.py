"""History's workers: one loop per venue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cryptopulse.common.runtime import Runtime
from cryptopulse.ingestor.application.backfill import Backfill


def register(
    runtime: Runtime, backfill: Backfill, venues: Sequence[str], natives: Mapping[str, Mapping[str, str]]
) -> None:
    """Register one worker per venue; `natives` answers the venue's name of a symbol."""
    for venue in venues:
        runtime.loop(f"history-{venue}", partial(_work, backfill, venue, natives[venue]))


async def _work(backfill: Backfill, venue: str, natives: Mapping[str, str], beat: Callable[[], None]) -> None:
    await backfill.run(venue, natives, beat)
