"""What is told of a feed beside its ticks: the states of its sockets as a metric, and a start before anyone listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY

from cryptopulse.common.bus.memory import MemoryBroker, MemoryBus
from cryptopulse.common.clock import ManualClock, SystemClock
from cryptopulse.common.contracts.feeds import ConnectionState
from cryptopulse.common.errors import BusUnavailable, NoQueueYet, UpstreamUnavailable
from cryptopulse.ingestor.adapters.binance.feed import BinanceFeed
from cryptopulse.ingestor.application import catalogue as module
from cryptopulse.ingestor.application.backfill import Backfill, HistoryDepth
from cryptopulse.ingestor.application.catalogue import VenueCatalogue
from cryptopulse.ingestor.application.feed import VenueFeed
from cryptopulse.ingestor.application.ingest import QUARANTINE_BYTES, QUARANTINE_FRAMES, Ingest
from cryptopulse.ingestor.application.unheard import UNHEARD_SECONDS, Unheard
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.symbols import Part, Wish


class Door:
    """Sockets that open, or do not, as told."""

    def __init__(self) -> None:
        self.is_open = False

    async def open(self, url: str, on_text: Callable[[bytes], None], *_rest: Any) -> Any:
        if not self.is_open:
            raise UpstreamUnavailable("closed")
        return self

    last_frame = 1e18

    def send(self, text: bytes) -> None: ...

    async def close(self) -> None: ...

    async def closed(self) -> str:
        await asyncio.Event().wait()
        return ""


class Nothing:
    """Stores and budgets that hold nothing."""

    def rule(self, *_: Any) -> None: ...

    def status(self, venue: str) -> list[Any]:
        return []


def a_feed(sockets: Any) -> VenueFeed:
    clock, nothing = SystemClock(), Nothing()
    stores: Any = nothing
    bus = MemoryBus(MemoryBroker(), service="test")
    venue = BinanceFeed(stores, "ws://venue", stores, clock)
    depth = HistoryDepth(0, 0, 0)
    return VenueFeed(
        venue,
        ingest=Ingest("binance", clock, [], hold_us=0, shards=1),
        catalogue=VenueCatalogue(venue, bus, clock, Wish.parse("BTC-USDT"), Part(), simulated=False),
        sockets=sockets,
        quota=stores,
        last_ids=stores,
        lease=stores,
        backfill=Backfill([venue], bus, clock, depth, marks=stores, shards=1, simulated=False),
        bus=bus,
        clock=clock,
        part="1/1",
        offset=ClockOffset(),
        simulated=False,
        on_followed=lambda venue, symbols: None,
    )


def told() -> dict[str, float]:
    """The metric, state by state."""
    return {
        state: REGISTRY.get_sample_value("cryptopulse_feed_connections", {"venue": "binance", "state": state})
        or 0.0
        for state in get_args(ConnectionState)
    }


async def test_the_sockets_of_a_venue_are_counted_by_their_state() -> None:
    door = Door()
    feed = a_feed(door)
    feed.active = True
    await feed._connections.wanted(["BTCUSDT"])
    seen = []
    for is_open in (False, True):
        door.is_open = is_open
        wanted = "subscribing" if is_open else "backoff"
        async with asyncio.timeout(10):
            while [c.state for c in feed._connections.all] != [wanted]:
                await asyncio.sleep(0.01)
        await feed._publish_status()
        seen.append({state: count for state, count in told().items() if count})
    assert seen == [{"backoff": 1.0}, {"subscribing": 1.0}]
    await feed.pause()
    await feed._publish_status()
    assert sum(told().values()) == 0


async def test_the_offset_of_a_venues_clock_is_exported() -> None:
    feed = a_feed(Door())
    feed._offset.sample(1_002_500_000, 1_000_000_000)
    await feed._publish_status()
    assert REGISTRY.get_sample_value("cryptopulse_venue_clock_offset_seconds", {"venue": "binance"}) == 2.5


def test_refused_frames_are_kept_as_they_came_in_a_bounded_ring() -> None:
    ingest = Ingest("binance", SystemClock(), [], hold_us=0, shards=1)
    for number in range(QUARANTINE_FRAMES + 5):
        ingest.refused("malformed", b"%d " % number + b"\xff" * 10_000, "why " * 1_000)
    assert ingest.refusals["malformed"] == QUARANTINE_FRAMES + 5
    assert [one.frame.split()[0] for one in ingest.quarantine][:2] == [b"5", b"6"]
    assert len(ingest.quarantine) == QUARANTINE_FRAMES
    assert max(len(one.frame) + len(one.detail) for one in ingest.quarantine) < 2 * QUARANTINE_BYTES


def test_that_no_queue_is_bound_is_news_only_when_it_lasts() -> None:
    clock = ManualClock()
    unheard = Unheard(clock)
    levels = []
    for _ in range(7):
        levels.append(unheard.level(NoQueueYet("instruments: no queue is bound")))
        clock.advance(UNHEARD_SECONDS / 3)
    assert levels == [logging.INFO, None, None, logging.WARNING, None, None, logging.WARNING]
    assert unheard.level(BusUnavailable("away")) == logging.WARNING


async def test_a_product_list_that_nobody_hears_yet_is_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, str]] = []

    class Log:
        def log(self, level: int, text: str, **_: Any) -> None:
            said.append((level, text))

        def info(self, text: str, **_: Any) -> None: ...

    monkeypatch.setattr(module, "log", Log())
    clock = ManualClock()
    venue: Any = Listing()
    bus = MemoryBus(MemoryBroker(), service="test")
    catalogue = VenueCatalogue(venue, bus, clock, Wish.parse("BTC-USDT"), Part(), simulated=False)
    for _ in range(40):
        await catalogue.refresh()
        clock.advance(1)
    assert said == [
        (logging.INFO, "product list not published yet"),
        (logging.WARNING, "product list not published yet"),
    ]


class Listing:
    """A venue that lists nothing."""

    name = "v"

    async def instruments(self) -> list[Any]:
        return []
