"""The seam: what a service may expect of the bus. Two implementations keep these promises: `rabbit` and `memory`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.topics import Queue, Topic


class Delivery(Protocol):
    """One message in the hands of a consumer. `sent_us` is the producer's clock at publish, 0 when unknown."""

    @property
    def message(self) -> Any: ...
    @property
    def message_id(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def sent_us(self) -> int: ...
    @property
    def tag(self) -> int: ...


Handler = Callable[[Delivery], Awaitable[None]]
"""Called one message at a time, in order, per subscription.

With `manual_ack=False` a normal return acks. `errors.Retryable` puts the message back after a pause (durable: until the
delivery limit, then dead letters; live: dropped and counted). `errors.Unavailable` of a durable message keeps it in hand:
the same handler is called with it again, `redelivered`, after growing pauses, and it is put back only when ten minutes have
passed or the subscription ends. `errors.Invalid` or any other exception dead-letters (durable) or drops and counts (live).
With `manual_ack=True` a normal return leaves it unacked.
"""


class Subscription(Protocol):
    """A running consumer on a channel of its own."""

    async def ack(self, upto: Delivery) -> None:
        """Ack this message and all before it on this subscription. A no-op after the channel is gone."""
        ...

    async def pause(self) -> None:
        """Stop consuming and wait until the handler in hand has returned; what is unacked stays so until `close`."""
        ...

    async def close(self) -> None:
        """Stop consuming, wait for the handler in hand, then close the channel: the unacked goes to the next owner in order."""
        ...

    @property
    def active(self) -> bool:
        """True while the consumer is registered on a live channel."""
        ...


class Publisher(Protocol):
    """Publishes messages. Safe to call from many tasks; order per topic and caller holds."""

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
        """Publish one message under `key` and, in the CC header, `cc`.

        Live topic: returns when the frame is handed over and the confirm window has room; waits at most
        `publish_timeout_seconds`, then raises `errors.BusUnavailable`. Lost confirms are counted, never retried here:
        `on_settled` is called once after a return, True when the broker confirmed, False when it is not known to have
        the message; it must not wait. Not called when this raises, nor for a durable topic.
        Durable topic: returns when the broker has confirmed; raises `errors.BusUnavailable` otherwise, and the caller
        tries again with the same `message_id` (it may have arrived).
        """
        ...


class Bus(Publisher, Protocol):
    """One process's connection to the bus: a connection to publish, another to consume; heals by itself."""

    async def start(self) -> None:
        """Begin to connect in the background and declare the topology; returns at once, also when the broker is away."""
        ...

    async def close(self) -> None:
        """Close subscriptions, wait for confirms (bounded), close connections."""
        ...

    async def subscribe(
        self, queue: Queue, handler: Handler, *, prefetch: int = 100, manual_ack: bool = False, name: str = ""
    ) -> Subscription:
        """Consume a queue on a channel of its own; it is re-established by itself after any loss of connection.

        Returns once registered as wanted (it may not be connected yet). A durable shared queue gives one message at a
        time unless they are acked by hand: whatever is given back, also unseen, has had one of its tries.
        """
        ...

    async def bind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """Add a binding to an exclusive queue of a running subscription; kept over reconnects."""
        ...

    async def unbind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """Take a binding of an exclusive queue back."""
        ...

    async def backlog(self, queue: Queue) -> int:
        """Messages ready in the queue. Raises `errors.BusUnavailable`."""
        ...

    @property
    def connections(self) -> int:
        """Connections for publishing made so far. A new one means: what the broker held of live topics may be gone."""
        ...

    @property
    def consuming_connections(self) -> int:
        """Connections for consuming made so far. A new one means: what went to exclusive queues meanwhile was missed."""
        ...

    @property
    def is_connected(self) -> bool:
        """True while both connections are up and not blocked by an alarm."""
        ...

    @property
    def disconnected_since_us(self) -> int | None:
        """Our time when the connection was lost, None while connected."""
        ...
