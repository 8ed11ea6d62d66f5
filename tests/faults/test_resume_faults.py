"""A crowd of sockets cut without a goodbye and back on another gateway: every message once, or the gateway says no."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import pytest
import websockets

from tests.faults.report import Report, Stopwatch
from tests.faults.stand import Stand

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.gate, pytest.mark.timeout(600)]

SOCKETS = int(os.environ.get("CRYPTOPULSE_FAULT_SOCKETS", "500"))
SYMBOL = "BTC-USDT"
CHANNELS = ("trades", "candles:1m", "indicators:1m", "signals")
AWAY_SECONDS = 3.0
HEARD_SECONDS = 8.0
CUTS = (20, 58, 30)
"""At which second of a minute each cut comes: over the second one the minute's candles close."""

Series = tuple[str, str]
"""Channel and subject."""
Place = tuple[str, int]
"""Epoch and offset."""


@dataclass
class Tally:
    """What all clients together saw."""

    heard: int = 0
    told: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    put_off: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)


class Client:
    """One socket, and where it stands in each series."""

    def __init__(self, stand: Stand, headers: dict[str, str], tally: Tally) -> None:
        self.stand = stand
        self.headers = headers
        self.tally = tally
        self.places: dict[Series, Place] = {}
        self.sids: dict[int, Series] = {}
        self.joined = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen("gateway"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def cut(self, dice: random.Random, gateway: str) -> None:
        """The network takes the connection away; the client is back within `AWAY_SECONDS`."""
        self._socket.transport.abort()
        await self._end()
        self.joined.clear()
        await asyncio.sleep(dice.random() * AWAY_SECONDS)
        self._task = asyncio.create_task(self._listen(gateway))

    async def _listen(self, gateway: str) -> None:
        port = self.stand.public.get(gateway, self.stand.port)
        while True:
            try:
                async with websockets.connect(
                    f"ws://127.0.0.1:{port}/v1/ws",
                    additional_headers=self.headers,
                    proxy=None,
                    compression=None,
                    open_timeout=30,
                ) as self._socket:
                    await self._ask(CHANNELS)
                    while True:
                        await self._take(orjson.loads(await self._socket.recv(decode=False)))
            except (OSError, websockets.WebSocketException):
                await asyncio.sleep(0.2)

    async def _ask(self, wanted: Collection[str]) -> None:
        """Subscribe to channels from where each series stands."""
        resume: dict[str, dict[str, Any]] = {}
        for (channel, subject), (epoch, offset) in self.places.items():
            resume[f"{channel} {subject}"] = {"epoch": epoch, "offset": offset}
        channels = []
        for channel in wanted:
            own = {
                key.partition(" ")[2]: at for key, at in resume.items() if key.partition(" ")[0] == channel
            }
            channels.append({"ch": channel, "symbols": [SYMBOL], "every_ms": 0, "resume": own})
        await self._socket.send(orjson.dumps({"op": "subscribe", "channels": channels}).decode())

    async def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "ack":
            for entry in frame["subscribed"]:
                self._join(entry)
            pauses = [entry["retry_after_ms"] for entry in frame["rejected"]]
            if pauses:
                self.tally.put_off += 1
                await asyncio.sleep(max(pauses) / 1_000)
                await self._ask({entry["ch"] for entry in frame["rejected"]})
            else:
                self.joined.set()
        elif kind in {"update", "snapshot"}:
            self._hear(self.sids[frame["sid"]], frame)

    def _join(self, entry: dict[str, Any]) -> None:
        channel, source = entry["ch"], entry.get("source")
        series = (channel, f"{SYMBOL}@{source}" if channel == "trades" else SYMBOL)
        self.sids[entry["sid"]] = series
        if series not in self.places:
            self.places[series] = (entry["epoch"], entry["offset"])
        elif entry["recovered"]:
            self.tally.resumed += 1
            self.places[series] = (entry["epoch"], self.places[series][1])
        else:
            self.tally.refused[f"{channel} {self.places[series]} at {entry['epoch']}:{entry['offset']}"] += 1
            self.places[series] = (entry["epoch"], entry["offset"])

    def _hear(self, series: Series, frame: dict[str, Any]) -> None:
        """A forming bar repeats the offset of the closed one before; everything else counts on by one."""
        epoch, last = self.places[series]
        offset = frame["offset"]
        if frame["type"] == "snapshot":
            if frame["epoch"] != epoch:
                # One that had nothing to tell since its shard changed hands, before we came, says so only now.
                known = {place[0] for place in self.places.values()}
                self.tally.lost["epoch"] += epoch != "0" and frame["epoch"] not in known
                self.places[series] = (frame["epoch"], offset)
            return
        if offset == last and not frame["data"].get("closed", True):
            return
        self.tally.heard += 1
        self.tally.told[series[0]] += 1
        if offset <= last:
            self.tally.doubled[series[0]] += 1
            return
        if offset > last + 1:
            self.tally.lost[series[0]] += offset - last - 1
        self.places[series] = (epoch, offset)


async def until_second(second: int) -> None:
    """Until the minute's so manieth second."""
    await asyncio.sleep((second - time.time() % 60) % 60)


async def test_17_a_crowd_is_cut_and_resumes_on_another_gateway(stand: Stand, dice: random.Random) -> None:
    report = Report(
        17, f"{SOCKETS} sockets cut {len(CUTS)} times, back elsewhere within {AWAY_SECONDS:.0f} s"
    )
    stand.start("gateway2")
    await stand.until_ready("gateway2")
    tally = Tally()
    async with contextlib.AsyncExitStack() as crowd:
        clients = [
            await crowd.enter_async_context(Client(stand, stand.token(f"crowd{number % 20}"), tally))
            for number in range(SOCKETS)
        ]
        await asyncio.wait_for(asyncio.gather(*(client.joined.wait() for client in clients)), 120)
        back = 0.0
        for cut, second in enumerate(CUTS):
            await asyncio.sleep(HEARD_SECONDS)
            await until_second(second)
            watch = Stopwatch()
            door = "gateway" if cut % 2 else "gateway2"
            await asyncio.gather(*(client.cut(dice, door) for client in clients))
            await asyncio.wait_for(asyncio.gather(*(client.joined.wait() for client in clients)), 60)
            back = max(back, watch.seconds())
        await asyncio.sleep(HEARD_SECONDS)
        apart = Counter(series for client in clients for series in client.places if client.places[series][0])
        assert len(set(apart.values())) == 1, apart
    report.handled = tally.heard
    report.lost, report.doubled = tally.lost.total(), tally.doubled.total()
    report.recovery_s = back
    report.notes |= {
        "resumed": tally.resumed,
        "put_off": tally.put_off,
        "refused": dict(tally.refused.most_common(8)),
        "told": dict(tally.told),
        "lost_of": dict(tally.lost),
        "doubled_of": dict(tally.doubled),
    }
    report.close()
    assert tally.resumed == SOCKETS * len(CUTS) * len(apart)
    assert tally.told["trades"]
    assert tally.told["candles:1m"]
    assert tally.told["indicators:1m"]
