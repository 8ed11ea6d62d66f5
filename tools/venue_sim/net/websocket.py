"""One WebSocket client on the server's side: buffered, coalesced writes and every way to end a connection badly."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import time
from typing import TYPE_CHECKING

from tools.venue_sim.net import frames

if TYPE_CHECKING:
    from tools.venue_sim.net.messages import Session

CLOSE_HANDSHAKE_SECONDS = 1.0
_numbers = itertools.count(1)


class WsConnection:
    """Frames are pushed to a list and written together by `flush`; a client that does not read is cut off.

    `muted` makes the connection half-open: it stays up, and nothing is sent or answered any more.
    """

    __slots__ = (
        "bytes_sent",
        "closed",
        "closing",
        "max_buffer_bytes",
        "muted",
        "number",
        "opened_at",
        "out",
        "paused",
        "reader",
        "ready",
        "session",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport, max_buffer_bytes: int) -> None:
        self.transport = transport
        self.max_buffer_bytes = max_buffer_bytes
        self.number = next(_numbers)
        self.reader = frames.FrameReader()
        self.out: list[bytes] = []
        self.session: Session | None = None
        self.closed = False
        self.closing = False
        self.muted = False
        self.paused = False
        self.ready = False
        self.opened_at = time.monotonic()
        self.bytes_sent = 0

    def send(self, payload: bytes) -> None:
        """Send one text message now, after everything that was pushed before it."""
        self.out.append(frames.text_frame(payload))
        self.flush()

    def flush(self) -> None:
        """Write everything that was pushed, in one go; before the handshake is answered it stays pushed."""
        if not self.out or not self.ready:
            return
        data = b"".join(self.out)
        self.out.clear()
        if self.muted or self.closed or self.closing:
            return
        if self.transport.get_write_buffer_size() > self.max_buffer_bytes:
            self.cut()
            return
        self.bytes_sent += len(data)
        self.transport.write(data)

    def ping(self, payload: bytes) -> None:
        """Send a ping frame."""
        self.out.append(frames.frame(payload, frames.PING))
        self.flush()

    def close(self, code: int, reason: str = "") -> None:
        """Close with a code; the TCP connection ends when the client has answered, or after a second."""
        if self.closed or self.closing:
            return
        self.flush()
        self.closing = True
        if not self.muted:
            self.transport.write(frames.close_frame(code, reason))
        asyncio.get_running_loop().call_later(CLOSE_HANDSHAKE_SECONDS, self.transport.close)

    def cut(self, *, reset: bool = True) -> None:
        """End the TCP connection without a close frame: by a reset, or by a plain end of the stream."""
        if self.closed:
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError, AttributeError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.muted:
            return
        try:
            messages = self.reader.feed(data)
        except frames.FrameError as error:
            self.close(error.code, error.reason)
            return
        for message in messages:
            self._dispatch(message)

    def _dispatch(self, message: frames.Received) -> None:
        session = self.session
        if session is None or self.closed:
            return
        if message.opcode == frames.TEXT:
            session.on_text(message.payload)
        elif message.opcode == frames.PING:
            self.out.append(frames.frame(message.payload, frames.PONG))
            self.flush()
            session.on_ping()
        elif message.opcode == frames.PONG:
            session.on_pong(message.payload)
        elif message.opcode == frames.CLOSE:
            self._answer_close(message.payload)
        else:
            self.close(1003, "text only")

    def _answer_close(self, payload: bytes) -> None:
        if not self.closing:
            self.flush()
            self.closing = True
            self.transport.write(frames.frame(payload[:2], frames.CLOSE))
        self.transport.close()

    def lost(self) -> None:
        """The transport is gone."""
        if self.closed:
            return
        self.closed = True
        self.out.clear()
        if self.session is not None:
            self.session.on_close()
