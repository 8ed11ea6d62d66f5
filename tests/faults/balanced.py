"""Clients as they stand before a rolling restart: requests over a load balancer, and a socket that comes back and resumes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import websockets

from tests.faults.stand import Stand

PATHS = (
    "/v1/prices/BTC",
    "/v1/candles/BTC?interval=1m&limit=5",
    "/v1/alerts",
    "/portfolio",
    "/indicators/BTC",
)


@dataclass
class Requests:
    """Asks one path after the other of the gateways in rotation; what is no success is kept."""

    stand: Stand
    headers: dict[str, str]
    paths: tuple[str, ...] = PATHS
    rotation: list[str] = field(default_factory=lambda: ["gateway"])
    done: int = 0
    failed: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(timeout=20, trust_env=False)
        self._tasks = [asyncio.create_task(self._ask(start)) for start in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _ask(self, start: int) -> None:
        for turn in itertools.count(start):
            gateway = self.rotation[turn % len(self.rotation)]
            path = self.paths[turn % len(self.paths)]
            port = self.stand.public.get(gateway, self.stand.port)
            try:
                answer = await self._client.get(f"http://127.0.0.1:{port}{path}", headers=self.headers)
                if not answer.is_success:
                    self.failed.append(f"{gateway} {path}: {answer.status_code} {answer.text[:120]}")
            except httpx.HTTPError as error:
                self.failed.append(f"{gateway} {path}: {type(error).__name__} {error}")
            self.done += 1
            await asyncio.sleep(0.05)


@dataclass
class AlertSocket:
    """A socket on the channel `alerts` that resumes where it stopped, on whatever gateway is in rotation."""

    stand: Stand
    headers: dict[str, str]
    requests: Requests
    events: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    hints: int = 0
    resumed: list[bool] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self.listening = asyncio.Event()
        self._task = asyncio.create_task(self._listen())
        await asyncio.wait_for(self.listening.wait(), 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _listen(self) -> None:
        where: dict[str, Any] | None = None
        while True:
            gateway = self.requests.rotation[-1]
            port = self.stand.public.get(gateway, self.stand.port)
            try:
                async with websockets.connect(
                    f"ws://127.0.0.1:{port}/v1/ws", additional_headers=self.headers, proxy=None
                ) as socket:
                    channel: dict[str, Any] = {"ch": "alerts"}
                    if where is not None:
                        channel["resume"] = {"alerts": where}
                    await socket.send(json.dumps({"op": "subscribe", "channels": [channel]}))
                    while True:
                        frame = json.loads(await socket.recv())
                        where = self._take(frame, where)
            except websockets.ConnectionClosed as error:
                self.codes.append(error.rcvd.code if error.rcvd else None)
            except OSError:
                pass
            await asyncio.sleep(0.3)

    def _take(self, frame: dict[str, Any], where: dict[str, Any] | None) -> dict[str, Any] | None:
        match frame["type"]:
            case "ack":
                entry = frame["subscribed"][0]
                self.listening.set()
                return where or {"epoch": entry["epoch"], "offset": entry["offset"]}
            case "alert":
                self.events.append(frame["event_id"])
                assert where is not None
                return {**where, "offset": frame.get("offset", where["offset"])}
            case "going_away":
                self.hints += 1
            case "resumed":
                self.resumed.append(frame["recovered"])
        return where
