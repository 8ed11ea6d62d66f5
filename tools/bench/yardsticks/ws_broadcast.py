"""The `websockets` library's own `broadcast()`: `python -m ... PORT RATE`, 200 bytes to every client RATE times a second."""

from __future__ import annotations

import asyncio
import http
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

MESSAGE = '{"type":"update","price":"67000.10","pad":"' + "x" * 155 + '"}'


async def main(port: int, rate: float) -> None:
    """Serve for ever."""
    clients: set[ServerConnection] = set()

    async def handler(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    def ready(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(http.HTTPStatus.OK, "ready") if request.path == "/ready" else None

    async with serve(handler, "127.0.0.1", port, process_request=ready, compression=None, ping_interval=None):
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            broadcast(clients, MESSAGE)
            due = max(due + 1 / rate, loop.time() - 0.1)
            await asyncio.sleep(max(0.0, due - loop.time()))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
