"""Drain steps run in order, each within its limit, and none keeps the next from running."""

from __future__ import annotations

import asyncio
import signal

import pytest

from cryptopulse.common.runtime import shutdown
from cryptopulse.common.runtime.shutdown import DrainStep, Signals, run_steps


async def test_steps_run_in_order_and_trouble_is_named() -> None:
    seen: list[str] = []

    async def note(name: str) -> None:
        seen.append(name)

    async def fails() -> None:
        seen.append("fails")
        raise RuntimeError("no")

    async def hangs() -> None:
        seen.append("hangs")
        await asyncio.Event().wait()

    troubled = await run_steps(
        [
            DrainStep("first", lambda: note("first"), 1),
            DrainStep("fails", fails, 1),
            DrainStep("hangs", hangs, 0.02),
            DrainStep("last", lambda: note("last"), 1),
        ]
    )

    assert seen == ["first", "fails", "hangs", "last"]
    assert troubled == ["fails", "hangs"]


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    return codes


async def test_the_first_signal_stops_and_a_later_one_aborts(
    exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "SAME_STOP_SECONDS", 0.0)
    signals = Signals()
    signals._on_signal(signal.SIGTERM)
    assert signals.stop.is_set()
    assert exits == []

    signals._on_signal(signal.SIGTERM)

    assert exits == [1]


async def test_one_wish_that_arrives_twice_is_one_wish(exits: list[int]) -> None:
    signals = Signals()
    signals._on_signal(signal.SIGINT)
    signals._on_signal(signal.SIGTERM)

    assert exits == []
