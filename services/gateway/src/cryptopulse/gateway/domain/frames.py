"""Server frames of RFC 6455, built once and written as the same bytes to every client (servers do not mask)."""

from __future__ import annotations

import struct

_TEXT = 0x81
_CLOSE = 0x88


def text_frame(payload: bytes) -> bytes:
    """A final, unmasked text frame of `payload` (section 5.2): length in 7, 16 or 64 bits."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame with its code and a reason cut to 123 bytes (section 5.5.1)."""
    body = struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((_CLOSE, len(body))) + body
