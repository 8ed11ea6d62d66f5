"""Worker loops beat, are started again after errors, and end when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.runtime import tasks
from cryptopulse.common.runtime.tasks import LagMeter, Loops


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(tasks, "LONGEST_PAUSE_SECONDS", 0.004)
    monkeypatch.setattr(tasks, "LAG_PERIOD_SECONDS", 0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_failing_loop_is_started_again_and_counted() -> None:
    loops, runs = Loops("test", ManualClock()), 0

    async def fails_twice(_beat: tasks.Beat) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("no")
        await asyncio.Event().wait()

    loops.add("worker", fails_twice)
    loops.start()
    await until(lambda: runs == 3)

    (state,) = loops.states()
    assert state.restarts == 2
    assert state.last_error == "ValueError: no"
    assert not state.finished
    assert await loops.cancel(1) == []


async def test_a_cancellation_that_leaks_out_of_a_loop_does_not_end_it() -> None:
    loops, runs = Loops("test", ManualClock()), 0

    async def leaks(_beat: tasks.Beat) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    loops.add("worker", leaks)
    loops.start()
    await until(lambda: runs == 2)

    assert loops.states()[0].restarts == 1
    await loops.cancel(1)


async def test_a_loop_that_returns_is_finished_and_need_not_beat() -> None:
    clock = ManualClock()
    loops = Loops("test", clock)

    async def once(_beat: tasks.Beat) -> None:
        return

    loops.add("worker", once, stall_seconds=1)
    loops.start()
    await until(lambda: loops.states()[0].finished)
    clock.advance(3_600)

    assert not loops.states()[0].stalled(clock.monotonic())


async def test_a_loop_that_does_not_beat_stalls_until_it_does() -> None:
    clock, beats = ManualClock(), asyncio.Event()
    loops = Loops("test", clock)

    async def beats_when_told(beat: tasks.Beat) -> None:
        while True:
            await beats.wait()
            beats.clear()
            beat()

    loops.add("worker", beats_when_told, stall_seconds=10)
    loops.start()
    await asyncio.sleep(0)
    (state,) = loops.states()

    clock.advance(9)
    assert not state.stalled(clock.monotonic())
    clock.advance(2)
    assert state.stalled(clock.monotonic())
    beats.set()
    await until(lambda: not state.stalled(clock.monotonic()))
    await loops.cancel(1)


async def test_a_loop_added_while_running_starts_at_once() -> None:
    loops, ran = Loops("test", ManualClock()), asyncio.Event()

    async def work(_beat: tasks.Beat) -> None:
        ran.set()

    loops.start()
    loops.add("late", work)

    await asyncio.wait_for(ran.wait(), 1)


async def test_two_loops_of_one_name_are_refused() -> None:
    async def work(_beat: tasks.Beat) -> None:
        return

    loops = Loops("test", ManualClock())
    loops.add("worker", work)
    with pytest.raises(ValueError, match="exists already"):
        loops.add("worker", work)


async def test_a_loop_that_will_not_end_is_named() -> None:
    loops, release, started = Loops("test", ManualClock()), asyncio.Event(), asyncio.Event()

    async def stubborn(_beat: tasks.Beat) -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    loops.add("stubborn", stubborn)
    loops.start()
    await started.wait()

    assert await loops.cancel(0.05) == ["stubborn"]
    release.set()
    await asyncio.sleep(0.01)


async def test_the_lag_of_a_blocked_event_loop_is_seen() -> None:
    import time

    meter = LagMeter("test")
    task = asyncio.create_task(meter.run())
    await asyncio.sleep(0.03)
    time.sleep(0.15)  # noqa: ASYNC251 - blocking is the subject
    await asyncio.sleep(0.03)
    task.cancel()

    assert 0.1 < meter.worst_seconds < 2
