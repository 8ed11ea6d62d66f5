"""History's workers: one loop per venue, and one that has closed minutes checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cryptopulse.common.runtime import Runtime
from cryptopulse.ingestor.application.backfill import Backfill
from cryptopulse.ingestor.application.feed import VenueFeed

BEAT_SECONDS = 5.0


def register(runtime: Runtime, backfill: Backfill, feeds: Sequence[VenueFeed], check_seconds: int) -> None:
    """Register one worker per venue; `check_seconds` 0 leaves the check out."""
    for feed in feeds:
        runtime.loop(f"history-{feed.venue.name}", partial(_work, backfill, feed))
    if check_seconds:
        runtime.loop("history-check", partial(_check, backfill, feeds, check_seconds))


async def _work(backfill: Backfill, feed: VenueFeed, beat: Callable[[], None]) -> None:
    await backfill.run(feed.venue.name, feed.natives, beat)


async def _check(
    backfill: Backfill, feeds: Sequence[VenueFeed], seconds: int, beat: Callable[[], None]
) -> None:
    left = 0.0
    while True:
        beat()
        if left <= 0:
            left = seconds
            for feed in feeds:
                backfill.check(feed.venue.name, feed.followed)
        pause = min(left, BEAT_SECONDS)
        await asyncio.sleep(pause)
        left -= pause
