"""The bus in memory: the same promises as RabbitMQ for tests and simulations, held to them by the same suite."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptopulse.common.bus.codec import decode, encode
from cryptopulse.common.bus.deliveries import Received
from cryptopulse.common.bus.protocols import Handler, Subscription
from cryptopulse.common.bus.routing import matches_any
from cryptopulse.common.bus.topology import queue_arguments
from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.topics import Queue, Topic
from cryptopulse.common.errors import BusUnavailable, NoQueueYet, Retryable, Unavailable

HELD_PAUSE_SECONDS = 0.01
"""Between two tries of a message in hand."""


@dataclass(slots=True)
class _Envelope:
    body: bytes
    type_name: str
    message_id: str
    routing_key: str
    headers: dict[str, Any]
    redelivered: bool = False
    deliveries: int = 0


@dataclass(slots=True)
class _StoredQueue:
    queue: Queue
    bindings: list[tuple[str, str]]
    ready: deque[_Envelope] = field(default_factory=deque)
    consumers: list[MemorySubscription] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0

    def put(self, envelope: _Envelope) -> None:
        self.ready.append(envelope)
        if self.queue.topic.delivery == "live" or self.queue.exclusive:
            while len(self.ready) > self.queue.max_length:
                self.ready.popleft()
                self.dropped += 1
        self.arrived.set()


class MemoryBroker:
    """What the buses of one test share. `stop` and `start` are the broker's death and return: durable queues survive.

    While `silent` it takes live messages, routes none and confirms none; they die with `stop`.
    """

    def __init__(self) -> None:
        self.queues: dict[str, _StoredQueue] = {}
        self.dead_letters: dict[str, list[_Envelope]] = {}
        self.running = True
        self.silent = False
        self.starts = 1
        self._unsettled: list[Callable[[bool], None]] = []

    def settle(self, on_settled: Callable[[bool], None] | None) -> None:
        """Confirm a live message, or keep it unconfirmed while silent."""
        if on_settled is None:
            return
        if self.silent:
            self._unsettled.append(on_settled)
        else:
            on_settled(True)

    def stop(self) -> None:
        """The broker is gone: publishes fail, transient messages and exclusive queues are lost, unacked comes back later."""
        self.running = False
        unsettled, self._unsettled = self._unsettled, []
        for on_settled in unsettled:
            on_settled(False)
        for name, stored in list(self.queues.items()):
            for consumer in stored.consumers:
                consumer.requeue_unacked()
            if stored.queue.topic.delivery == "live":
                stored.ready.clear()
            if stored.queue.exclusive:
                stored.ready.clear()
                del self.queues[name]
                self.queues[name] = stored  # the owner declares it again at its return, empty

    def start(self) -> None:
        """The broker is back."""
        self.running = True
        self.silent = False
        self.starts += 1
        for stored in self.queues.values():
            stored.arrived.set()

    def declare(self, name: str, queue: Queue) -> _StoredQueue:
        queue_arguments(queue)
        stored = self.queues.get(name)
        if stored is None:
            stored = _StoredQueue(queue, [(queue.topic.exchange, key) for key in queue.bindings])
            self.queues[name] = stored
        return stored

    def route(self, exchange: str, keys: Sequence[str], envelope: _Envelope) -> bool:
        routed = False
        for stored in self.queues.values():
            patterns = [key for bound, key in stored.bindings if bound == exchange]
            if matches_any(patterns, keys):
                routed = True
                stored.put(
                    _Envelope(
                        envelope.body,
                        envelope.type_name,
                        envelope.message_id,
                        envelope.routing_key,
                        dict(envelope.headers),
                    )
                )
        return routed


class MemorySubscription:
    """A consumer of the memory bus."""

    def __init__(
        self,
        broker: MemoryBroker,
        stored: _StoredQueue,
        name: str,
        handler: Handler,
        prefetch: int,
        manual: bool,
    ) -> None:
        self.broker = broker
        self.stored = stored
        self._name = name
        self._handler = handler
        self._prefetch = prefetch
        self._manual = manual
        self._durable = stored.queue.topic.delivery == "durable" and not stored.queue.exclusive
        self._unacked: dict[int, _Envelope] = {}
        self._tag = 0
        self._epoch = 1
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        stored.consumers.append(self)
        self._task = asyncio.create_task(self._run(), name=f"memory-consumer-{name}")

    @property
    def active(self) -> bool:
        """True while it consumes (a stand-by behind a single active consumer is registered as well)."""
        return not self._closed and self.broker.running

    def requeue_unacked(self) -> None:
        """Everything unacked goes back to the head of the queue, in order, marked redelivered."""
        for envelope in reversed(self._unacked.values()):
            envelope.redelivered = True
            envelope.deliveries += 1
            self.stored.ready.appendleft(envelope)
        self._unacked.clear()
        self._epoch += 1
        self.stored.arrived.set()

    async def ack(self, upto: Received) -> None:
        """Ack this and all before it."""
        if upto.epoch == self._epoch:
            for tag in [tag for tag in self._unacked if tag <= upto.tag]:
                del self._unacked[tag]
            self.stored.arrived.set()

    async def pause(self) -> None:
        """Stop consuming; wait for the handler in hand."""
        self._closed = True
        await self._idle.wait()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def close(self) -> None:
        """Pause and give everything unacked back in order."""
        await self.pause()
        self.requeue_unacked()
        if self in self.stored.consumers:
            self.stored.consumers.remove(self)
        if self.stored.queue.exclusive:
            self.broker.queues.pop(self._name, None)
        self.stored.arrived.set()

    def _may_take(self) -> bool:
        if not self.broker.running or not self.stored.ready or len(self._unacked) >= self._prefetch:
            return False
        return self.stored.queue.shard is None or self.stored.consumers[0] is self

    async def _run(self) -> None:
        while not self._closed:
            if not self._may_take():
                self.stored.arrived.clear()
                if not self._may_take():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.stored.arrived.wait(), 0.05)
                continue
            envelope = self.stored.ready.popleft()
            self._tag += 1
            self._unacked[self._tag] = envelope
            self._idle.clear()
            try:
                await self._one(self._tag, self._epoch, envelope)
            finally:
                self._idle.set()
            await asyncio.sleep(0)

    async def _one(self, tag: int, epoch: int, envelope: _Envelope) -> None:
        try:
            _, message = decode(envelope.body, envelope.type_name)
            sent = envelope.headers.get("sent_us", 0)
            while True:
                try:
                    await self._handler(
                        Received(
                            message,
                            envelope.message_id,
                            envelope.routing_key,
                            envelope.headers,
                            envelope.redelivered,
                            sent,
                            tag,
                            epoch,
                            envelope.deliveries,
                        )
                    )
                    break
                except Unavailable:
                    if not self._durable:
                        raise
                    await asyncio.sleep(HELD_PAUSE_SECONDS)
                    if self._closed or epoch != self._epoch:
                        return
                    envelope.redelivered = True
        except Retryable:
            self._settle(tag, epoch, envelope, again=True)
        except Exception:  # as on RabbitMQ: anything but Retryable is a verdict on the message
            self._settle(tag, epoch, envelope, again=False)
        else:
            if not self._manual and epoch == self._epoch:
                self._unacked.pop(tag, None)

    def _settle(self, tag: int, epoch: int, envelope: _Envelope, *, again: bool) -> None:
        if epoch != self._epoch:
            return
        self._unacked.pop(tag, None)
        queue = self.stored.queue
        envelope.deliveries += 1
        envelope.redelivered = True
        if self._durable and again and envelope.deliveries <= queue.delivery_limit:
            self.stored.ready.appendleft(envelope)
            self.stored.arrived.set()
        elif self._durable:
            self.broker.dead_letters.setdefault(queue.dead_letters, []).append(envelope)


class MemoryBus:
    """The `Bus` of tests and simulations."""

    def __init__(self, broker: MemoryBroker, *, service: str, clock: Clock | None = None) -> None:
        self.broker = broker
        self._service = service
        self._clock = clock or SystemClock()
        self._subscriptions: list[MemorySubscription] = []

    async def start(self) -> None:
        """Nothing to connect."""

    async def wait_connected(self, timeout_seconds: float) -> bool:
        """True while the broker runs."""
        del timeout_seconds
        return self.broker.running

    async def close(self) -> None:
        """Close all subscriptions."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    @property
    def connections(self) -> int:
        """See `protocols.Bus.connections`."""
        return self.broker.starts

    @property
    def consuming_connections(self) -> int:
        """See `protocols.Bus.consuming_connections`."""
        return self.broker.starts

    @property
    def is_connected(self) -> bool:
        """True while the broker runs."""
        return self.broker.running

    @property
    def is_blocked(self) -> bool:
        """The memory broker has no alarms."""
        return False

    @property
    def disconnected_since_us(self) -> int | None:
        """Now, while the broker is stopped."""
        return None if self.broker.running else self._clock.now_us()

    async def publish(
        self,
        topic: Topic,
        message: Message,
        *,
        key: str,
        cc: Sequence[str] = (),
        message_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        on_settled: Callable[[bool], None] | None = None,
    ) -> None:
        """See `protocols.Publisher.publish`."""
        if not self.broker.running:
            raise BusUnavailable("the broker is away")
        table: dict[str, Any] = {
            "sent_us": self._clock.now_us(),
            "x-service": self._service,
            **(headers or {}),
        }
        if cc:
            table["CC"] = list(cc)
        envelope = _Envelope(encode(message), topic.type_name, message_id or uuid.uuid4().hex, key, table)
        live = topic.delivery == "live"
        if not (live and self.broker.silent):
            routed = self.broker.route(topic.exchange, [key, *cc], envelope)
            if topic.mandatory and not routed:
                raise NoQueueYet(f"{topic.name}: no queue is bound for {key} yet")
        await asyncio.sleep(0)
        if live:
            self.broker.settle(on_settled)

    async def subscribe(
        self, queue: Queue, handler: Handler, *, prefetch: int = 100, manual_ack: bool = False, name: str = ""
    ) -> Subscription:
        """See `protocols.Bus.subscribe`."""
        del name
        stored_name = queue.name or f"exclusive-{uuid.uuid4().hex}"
        stored = self.broker.declare(stored_name, queue)
        subscription = MemorySubscription(self.broker, stored, stored_name, handler, prefetch, manual_ack)
        self._subscriptions.append(subscription)
        return subscription  # type: ignore[return-value] # ack takes our own Received, which is the only Delivery there is

    async def bind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """See `protocols.Bus.bind`."""
        assert isinstance(subscription, MemorySubscription)
        if (topic.exchange, key) not in subscription.stored.bindings:
            subscription.stored.bindings.append((topic.exchange, key))

    async def unbind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """See `protocols.Bus.unbind`."""
        assert isinstance(subscription, MemorySubscription)
        if (topic.exchange, key) in subscription.stored.bindings:
            subscription.stored.bindings.remove((topic.exchange, key))

    async def backlog(self, queue: Queue) -> int:
        """Messages ready."""
        if not self.broker.running:
            raise BusUnavailable("the broker is away")
        stored = self.broker.queues.get(queue.name)
        return len(stored.ready) if stored is not None else 0
