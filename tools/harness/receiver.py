"""A webhook receiver on loopback that keeps what it gets."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Hook:
    """One delivery: headers in lower case, the raw body and its JSON, and when its connection came (ms)."""

    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any]
    at_ms: float


@dataclass
class Receiver:
    """Answers `status` to every request; an async context manager."""

    status: int = 204
    hooks: list[Hook] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._arrived = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def first(self, seconds: float) -> Hook:
        """The first delivery."""
        async with asyncio.timeout(seconds):
            while not self.hooks:
                self._arrived.clear()
                await self._arrived.wait()
        return self.hooks[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_ms = time.time() * 1_000
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:])
            if name
        }
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        self.hooks.append(Hook(headers, raw, json.loads(raw), at_ms))
        self._arrived.set()
        writer.write(f"HTTP/1.1 {self.status} OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
