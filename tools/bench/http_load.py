"""Load in a process of its own: keep-alive connections that ask again as soon as they are answered; prints JSON.

`python -m tools.bench.http_load PORT PATH CONNECTIONS SECONDS [TOKEN]`
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from tools.bench.measure import percentile


class Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, latencies: list[float], faults: list[bytes]) -> None:
        self._request = request
        self._latencies = latencies
        self._faults = faults
        self._buffer = b""
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """A whole answer: head, blank line, as many bytes as its Content-Length says."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length: ")
        size = int(head[at + 16 :].split(b"\r", 1)[0])
        if len(self._buffer) < end + 4 + size:
            return
        self._latencies.append(time.perf_counter() - self._asked)
        if not head.startswith(b"http/1.1 200"):
            self._faults.append(self._buffer[:300])
        self._buffer = b""
        self._ask()


async def load(port: int, path: str, connections: int, seconds: float, token: str) -> dict[str, float | str]:
    """What came back in the time."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{credential}\r\n".encode()
    latencies: list[float] = []
    faults: list[bytes] = []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Asker(request, latencies, faults), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - started
    count = len(latencies)
    for transport, _ in made:
        transport.abort()
    return {
        "requests": count,
        "seconds": wall,
        "faults": len(faults),
        "fault": faults[0].decode(errors="replace") if faults else "",
        "p50_ms": 1000 * percentile(latencies[:count], 0.5),
        "p99_ms": 1000 * percentile(latencies[:count], 0.99),
    }


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:5]
    given = sys.argv[5] if len(sys.argv) > 5 else ""
    print(json.dumps(uvloop.run(load(int(port), path, int(connections), float(seconds), given))))
