"""uvicorn's sans-I/O WebSocket protocol with a door for ready-made frames: the same bytes go to every transport."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.gateway.domain import protocol

EXTENSION: Final = "cryptopulse.socket"
SEND_BUFFER_BYTES: Final = 128 * 1024
"""The kernel's part of what a client may lag behind; without a bound a dead client looks alive for minutes."""
CLOSE_SECONDS: Final = 3.0
CLOSED: Final = counter(
    "cryptopulse_sockets_closed_total", "Sockets that we closed, by close code.", ("status",)
)


class Flow(Protocol):
    """Hears when the transport's buffer fills and empties."""

    def pause(self, now: float) -> None: ...
    def resume(self) -> None: ...


class SocketProtocol(WebSocketsSansIOProtocol):
    """One socket. `write` takes whole frames; `close` bounds the farewell; a missing pong closes with 4012."""

    flow: Flow | None = None

    async def run_asgi(self) -> None:
        """Show this socket to the app, then run it."""
        extensions: Any = self.scope["extensions"]
        extensions[EXTENSION] = self
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        await super().run_asgi()

    @property
    def write(self) -> Callable[[bytes], Any]:
        """The transport's own write."""
        return self.transport.write

    def pause_writing(self) -> None:
        """The buffer is over its high-water mark."""
        super().pause_writing()
        if self.flow is not None:
            self.flow.pause(self.loop.time())

    def resume_writing(self) -> None:
        """The buffer has drained."""
        super().resume_writing()
        if self.flow is not None:
            self.flow.resume()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind what is buffered, and cut the line if the client does not answer in time."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        CLOSED.labels(str(code)).inc()
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """No pong in time."""
        self.pong_timer = None
        self.pending_ping_payload = None
        self.close(protocol.CLOSE_NO_PONG, "no pong in time")


def socket_of(scope: Any) -> SocketProtocol:
    """The socket under an ASGI connection."""
    found = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(found, SocketProtocol):
        raise TypeError("the public server must run with ws=SocketProtocol")
    return found
