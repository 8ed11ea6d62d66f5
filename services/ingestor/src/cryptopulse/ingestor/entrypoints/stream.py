"""Keeps the venues' feeds alive: one loop per venue, one per shard's publisher, all drained in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cryptopulse.common.runtime import Check, Runtime
from cryptopulse.ingestor.application.feed import VenueFeed
from cryptopulse.ingestor.application.publish import ShardPublisher

DRAIN_SECONDS = 8.0
BEAT_SECONDS = 5.0


def register(runtime: Runtime, feeds: Sequence[VenueFeed], publishers: Sequence[ShardPublisher]) -> None:
    """Register loops, readiness and drain of all feeds."""
    for feed in feeds:
        runtime.loop(f"feed-{feed.venue.name}", feed.run)
    for number, publisher in enumerate(publishers):
        runtime.loop(f"publisher-{number}", _beating(publisher.run))

    async def drain() -> None:
        await asyncio.gather(*(feed.drain() for feed in feeds))

    def live() -> Check:
        down = [feed.venue.name for feed in feeds if not feed.is_live]
        return Check(
            ok=len(down) < len(feeds) or not feeds, detail=f"not live: {', '.join(down)}" if down else ""
        )

    runtime.check("feeds", live)
    runtime.on_drain("feeds", drain, timeout_seconds=DRAIN_SECONDS)


def _beating(run: Callable[[], Awaitable[None]]) -> Callable[[Callable[[], None]], Awaitable[None]]:
    """A loop that waits for work, beside a heart: it is stalled only when the event loop itself is."""

    async def looped(beat: Callable[[], None]) -> None:
        async def heart() -> None:
            while True:
                beat()
                await asyncio.sleep(BEAT_SECONDS)

        async with asyncio.TaskGroup() as group:
            group.create_task(heart())
            group.create_task(_forever(run))

    return looped


async def _forever(run: Callable[[], Awaitable[None]]) -> None:
    await run()
