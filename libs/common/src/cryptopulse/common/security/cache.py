"""A small map of what was verified, until it expires: checking a signature costs more than routing a request."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class Verified(Generic[ValueT]):
    """Least recently used entries fall out. Tokens are kept as SHA-256, so a dump of memory holds no credential here."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[float, ValueT]] = OrderedDict()

    def get(self, token: str, now: float) -> ValueT | None:
        """What was verified, None when unknown or expired at `now` (seconds)."""
        name = _digest(token)
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[name]
            return None
        self._entries.move_to_end(name)
        return entry[1]

    def put(self, token: str, expires_at: float, value: ValueT) -> None:
        """Remember until `expires_at` (seconds)."""
        if self._size <= 0:
            return
        self._entries[_digest(token)] = (expires_at, value)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: after a key was withdrawn."""
        self._entries.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
