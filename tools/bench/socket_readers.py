"""WebSocket clients in a process of their own that only read; they count messages by a mark in them and time some.

`python -m tools.bench.socket_readers PORT PATH CLIENTS`, then on stdin one line each: the message that subscribes (may be
empty), the mark, a token or nothing. It prints `ready`; each further line on stdin prints what was counted since the last as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
import time
from collections import Counter
from typing import Any, Final

import uvloop

from tools.bench.measure import percentile

TIMED: Final = 25
"""Clients whose messages are timed."""
TOLD_US: Final = re.compile(rb'"id":"?(\d{16})')
"""The id of a message is the time in microseconds at which it was told."""
MOST_PING: Final = 125
HEAD_END: Final = b"\r\n\r\n"


def masked(text: bytes) -> bytes:
    """A client's text frame; the mask is zero, which is as good as any against a server."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + b"\0\0\0\0" + text


class Reader(asyncio.Protocol):
    """One client."""

    def __init__(self, request: bytes, subscribe: bytes, mark: bytes, counts: Counts, *, timed: bool) -> None:
        self._request = request
        self._subscribe = subscribe
        self._mark = mark
        self._counts = counts
        self._timed = timed
        self._tail = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count the marks; the end of a chunk may hold half of one."""
        if not self._is_open:
            data = self._tail + data
            end = data.find(HEAD_END)
            self._tail = data
            if end < 0:
                return
            if b" 101 " not in data[:20]:
                self._counts.faults.append(data[:300])
                return
            self._is_open, self._tail, data = True, b"", data[end + 4 :]
            self._counts.opened += 1
            if self._subscribe:
                self._transport.write(masked(self._subscribe))  # type: ignore[attr-defined]
        ping = data.find(b"\x89")
        if 0 <= ping < len(data) - 1 and data[ping + 1] <= MOST_PING:
            payload = data[ping + 2 : ping + 2 + data[ping + 1]]
            # Outside of pings this byte is only ever part of a length, and a pong too many harms nobody.
            self._transport.write(bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload)  # type: ignore[attr-defined]
        data = self._tail + data
        self._counts.messages += data.count(self._mark)
        self._tail = data[-len(self._mark) + 1 :]
        if self._timed:
            now = time.time_ns() // 1_000
            self._counts.latencies_ms += [(now - int(told)) / 1_000 for told in TOLD_US.findall(data)]

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody should close."""
        self._counts.lost += 1


class Counts:
    """What all clients saw."""

    def __init__(self) -> None:
        self.opened = self.messages = self.lost = 0
        self.faults: list[bytes] = []
        self.latencies_ms: list[float] = []

    def take(self) -> dict[str, Any]:
        """The figures since the last call; `tenths_ms` counts the times, so that several calls can be pooled."""
        found: dict[str, Any] = {
            "messages": self.messages,
            "lost": self.lost,
            "p50_ms": percentile(self.latencies_ms, 0.5),
            "p99_ms": percentile(self.latencies_ms, 0.99),
            "p999_ms": percentile(self.latencies_ms, 0.999),
            "timed": len(self.latencies_ms),
            "tenths_ms": Counter(int(took * 10) for took in self.latencies_ms),
        }
        self.messages, self.latencies_ms = 0, []
        return found


async def main(port: int, path: str, clients: int) -> None:
    """Connect, a few at a time, then answer to lines on stdin."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    subscribe, mark, token = [(await lines.readline()).strip() for _ in range(3)]
    credential = b"Authorization: Bearer %b\r\n" % token if token else b""
    request = (
        b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
    ) % (path.encode(), port, credential)
    counts = Counts()
    for number in range(clients):
        await loop.create_connection(
            lambda timed=number < TIMED: Reader(request, subscribe, mark, counts, timed=timed),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        while counts.opened < number - 20 and not counts.faults:  # noqa: ASYNC110 - paces the handshakes
            await asyncio.sleep(0.005)
    while counts.opened < clients and not counts.faults:  # noqa: ASYNC110 - a load program waits for its clients
        await asyncio.sleep(0.02)
    if counts.faults:
        print(f"refused: {counts.faults[0]!r}", flush=True)
        return
    await asyncio.sleep(0.5)
    print("ready", flush=True)
    while await lines.readline():
        print(json.dumps(counts.take()), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
