"""One client's socket as the engine sees it: bounded, conflating while blocked, closed when it stays so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.gateway.application.streams import Place, Stream
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.frames import text_frame

QUEUE_BYTES: Final = 256 * 1024
"""What may wait for a blocked client in messages that no newer one replaces."""
BLOCKED_SECONDS: Final = 10.0
"""After this long without taking a byte a client is closed with 4008."""


class Sink(Protocol):
    """The transport under a connection."""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Hands bytes to the transport; never blocks."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame, then ends the connection within a bounded time."""
        ...


class Connection:
    """A connection, its subscriptions and what waits for it while its transport is blocked."""

    __slots__ = (
        "address",
        "authenticated_until",
        "blocked",
        "blocked_since",
        "closed",
        "fifo",
        "fifo_bytes",
        "id",
        "identity",
        "network",
        "pending",
        "sink",
        "streams",
        "warned",
        "was_slow",
        "write",
    )

    def __init__(self, ident: str, sink: Sink, identity: Identity = ANONYMOUS) -> None:
        self.id = ident
        self.sink = sink
        self.write = sink.write
        self.identity = identity
        self.address = self.network = ""
        self.authenticated_until: float | None = None
        self.warned = False
        self.blocked = False
        self.blocked_since = 0.0
        self.closed = False
        self.was_slow = False
        self.pending: dict[Stream, Place] = {}
        self.fifo: deque[bytes] = deque()
        self.fifo_bytes = 0
        self.streams: dict[Stream, int] = {}

    def say(self, payload: bytes) -> None:
        """Send a message that nothing replaces; it waits in the bounded queue while the client is blocked."""
        self.say_frame(text_frame(payload))

    def say_frame(self, frame: bytes) -> None:
        """As `say`, with a frame that is already built."""
        if self.closed:
            return
        if not self.blocked and not self.fifo:
            self.write(frame)
            return
        self.fifo.append(frame)
        self.fifo_bytes += len(frame)
        if self.fifo_bytes > QUEUE_BYTES:
            self.was_slow = True
            self.close(protocol.CLOSE_SLOW, "slow consumer: the queue of unsent messages is full")

    def hold(self, stream: Stream, previous: Place, frame: bytes | None = None) -> None:
        """Take note of the stream's newest message while blocked: the newest wins, or `frame` queues, which all others got."""
        if self.closed:
            return
        if frame is None:
            self.pending.setdefault(stream, previous)
            return
        if stream in self.pending:
            offset, epoch = self.pending.pop(stream)
            frame = text_frame(stream.message(stream.offset - offset - 1, epoch))
        self.say_frame(frame)

    def pause(self, now: float) -> None:
        """The transport's buffer is over its high-water mark."""
        if not self.blocked:
            self.blocked = True
            self.blocked_since = now

    def resume(self) -> None:
        """The transport takes bytes again: first what queued, then the newest of every stream that moved on."""
        self.blocked = False
        while self.fifo and not self.blocked:
            frame = self.fifo.popleft()
            self.fifo_bytes -= len(frame)
            self.write(frame)
        while self.pending and not self.blocked:
            stream, (offset, epoch) = self.pending.popitem()
            self.write(text_frame(stream.message(stream.offset - offset - 1, epoch)))

    def close(self, code: int, reason: str) -> None:
        """Close with a code; nothing more is written."""
        if self.closed:
            return
        self.closed = True
        self.pending.clear()
        self.fifo.clear()
        self.fifo_bytes = 0
        self.sink.close(code, reason)

    @property
    def is_overdue(self) -> bool:
        """True while blocked; the sweeper compares `blocked_since`."""
        return self.blocked and not self.closed
