"""The turns of the shards of a replica: in a row, or evenly over the time."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

from cryptopulse.indicators.entrypoints.shards import Shards

SECONDS = 0.2


def shards_of(count: int) -> Shards:
    shards = Shards(SimpleNamespace(), count, lambda *_: None, prefetch=1)  # type: ignore[arg-type]
    shards.workers = {number: SimpleNamespace(shard=number) for number in range(count)}  # type: ignore[misc]
    return shards


async def turns(shards: Shards, count: int, **options: Any) -> list[tuple[int, float]]:
    """The first turns, by shard, and seconds since the first."""
    loop, seen = asyncio.get_running_loop(), list[tuple[int, float]]()
    done = asyncio.Event()

    async def work(worker: Any) -> None:
        seen.append((worker.shard, loop.time()))
        if len(seen) == count:
            done.set()

    task: asyncio.Task[None] = asyncio.create_task(
        shards.every(SECONDS, work, "test", **options)(lambda: None)  # type: ignore[arg-type]
    )
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return [(shard, at - seen[0][1]) for shard, at in seen]


async def test_turns_that_are_spread_begin_no_earlier_than_their_share_of_the_time() -> None:
    found = await turns(shards_of(4), 8, spread=True)
    assert [shard for shard, _ in found] == [0, 1, 2, 3] * 2
    # A millisecond for the loop's own clock.
    assert all(at >= SECONDS * place / 4 - 0.001 for place, (_, at) in enumerate(found))


async def test_a_shard_that_was_handed_over_before_its_turn_is_left_out() -> None:
    shards = shards_of(3)
    loop = asyncio.get_running_loop()
    loop.call_later(SECONDS / 6, shards.workers.pop, 1)
    found = await turns(shards, 4, spread=True)
    assert [shard for shard, _ in found] == [0, 2, 0, 2]
