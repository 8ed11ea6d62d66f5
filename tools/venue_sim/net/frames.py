"""WebSocket frames (RFC 6455): encoding for a server that sends many, decoding for the few a client sends."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_CLIENT_MESSAGE_BYTES: Final = 1 << 20


class FrameError(Exception):
    """The client broke the framing rules; `code` is the close code that says how."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def header(length: int, opcode: int = TEXT) -> bytes:
    """The header of one final, unmasked frame with a payload of `length` bytes."""
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


# Nearly every frame is short, so its header comes from a table instead of being packed again.
_TEXT_HEADERS: Final = tuple(header(length) for length in range(4096))


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame, ready for the socket. The payload is not checked: it may be invalid on purpose."""
    length = len(payload)
    return (_TEXT_HEADERS[length] if length < 4096 else header(length)) + payload


def frame(payload: bytes, opcode: int) -> bytes:
    """One unmasked frame of any kind."""
    return header(len(payload), opcode) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame with a code and a reason."""
    return frame(struct.pack("!H", code) + reason.encode()[:123], CLOSE)


@dataclass(frozen=True, slots=True)
class Received:
    """One complete message from the client: a control frame, or a data message put together from its fragments."""

    opcode: int
    payload: bytes


class FrameReader:
    """Turns received bytes into messages; bounded, and strict about masks as a server has to be."""

    __slots__ = ("_buffer", "_fragment_opcode", "_fragments")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fragments = bytearray()
        self._fragment_opcode = 0

    def feed(self, data: bytes) -> list[Received]:
        """Messages completed by `data`. Raises FrameError when the client breaks the rules."""
        self._buffer += data
        messages: list[Received] = []
        while (piece := self._next_frame()) is not None:
            final, opcode, payload = piece
            if opcode >= CLOSE:
                messages.append(Received(opcode, payload))
                continue
            if opcode != CONTINUATION:
                self._fragment_opcode = opcode
                self._fragments.clear()
            self._fragments += payload
            if len(self._fragments) > MAX_CLIENT_MESSAGE_BYTES:
                raise FrameError(1009, "message too big")
            if final:
                messages.append(Received(self._fragment_opcode, bytes(self._fragments)))
                self._fragments.clear()
        return messages

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length = buffer[1] & 0x7F
        start = 2
        if length == 126:
            if len(buffer) < 4:
                return None
            length = int.from_bytes(buffer[2:4], "big")
            start = 4
        elif length == 127:
            if len(buffer) < 10:
                return None
            length = int.from_bytes(buffer[2:10], "big")
            start = 10
        if not buffer[1] & 0x80:
            raise FrameError(1002, "client frames must be masked")
        if length > MAX_CLIENT_MESSAGE_BYTES:
            raise FrameError(1009, "message too big")
        end = start + 4 + length
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        final, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        del buffer[:end]
        return final, opcode, payload


def _unmask(data: bytes, mask: bytes) -> bytes:
    length = len(data)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
