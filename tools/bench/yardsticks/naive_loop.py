"""A first version of a broadcaster: each message is awaited client by client. `python -m ... PORT RATE`.

Messages of 2 kB and the gateway's own bound on the kernel's buffer: so it fills in a second, as there, and not in ten.
"""

from __future__ import annotations

import asyncio
import http
import socket
import sys
import time

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


async def main(port: int, rate: float) -> None:
    """Serve for ever."""
    clients: dict[ServerConnection, None] = {}

    async def handler(client: ServerConnection) -> None:
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        clients[client] = None
        try:
            await client.wait_closed()
        finally:
            clients.pop(client, None)

    def ready(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(http.HTTPStatus.OK, "ready") if request.path == "/ready" else None

    async with serve(handler, "127.0.0.1", port, process_request=ready, compression=None, ping_interval=None):
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            told = time.time_ns() // 1_000
            text = f'{{"type":"update","id":{told},"pad":"{"x" * 2_000}"}}'
            for client in list(clients):
                try:
                    await client.send(text)
                except ConnectionClosed:
                    clients.pop(client, None)
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
