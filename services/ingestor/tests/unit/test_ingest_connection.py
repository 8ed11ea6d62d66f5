"""The life of a socket without a network: back-off, limits on attempts and control messages, liveness, reconciled subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.adapters.binance.feed import BinanceFeed
from cryptopulse.ingestor.application import connection as module
from cryptopulse.ingestor.application import connections as sockets_module
from cryptopulse.ingestor.application.connection import HEALTHY_SECONDS, Connection
from cryptopulse.ingestor.application.connections import Connections
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.pacing import Pace
from cryptopulse.ingestor.domain.backoff import Backoff

TRADE = b'{"e":"trade","s":"BTCUSDT","t":%d,"p":"1","q":"1","T":1700000000000,"m":true}'


class NoBudget:
    def rule(self, *_: Any) -> None: ...


class Peer:
    """A venue's end of a socket: takes control messages, answers as told, and says what the test says."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.refuses: set[str] = set()
        self.streams: set[str] = set()
        self.said: list[tuple[float, dict[str, Any]]] = []
        self.opened = 0
        self.is_open = True
        self.last_frame = 0.0
        self.text: Callable[[bytes], None] = lambda frame: None
        self._gone = asyncio.Event()

    async def open(self, url: str, on_text: Callable[[bytes], None], *_rest: Any) -> Peer:
        if not self.is_open:
            raise UpstreamUnavailable("refused")
        self.opened += 1
        self.streams.clear()
        self.text, self._gone = on_text, asyncio.Event()
        self.last_frame = self.clock.monotonic()
        return self

    def send(self, text: bytes) -> None:
        asked = msgspec.json.decode(text)
        self.said.append((self.clock.monotonic(), asked))
        match asked["method"]:
            case "SUBSCRIBE":
                self.streams |= set(asked["params"]) - self.refuses
            case "UNSUBSCRIBE":
                self.streams -= set(asked["params"])
        result = sorted(self.streams) if asked["method"] == "LIST_SUBSCRIPTIONS" else None
        self.says(msgspec.json.encode({"result": result, "id": asked["id"]}))

    def says(self, frame: bytes) -> None:
        self.last_frame = self.clock.monotonic()
        self.text(frame)

    def cut(self) -> None:
        self._gone.set()

    async def close(self) -> None:
        self.cut()

    async def closed(self) -> str:
        await self._gone.wait()
        return "cut"

    def asked(self, method: str) -> list[list[str]]:
        return [message.get("params", []) for _, message in self.said if message["method"] == method]


class Bench:
    """A connection to Binance, its peer, and a clock that the test moves."""

    def __init__(self, natives: list[str]) -> None:
        self.clock = ManualClock()
        self.peer = Peer(self.clock)
        nothing: Any = NoBudget()
        self.venue = BinanceFeed(nothing, "ws://venue", nothing, self.clock)
        sink: Any = Sink()
        self.ingest = Ingest("binance", self.clock, [sink], hold_us=0, shards=1)
        self.states: list[str] = []
        peer: Any = self.peer
        self.connection = Connection(
            "binance-1",
            self.venue,
            natives,
            {native: native.replace("USDT", "-USDT") for native in natives},
            ingest=self.ingest,
            sockets=peer,
            connects=Pace(self.clock, 1e6),
            clock=self.clock,
            on_change=lambda c: self.states.append(c.state),
        )
        self.connection._control = Pace(self.clock, 1e6)
        self.task = asyncio.create_task(self.connection.run())

    async def until(self, state: str) -> None:
        async with asyncio.timeout(5):
            while self.connection.state != state:
                await asyncio.sleep(0.001)

    async def passes(self, seconds: float, *, frames: bool = True) -> None:
        """Time passes, second by second; with `frames` the venue answers pings, which are no data."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            if frames:
                self.peer.last_frame = self.clock.monotonic()
            await asyncio.sleep(0.004)


class Sink:
    def add_trade(self, trade: Any) -> None: ...


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Bench]]:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(Backoff, "next_seconds", _counted)
    made: list[Bench] = []

    def make(*natives: str) -> Bench:
        made.append(Bench(list(natives or ("BTCUSDT",))))
        return made[-1]

    yield make
    for one in made:
        await one.connection.stop()
        await asyncio.wait_for(one.task, 5)


def _counted(backoff: Backoff) -> float:
    backoff.attempts += 1
    return 0.001


def test_a_pause_is_anything_up_to_a_ceiling_that_doubles_to_its_cap() -> None:
    highest, lowest = Backoff(rand=lambda: 1.0), Backoff(rand=lambda: 0.0)
    assert [highest.next_seconds() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert [lowest.next_seconds() for _ in range(3)] == [0.05] * 3
    highest.reset()
    assert highest.next_seconds() == 0.5


async def test_attempts_are_evenly_spaced_and_limited_within_their_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    began = clock.monotonic()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace, taken = Pace(clock, 2.0, most=5, window_seconds=60.0), []
    for _ in range(11):
        await pace.turn()
        taken.append(round(clock.monotonic() - began, 3))
    assert taken == [0, 0.5, 1, 1.5, 2, 60, 60.5, 61, 61.5, 62, 120]


async def test_only_data_resets_the_pause_between_attempts(bench: Callable[..., Bench]) -> None:
    one = bench()
    await one.until("live")
    one.peer.says(TRADE % 1)
    one.peer.cut()
    await one.until("backoff")
    await one.until("live")
    await one.passes(HEALTHY_SECONDS - 5)
    one.peer.says(b'{"result":null,"id":99}')
    await one.passes(10)
    one.peer.cut()
    await one.until("backoff")
    assert one.connection._backoff.attempts == 2, "open for long, but without any data"
    await one.until("live")
    await one.passes(HEALTHY_SECONDS + 2)
    one.peer.says(TRADE % 2)
    one.peer.cut()
    await one.until("backoff")
    assert one.connection._backoff.attempts == 1


async def test_heartbeats_are_no_data_and_a_socket_without_any_is_given_up(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    await one.until("live")
    rules = one.venue.rules
    await one.passes(rules.data_silence_seconds + 2)
    assert one.connection.state == "degraded"
    one.peer.says(TRADE % 1)
    await one.until("live")
    await one.passes(3 * rules.data_silence_seconds + 3)
    assert one.peer.opened == 2
    assert one.connection.reconnects == 1


async def test_a_socket_without_any_frame_is_given_up(bench: Callable[..., Bench]) -> None:
    one = bench()
    await one.until("live")
    await one.passes(one.venue.rules.frame_silence_seconds + 2, frames=False)
    assert one.connection.reconnects == 1
    assert "degraded" not in one.states


async def test_what_the_venue_does_not_list_is_asked_for_again_then_given_up_alone(
    bench: Callable[..., Bench],
) -> None:
    one = bench("BTCUSDT", "ODDUSDT", "ETHUSDT")
    one.peer.refuses = {"oddusdt@trade"}
    for _ in range(200):
        if "markets refused" in one.connection.reason:
            break
        await one.passes(1)
    assert list(one.connection.natives) == ["BTCUSDT", "ETHUSDT"]
    assert list(one.connection.rejected) == ["ODDUSDT"]
    again = one.peer.asked("SUBSCRIBE")[1:]
    assert again
    assert all(set(names) == {"oddusdt@trade", "oddusdt@bookTicker"} for names in again)


async def test_a_subscription_that_the_venue_lost_is_found_by_its_own_list(
    bench: Callable[..., Bench],
) -> None:
    one = bench("BTCUSDT", "ETHUSDT")
    await one.until("live")
    one.peer.streams.discard("ethusdt@trade")
    for number in range(1, 100):
        one.peer.says(TRADE % number)
        await one.passes(1)
    assert one.peer.streams == {
        f"{coin}usdt@{kind}" for coin in ("btc", "eth") for kind in ("trade", "bookTicker")
    }
    assert one.connection.reconnects == 0


async def test_every_control_message_waits_its_turn(bench: Callable[..., Bench]) -> None:
    one = bench()
    await one.until("live")
    turns: list[int] = []

    class Turns:
        async def turn(self) -> None:
            turns.append(len(one.peer.said))

    one.connection._control = Turns()  # type: ignore[assignment]  # a pace that only counts
    one.peer.said.clear()
    await one.connection.add([f"A{n}USDT" for n in range(500)])
    await one.connection.remove(["A1USDT"])
    await one.connection.resubscribe("A2USDT")
    assert [len(names) for names in one.peer.asked("SUBSCRIBE")] == [200, 200, 200, 200, 200, 2]
    assert [len(names) for names in one.peer.asked("UNSUBSCRIBE")] == [2, 2]
    assert turns[:8] == list(range(8))


async def test_markets_beyond_a_sockets_limit_get_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    peer: Any = Peer(clock)
    peer.is_open = False
    nothing: Any = NoBudget()
    venue = BinanceFeed(nothing, "ws://venue", nothing, clock)
    ingest = Ingest("binance", clock, [], hold_us=0, shards=1)
    found = Connections(
        venue, ingest, peer, clock, {}, on_change=lambda: None, on_heartbeat_id=lambda symbol, newest: None
    )
    natives = [f"A{n}USDT" for n in range(1_200)]
    await found.wanted(natives)
    assert [len(c.natives) for c in found.all] == [500, 500, 200]
    await found.wanted([*natives[100:], "NEWUSDT"])
    assert [len(c.natives) for c in found.all] == [401, 500, 200]
    served = [native for c in found.all for native in c.natives]
    assert sorted(served) == sorted([*natives[100:], "NEWUSDT"])
    monkeypatch.setattr(sockets_module, "STOP_SECONDS", 0.2)
    await found.close()
