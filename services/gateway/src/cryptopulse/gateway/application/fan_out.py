"""The engine of the sockets: streams, connections, the timers of the interval classes, heartbeats and farewells."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.indicators import Signal
from cryptopulse.gateway.application.connection import BLOCKED_SECONDS, Connection
from cryptopulse.gateway.application.streams import Key, Stream
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.conflation import (
    CLASSES_MS,
    RING_SECONDS,
    SIGNALS_KEPT,
    SIGNALS_SECONDS,
    Ring,
    interval_class,
)
from cryptopulse.gateway.domain.frames import text_frame
from cryptopulse.gateway.domain.protocol import Position

TICK_SECONDS: Final = 0.1
EXPIRY_NOTICE_SECONDS: Final = 60.0
AGES_PER_HEARTBEAT: Final = 200


class Hub:
    """All streams and connections of one gateway process. Everything runs on the loop's thread, nothing awaits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sids = itertools.count(1)
        self._ids = itertools.count(1)
        self._replica = secrets.token_hex(3)
        self._streams: dict[Key, Stream] = {}
        self._rings: dict[Key, Ring] = {}
        self._dirty: dict[int, dict[Stream, None]] = {every: {} for every in CLASSES_MS if every}
        self.singles: dict[Key, list[Stream]] = {}
        """(`indicators:<interval>`, subject) -> streams of single outputs of it."""
        self.followed: set[str] = set()
        """Symbols whose trades come to this process: kept whether or not somebody listens here."""
        self.connections: dict[str, Connection] = {}
        self.frames_written = 0
        self.closed_slow = 0
        self.is_draining = False

    # --- streams -------------------------------------------------------------------------------------------------

    def stream(
        self, key: Key, encode: Callable[[Any], bytes], *, conflated: bool, ring: Ring | None = None
    ) -> Stream:
        """The stream of a key, made on first use: where its ring stands; without one under an epoch of this process."""
        found = self._streams.get(key)
        if found is None:
            epoch = f"{self._replica}{secrets.token_hex(2)}"
            found = Stream(next(self._sids), key, encode, conflated=conflated, epoch=epoch, ring=ring)
            self._streams[key] = found
            self.touch(found)
            base = _without_name(key[0])
            if base != key[0]:
                self.singles.setdefault((base, key[1]), []).append(found)
        return found

    def ring(self, key: Key) -> Ring:
        """What clients of a key resume from; several streams may share it."""
        found = self._rings.get(key)
        if found is None:
            if key[0] == "signals":
                found = Ring(SIGNALS_KEPT, SIGNALS_SECONDS)
            else:  # trades come only while somebody follows them: until the first one, some may have passed
                found = Ring(is_torn=key[0] == "trades")
            self._rings[key] = found
        return found

    def stand_at(self, key: Key, epoch: int, offset: int) -> None:
        """Where a sequence stands by its producer's word, unless it was heard or is listened to: then the bus tells."""
        ring = self.ring(key)
        sharing = [*filter(None, (self.find(key),)), *self.singles.get(key, ())]
        if ring.epoch or any(stream.has_members for stream in sharing):
            return
        ring.stand_at(epoch, offset, self._clock.now_ms())
        for stream in sharing:
            stream.stand()

    def load_signals(self, signals: Iterable[Signal]) -> None:
        """What was signalled before this process listened, oldest first; what came meanwhile goes behind it."""
        older: dict[Key, list[tuple[int, int, int, Any]]] = {}
        now = self._clock.now_ms()
        for signal in signals:
            if signal.offset:
                place = (signal.epoch, signal.offset, now, signal)
                older.setdefault(("signals", signal.symbol), []).append(place)
        for key, items in older.items():
            self.ring(key).rebuild(items)

    def tear(self, symbols: Collection[str] | None = None) -> None:
        """The bus was away, or trades of these symbols are followed no longer: what passes is not seen, so nobody resumes over it."""
        for key, ring in self._rings.items():
            if symbols is None or (key[0] == "trades" and key[1].partition("@")[0] in symbols):
                ring.is_torn = True

    def find(self, key: Key) -> Stream | None:
        """The stream of a key, if it exists."""
        return self._streams.get(key)

    def streams(self) -> Iterator[Stream]:
        """All streams."""
        return iter(tuple(self._streams.values()))

    def now_ms(self) -> int:
        """The wall clock, for offsets that are times."""
        return self._clock.now_ms()

    def touch(self, stream: Stream) -> None:
        """Somebody reads this stream without listening: keep it for a while."""
        stream.wanted_ms = self._clock.now_ms()

    def is_wanted(self, stream: Stream) -> bool:
        """True while somebody listens, or has read it within a minute."""
        return stream.has_members or self._clock.now_ms() - stream.wanted_ms < RING_SECONDS * 1_000

    def drop(self, key: Key) -> None:
        """Forget a stream that nobody listens to."""
        found = self._streams.get(key)
        if found is None or found.has_members:
            return
        del self._streams[key]
        singles = self.singles.get((_without_name(key[0]), key[1]), [])
        if found in singles:
            singles.remove(found)

    def forget(self) -> None:
        """Forget streams that nobody wants any more, and rings that nobody could resume from."""
        for stream in self.streams():
            if not self.is_wanted(stream):
                self.drop(stream.key)
        self.singles = {key: streams for key, streams in self.singles.items() if streams}
        used = {id(stream.ring) for stream in self._streams.values()}
        now = self._clock.now_ms()
        self._rings = {
            key: ring
            for key, ring in self._rings.items()
            if id(ring) in used or now - ring.at_ms < ring.seconds * 1_000
        }

    def publish(
        self,
        stream: Stream,
        payload: Any,
        *,
        offset: int | None = None,
        epoch: str | None = None,
    ) -> None:
        """Put a message on a stream: at once to the class 0, with the next period to the others.

        A blocked client may lose it to a newer one when the stream is conflated.
        """
        if not stream.advance(payload, self._clock.now_ms(), offset, epoch):
            return
        if stream.stale_since is not None:
            stream.stale_since = None
            self._tell(stream, {"type": "fresh", "sid": stream.sid})
        self.frames_written += stream.flush(0, replaceable=stream.conflated)
        self._soon(stream)

    def publish_final(self, stream: Stream, payload: Any, *, offset: int | None, epoch: str | None) -> None:
        """Put a message on a stream that no newer one stands for: at once to every class, and it waits for who is blocked."""
        if not stream.advance(payload, self._clock.now_ms(), offset, epoch):
            return
        for every in CLASSES_MS:
            self.frames_written += stream.flush(every, replaceable=False)

    def publish_forming(self, stream: Stream, payload: Any) -> None:
        """Put a message on a stream that the next one replaces and that does not count."""
        stream.replace(payload, self._clock.now_ms(), is_forming=not payload.closed)
        self.frames_written += stream.flush(0, replaceable=True)
        self._soon(stream)

    def _soon(self, stream: Stream) -> None:
        for every, dirty in self._dirty.items():
            if stream.members[every]:
                dirty[stream] = None

    def tick(self, every: int) -> None:
        """The period of an interval class has passed: send what changed."""
        dirty, self._dirty[every] = self._dirty[every], {}
        for stream in dirty:
            self.frames_written += stream.flush(every, replaceable=True)

    def mark_stale(self, stream: Stream, since_ms: int, reason: str) -> None:
        """Tell the listeners, once, that a stream has no news since `since_ms`."""
        if stream.stale_since is None:
            stream.stale_since = since_ms
            self._tell(stream, {"type": "stale", "sid": stream.sid, "since_ts": since_ms, "reason": reason})

    def _tell(self, stream: Stream, message: dict[str, Any]) -> None:
        frame = text_frame(protocol.encode(message))
        for members in stream.members.values():
            for connection in tuple(members):
                connection.say_frame(frame)

    # --- subscriptions -------------------------------------------------------------------------------------------

    def subscribe(
        self,
        connection: Connection,
        stream: Stream,
        *,
        every_ms: int,
        snapshot: bool,
        resume: Position | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Join a stream. Returns the entry for the `ack`, and the messages to send after it.

        Resume is whole (`recovered` true, every missed message once) or says no (`recovered` false and a snapshot). On a
        conflated stream the newest value is the whole.
        """
        stream.leave(connection)
        every = interval_class(every_ms) if stream.conflated else 0
        stream.join(connection, every)
        entry: dict[str, Any] = {"sid": stream.sid, "epoch": stream.epoch, "offset": stream.offset}
        messages: list[bytes] = []
        if resume is not None:
            missed = self._missed(stream, resume)
            entry["recovered"] = missed is not None
            if missed is not None:
                return entry, missed
        if stream.payload is not None and (snapshot or resume is not None):
            messages.append(protocol.snapshot(stream.sid, stream.epoch, stream.offset, stream.data()))
        return entry, messages

    def _missed(self, stream: Stream, position: Position) -> list[bytes] | None:
        if stream.ring is None:
            if position.epoch != stream.epoch or position.offset > stream.offset:
                return None
            if position.offset == stream.offset or stream.payload is None:
                return []
            return [protocol.snapshot(stream.sid, stream.epoch, stream.offset, stream.data())]
        missed = stream.ring.since(position.epoch, position.offset)
        if missed is None:
            return None
        messages = [protocol.update(stream.sid, offset, stream.encode(payload)) for offset, payload in missed]
        if stream.is_forming:
            messages.append(protocol.update(stream.sid, stream.offset, stream.data()))
        return messages

    def unsubscribe(self, connection: Connection, stream: Stream) -> bool:
        """Leave a stream; False when the connection did not listen to it."""
        listened = stream in connection.streams
        self._left(connection, stream)
        return listened

    def _left(self, connection: Connection, stream: Stream) -> None:
        """What is made again from what others hold, at the same place, is not kept for those who come back."""
        stream.leave(connection)
        self.touch(stream)
        kind = stream.key[0].partition(":")[0]
        if kind in {"ticker", "alerts", "portfolio"} or stream.key[0] != _without_name(stream.key[0]):
            self.drop(stream.key)

    # --- connections ---------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A name for a connection."""
        return f"c_{self._replica}{next(self._ids):x}"

    def add(self, connection: Connection) -> None:
        """A connection was accepted."""
        self.connections[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.pop(connection.id, None)
        for stream in tuple(connection.streams):
            self._left(connection, stream)
        connection.closed = True
        self.closed_slow += connection.was_slow

    def count_of(self, identity: Identity, network: str) -> int:
        """How many connections a caller has open here: by credential, else by network."""
        if identity.user_id is None:
            return sum(
                1
                for item in self.connections.values()
                if item.identity.user_id is None and item.network == network
            )
        return sum(1 for item in self.connections.values() if item.identity.user_id == identity.user_id)

    def revoke(self, session_or_key: str) -> int:
        """Close the connections of a session, key or user that lost its right; how many."""
        closed = 0
        for connection in tuple(self.connections.values()):
            identity = connection.identity
            if session_or_key in {identity.session_id, identity.key_id, f"user:{identity.user_id}"}:
                connection.close(protocol.CLOSE_AUTH_EXPIRED, "the credential was revoked")
                closed += 1
        return closed

    # --- what time brings ----------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Close who has been blocked for too long and whose credential has expired; warn of the latter before."""
        now = self._clock.monotonic()
        wall = self._clock.now_ms() / 1_000
        for connection in tuple(self.connections.values()):
            if connection.is_overdue and now - connection.blocked_since >= BLOCKED_SECONDS:
                connection.was_slow = True
                connection.close(protocol.CLOSE_SLOW, "slow consumer: nothing was read for 10 s")
                continue
            until = connection.authenticated_until
            if until is None or connection.closed:
                continue
            if wall >= until:
                connection.close(protocol.CLOSE_AUTH_EXPIRED, "the token has expired")
            elif until - wall <= EXPIRY_NOTICE_SECONDS and not connection.warned:
                connection.warned = True
                left = round((until - wall) * 1_000)
                connection.say(protocol.encode({"type": "auth_expiring", "in_ms": left}))

    def heartbeat(self) -> None:
        """A heartbeat to every connection, with the ages of its streams: browsers cannot see pings."""
        now = self._clock.now_ms()
        for connection in tuple(self.connections.values()):
            if connection.blocked or not connection.streams:
                if not connection.blocked:
                    connection.say(protocol.encode({"type": "hb", "server_ts": now, "age_ms": {}}))
                continue
            ages = {
                str(stream.sid): max(0, now - stream.at_ms)
                for stream in itertools.islice(connection.streams, AGES_PER_HEARTBEAT)
                if stream.at_ms
            }
            connection.say(protocol.encode({"type": "hb", "server_ts": now, "age_ms": ages}))

    def farewell(self) -> None:
        """Tell everybody to come back elsewhere, each at another time."""
        self.is_draining = True
        for connection in tuple(self.connections.values()):
            pause = random.randint(0, 10_000)
            connection.say(protocol.encode({"type": "going_away", "reconnect_after_ms": pause}))

    async def depart(self, seconds: float) -> None:
        """Tell everybody, then close one after the other over so many seconds: they arrive elsewhere spread out."""
        self.farewell()
        leaving = list(self.connections.values())
        random.shuffle(leaving)
        for connection in leaving:
            await asyncio.sleep(seconds / len(leaving))
            connection.close(protocol.CLOSE_RESTART, "the server restarts")
        self.close_all()

    def close_all(self) -> None:
        """Close what is still open."""
        for connection in tuple(self.connections.values()):
            connection.close(protocol.CLOSE_RESTART, "the server restarts")


def _without_name(channel: str) -> str:
    """`indicators:1m` for `indicators:rsi_14:1m`, every other channel as it is."""
    parts = channel.split(":")
    return f"{parts[0]}:{parts[2]}" if len(parts) == 3 else channel
