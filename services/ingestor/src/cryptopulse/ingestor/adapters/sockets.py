"""Sockets to venues on picows: frames come in the reader's own callback, with no task switch between."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final

import picows

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import UpstreamUnavailable

logging.getLogger("picows").setLevel(logging.WARNING)  # states are ours to tell

OPEN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
_TEXT: Final = picows.WSMsgType.TEXT
_CLOSE: Final = picows.WSMsgType.CLOSE
_BINARY: Final = picows.WSMsgType.BINARY
_CONTINUATION: Final = picows.WSMsgType.CONTINUATION
_CONTROL: Final = frozenset({picows.WSMsgType.PING, picows.WSMsgType.PONG})


class PicowsWire(picows.WSListener):
    """One socket: the library's listener and our `application.ports.Wire`."""

    def __init__(
        self,
        clock: Clock,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[int], None],
        next_turn: Callable[[], float],
    ) -> None:
        self.last_frame = clock.monotonic()
        self._monotonic = clock.monotonic
        self._on_text = on_text
        self._on_binary = on_binary
        self._next_turn = next_turn
        self._ping: bytes | None = None
        """The newest ping that waits for its answer's turn."""
        self._transport: Any = None
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._why = ""
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._parts_text = True

    def on_ws_connected(self, transport: Any) -> None:
        """The handshake is done."""
        self._transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Called by the reader for every frame; must not wait and must not raise."""
        self.last_frame = self._monotonic()
        kind = frame.msg_type
        if kind is _TEXT and frame.fin:
            self._on_text(frame.get_payload_as_bytes())
        elif kind in _CONTROL:
            if kind is picows.WSMsgType.PING:
                self._pinged(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            self._why = (
                f"closed by the venue: {frame.get_close_code()} {frame.get_close_message() or b''!r:.80}"
            )
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            self._part(kind, frame, transport)

    def _pinged(self, payload: bytes) -> None:
        """Answer at once when there is room for a message, else as soon as there is (RFC 6455, 5.5.3: the newest will do)."""
        is_waiting, self._ping = self._ping is not None, payload
        if is_waiting:
            return
        wait = self._next_turn()
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._pong)
        else:
            self._pong()

    def _pong(self) -> None:
        payload, self._ping = self._ping, None
        if payload is not None and not self._gone.done():
            self._transport.send_pong(payload)

    def on_ws_disconnected(self, _transport: Any) -> None:
        """The socket is gone, with or without a close frame."""
        if not self._gone.done():
            self._gone.set_result(self._why or "cut without a close frame (1006)")

    def _part(self, kind: Any, frame: Any, transport: Any) -> None:
        """Fragments of a message; what is not text is only counted."""
        if kind is not _CONTINUATION:
            self._parts, self._parts_bytes, self._parts_text = [], 0, kind is _TEXT
        self._parts_bytes += frame.payload_size
        if self._parts_bytes > MAX_FRAME_BYTES:
            self._why = f"a message of more than {MAX_FRAME_BYTES} bytes"
            transport.disconnect()
            return
        self._parts.append(frame.get_payload_as_bytes())
        if not frame.fin:
            return
        whole, self._parts = b"".join(self._parts), []
        if self._parts_text:
            self._on_text(whole)
        else:
            self._on_binary(len(whole))

    def send(self, text: bytes) -> None:
        """Send a text frame; a no-op when the socket is gone."""
        if self._transport is not None and not self._gone.done():
            self._transport.send(_TEXT, text)

    async def close(self) -> None:
        """Close with a handshake, for 2 s at most; then the hard way."""
        if self._transport is None or self._gone.done():
            return
        self._transport.send_close(picows.WSCloseCode.OK)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._gone)
        except TimeoutError:
            self._transport.disconnect(False)

    async def closed(self) -> str:
        """Wait until the socket is gone: why."""
        return await asyncio.shield(self._gone)


class PicowsSockets:
    """Implements `application.ports.Sockets`."""

    def __init__(self, clock: Clock, *, open_seconds: float = OPEN_SECONDS) -> None:
        self._clock = clock
        self._open_seconds = open_seconds
        self._tls: ssl.SSLContext | None = None

    async def open(
        self,
        url: str,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[int], None],
        next_turn: Callable[[], float],
    ) -> PicowsWire:
        """Raises `UpstreamUnavailable` with the reason when it cannot be opened within its time."""
        wire = PicowsWire(self._clock, on_text, on_binary, next_turn)
        if url.startswith("wss") and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(self._open_seconds):
                await picows.ws_connect(
                    lambda: wire,
                    url,
                    ssl_context=self._tls if url.startswith("wss") else None,
                    enable_auto_pong=False,
                    max_frame_size=MAX_FRAME_BYTES,
                    extra_headers={"User-Agent": "CryptoPulse/0.1"},
                )
        except (OSError, TimeoutError, picows.WSError, ValueError) as error:
            raise UpstreamUnavailable(
                f"cannot open {url}: {type(error).__name__} {error}".rstrip()[:300]
            ) from error
        return wire
