"""A reference source that fails is left alone: one try per pause, whoever asks, and everything again after the first success."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.application import reference
from cryptopulse.ingestor.application.ports import Page
from cryptopulse.ingestor.application.reference import PollPlan, ReferencePoller

LONGEST_SECONDS = 600.0


class Source:
    """Counts its calls, and fails while it is down."""

    name = "coingecko"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: UpstreamUnavailable | None = UpstreamUnavailable("down")

    async def top(self, page: int) -> Page:
        return self._answer(f"top {page}")

    async def coins(self, ids: Sequence[str]) -> Page:
        return self._answer(",".join(ids))

    def _answer(self, call: str) -> Page:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return Page([], [])


class Rest:
    """Everything else that a poller needs: the owner of the lease, nothing wanted by others, no history."""

    async def take(self, *_: object) -> int:
        return 1

    async def add(self, *_: object) -> None: ...

    async def current(self, _now_ms: int) -> list[str]:
        return []

    def note(self, _page: Page) -> None: ...

    async def fetch_next(self, _wanted: object) -> int:
        return 0

    def status(self, _name: str) -> list[Any]:
        return []

    progress = None


class Scene:
    """A poller that runs on a clock moved by hand."""

    def __init__(self) -> None:
        self.clock, self.source, rest = ManualClock(), Source(), Rest()
        parts: dict[str, Any] = dict.fromkeys(("bus", "quota", "wanted", "lease", "history"), rest)
        self.poller = ReferencePoller(
            self.source,  # type: ignore[arg-type]  # candles are not asked for
            clock=self.clock, plan=PollPlan(60.0, 1), publishers=[SimpleNamespace(epoch=0)], shards=1,  # type: ignore[list-item]  # its epoch is set
            simulated=False, **parts,
        )  # fmt: skip

    async def after(self, seconds: float) -> int:
        """Calls made in the moments after so many seconds."""
        before = len(self.source.calls)
        self.clock.advance(seconds)
        await asyncio.sleep(0.05)
        return len(self.source.calls) - before


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(reference, "LEASE_SECONDS", 0.001)
    found = Scene()
    found.clock.advance(1)
    running = asyncio.create_task(found.poller.run(lambda: None))
    yield found
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_source_that_fails_is_tried_once_a_pause_whoever_asks(scene: Scene) -> None:
    scene.source.error = UpstreamUnavailable("slow down", retry_after_seconds=100.0)
    assert await scene.after(6) == 1
    for number in range(5):
        await scene.poller.want([f"coin-{number}"], 60)
    assert await scene.after(99) == 0
    assert scene.poller.status().state == "backoff"
    assert await scene.after(LONGEST_SECONDS) == 1


async def test_the_pauses_end_at_ten_minutes_and_the_first_success_ends_them(scene: Scene) -> None:
    tries = 0
    for _ in range(20):
        tries += await scene.after(LONGEST_SECONDS + 1)
    assert tries >= 20
    scene.source.error = None
    assert await scene.after(LONGEST_SECONDS + 1) >= 1
    assert scene.poller.status().state == "live"
    await scene.poller.want(["bitcoin"], 60)
    assert await scene.after(1) == 1
    assert scene.source.calls[-1] == "bitcoin"
