"""A small TCP proxy that misbehaves on command: latency, bandwidth, blackhole, reset, slicing, refusal.

Stands between a client and a server on loopback; every switch acts on open and on new connections at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

CHUNK = 65_536


@dataclass
class Toxics:
    """What the proxy does now. Zero and False mean: nothing.

    `blackhole` swallows both directions without closing (a partition without RST); `slice_bytes` cuts the stream into
    pieces of that size; `refuse` closes new connections at once.
    """

    latency_seconds: float = 0.0
    bytes_per_second: int = 0
    blackhole: bool = False
    slice_bytes: int = 0
    refuse: bool = False


@dataclass
class TcpProxy:
    """Forwards `127.0.0.1:port` to `target`; an async context manager."""

    target_host: str
    target_port: int
    toxics: Toxics = field(default_factory=Toxics)
    port: int = 0
    connections: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Cut every open connection with RST, without any goodbye."""
        for writer in list(self._writers):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.toxics.refuse:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection(self.target_host, self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers |= {writer, upstream}
        pumps = [
            asyncio.create_task(self._pump(reader, upstream)),
            asyncio.create_task(self._pump(upstream_reader, writer)),
        ]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._tasks.difference_update(pumps)
            for end in (writer, upstream):
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._forward(data, writer)

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.toxics.blackhole:
            return
        if self.toxics.latency_seconds:
            await asyncio.sleep(self.toxics.latency_seconds)
        size = self.toxics.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(piece)
            await writer.drain()
            if self.toxics.bytes_per_second:
                await asyncio.sleep(len(piece) / self.toxics.bytes_per_second)
