"""HTTP/1.1 and WebSocket on one port: an asyncio protocol over httptools and our own frames."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import traceback
from collections import deque
from http import HTTPStatus
from typing import Any, Final, cast

import httptools

from tools.venue_sim.net.messages import Request, Response, Session, Site
from tools.venue_sim.net.websocket import WsConnection

MAX_BODY_BYTES: Final = 4 << 20
MAX_PIPELINED: Final = 64
_WS_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer(asyncio.Protocol):
    """One TCP client of a site. Requests on a connection are answered one after the other."""

    def __init__(self, site: Site, peers: set[Peer], max_buffer_bytes: int) -> None:
        self._site = site
        self._peers = peers
        self._max_buffer_bytes = max_buffer_bytes
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._websocket: WsConnection | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._address = ""

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is none of asyncio's
        name = transport.get_extra_info("peername")
        self._address = str(name[0]) if isinstance(name, tuple) else ""
        self._peers.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._peers.discard(self)
        if self._worker is not None:
            self._worker.cancel()
        if self._websocket is not None:
            self._websocket.lost()

    def pause_writing(self) -> None:
        if self._websocket is not None:
            self._websocket.paused = True

    def resume_writing(self) -> None:
        if self._websocket is not None:
            self._websocket.paused = False

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._websocket.received(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._write(Response(400, b"bad request", content_type="text/plain"), keep=False)

    def _after_upgrade(self, rest: bytes) -> None:
        if self._websocket is not None and rest:
            self._websocket.received(rest)

    def stop(self) -> None:
        """Drop the client."""
        if self._websocket is not None:
            self._websocket.close(1001, "going away")
        if self._transport is not None:
            self._transport.close()

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._write(Response(413, b"body too large", content_type="text/plain"), keep=False)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            bytes(self._body),
            self._address,
        )
        if self._headers.get("upgrade", "").lower() == "websocket":
            self._upgrade(request)
            return
        if len(self._waiting) >= MAX_PIPELINED:
            self._write(Response(503, b"too many requests in flight", content_type="text/plain"), keep=False)
            return
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    # -- answering

    def _upgrade(self, request: Request) -> None:
        assert self._transport is not None
        connection = WsConnection(self._transport, self._max_buffer_bytes)
        answer: Session | Response = self._site.websocket(request, connection)
        if isinstance(answer, Response):
            self._write(answer, keep=False)
            return
        key = request.headers.get("sec-websocket-key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + _WS_GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection.session = answer
        self._websocket = connection
        connection.ready = True
        connection.flush()

    async def _work(self) -> None:
        while self._waiting:
            request, keep = self._waiting.popleft()
            try:
                response = await self._site.http(request)
            except asyncio.CancelledError:
                raise
            except Exception:
                response = Response(500, traceback.format_exc().encode(), content_type="text/plain")
            if response.hang:
                return
            self._write(response, keep=keep)

    def _write(self, response: Response, *, keep: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            phrase = HTTPStatus(response.status).phrase
        except ValueError:
            phrase = "Unknown"
        head = [
            f"HTTP/1.1 {response.status} {phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        if not keep:
            head.append("Connection: close")
        body = response.body[: len(response.body) // 2] if response.cut else response.body
        transport.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
        if response.cut or not keep:
            transport.close()


class Listener:
    """A site on a loopback port."""

    def __init__(self, site: Site, max_buffer_bytes: int) -> None:
        self._site = site
        self._max_buffer_bytes = max_buffer_bytes
        self._peers: set[Peer] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Peer(self._site, self._peers, self._max_buffer_bytes), host, port, backlog=1024
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Stop listening and drop every client."""
        if self._server is None:
            return
        self._server.close()
        for peer in list(self._peers):
            peer.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 2.0)
        self._server = None
