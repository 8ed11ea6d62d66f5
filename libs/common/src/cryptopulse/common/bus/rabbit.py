"""The bus on RabbitMQ: one connection to publish, one to consume, both kept alive (step 4 of the route)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aio_pika.abc import AbstractConnection
from aiormq import Channel, spec
from aiormq.exceptions import ChannelNotFoundEntity, PublishError

from cryptopulse.common.bus.codec import CONTENT_TYPE, encode
from cryptopulse.common.bus.consumer import Consumer
from cryptopulse.common.bus.link import Link, open_channel
from cryptopulse.common.bus.protocols import Handler, Subscription
from cryptopulse.common.bus.topology import declare_exchanges
from cryptopulse.common.bus.traces import published
from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.topics import Queue, Topic
from cryptopulse.common.errors import BusUnavailable, NoQueueYet
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

published_total = metrics.counter(
    "cryptopulse_bus_messages_published_total", "Messages published, by outcome", ("topic", "outcome")
)
reconnects_total = metrics.counter(
    "cryptopulse_bus_reconnects_total", "Connections to the broker made", ("link",)
)
ready_messages = metrics.gauge(
    "cryptopulse_bus_queue_ready_messages", "Messages that wait in a shared queue consumed here", ("queue",)
)

TRANSIENT, PERSISTENT = 1, 2
BACKLOG_SECONDS = 10.0
DRAIN_SECONDS = 5.0


class RabbitBus:
    """The `Bus` on RabbitMQ 3.10 to 4.x. Nothing here raises because the broker is away, but `publish`."""

    def __init__(
        self,
        url: str,
        *,
        service: str,
        clock: Clock | None = None,
        confirm_window: int = 64,
        publish_timeout_seconds: float = 2.0,
        durable_timeout_seconds: float = 10.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._service = service
        self._publish_timeout = publish_timeout_seconds
        self._durable_timeout = durable_timeout_seconds
        self._window = asyncio.Semaphore(confirm_window)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._live: Channel | None = None
        self._durable: Channel | None = None
        self._consumers: list[Consumer] = []
        self._restoring = asyncio.Lock()
        self._out = Link(
            url,
            name=f"{service}-publish",
            clock=self._clock,
            on_up=self._publish_up,
            on_tick=self._publish_tick,
        )
        self._in = Link(
            url,
            name=f"{service}-consume",
            clock=self._clock,
            on_up=self._consume_up,
            on_tick=self._consume_tick,
        )
        self._control: Channel | None = None
        self._measured: set[str] = set()
        self._measured_at = float("-inf")

    # --- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect; see `protocols.Bus.start`."""
        self._out.start()
        self._in.start()

    async def wait_connected(self, timeout_seconds: float) -> bool:
        """True once both connections are up, False after the time-out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._out.up.wait()
                await self._in.up.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close consumers, wait for confirms at most 5 s, close connections."""
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.close()
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=DRAIN_SECONDS)
        await self._in.close()
        await self._out.close()

    @property
    def connections(self) -> int:
        """See `protocols.Bus.connections`."""
        return self._out.connects

    @property
    def consuming_connections(self) -> int:
        """See `protocols.Bus.consuming_connections`."""
        return self._in.connects

    @property
    def is_connected(self) -> bool:
        """Both connections up and not blocked by an alarm."""
        return self._out.up.is_set() and self._in.up.is_set() and not self._out.blocked

    @property
    def is_blocked(self) -> bool:
        """True while the broker has a memory or disk alarm and takes no publishes."""
        return self._out.blocked

    @property
    def disconnected_since_us(self) -> int | None:
        """Our time of the older loss, None while both connections are up."""
        times = [t for t in (self._out.down_since_us, self._in.down_since_us) if t is not None]
        return min(times) if times else None

    # --- publish -----------------------------------------------------------------------------------------------

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
        with published(topic, key, self._service) as trace:
            properties = self._properties(topic, cc, message_id, {**(headers or {}), **trace})
            body = encode(message)
            if topic.delivery == "live":
                await self._publish_live(topic, body, key, properties, on_settled)
            else:
                await self._publish_durable(topic, body, key, properties)

    def _properties(
        self, topic: Topic, cc: Sequence[str], message_id: str | None, headers: Mapping[str, Any]
    ) -> spec.Basic.Properties:
        table: dict[str, Any] = {"sent_us": self._clock.now_us(), "x-service": self._service, **headers}
        if cc:
            table["CC"] = list(cc)
        return spec.Basic.Properties(
            content_type=CONTENT_TYPE,
            delivery_mode=PERSISTENT if topic.delivery == "durable" else TRANSIENT,
            message_id=message_id or uuid.uuid4().hex,
            message_type=topic.type_name,
            headers=table,
        )

    async def _publish_live(
        self,
        topic: Topic,
        body: bytes,
        key: str,
        properties: spec.Basic.Properties,
        on_settled: Callable[[bool], None] | None,
    ) -> None:
        channel = self._live
        if channel is None or channel.is_closed or not self._out.up.is_set():
            published_total.labels(topic.name, "unavailable").inc()
            raise BusUnavailable("the broker is away")
        if self._out.blocked:  # it reads nothing from us: what is written now waits in buffers, unconfirmed
            published_total.labels(topic.name, "blocked").inc()
            raise BusUnavailable("the broker takes no publishes: a memory or disk alarm")
        if self._window.locked():
            await self._until_window_opens(topic)
        else:
            await self._window.acquire()  # at once
        task = asyncio.create_task(self._confirm(channel, topic, body, key, properties, on_settled))
        self._in_flight.add(task)
        task.add_done_callback(self._settled)

    async def _until_window_opens(self, topic: Topic) -> None:
        """Take a place in the confirm window. Raises `BusUnavailable` when none is free in time."""
        try:
            async with asyncio.timeout(self._publish_timeout / 2):
                await self._window.acquire()
        except TimeoutError as error:
            published_total.labels(topic.name, "window_full").inc()
            raise BusUnavailable("the broker confirms too slowly: the confirm window is full") from error

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._window.release()

    async def _confirm(
        self,
        channel: Channel,
        topic: Topic,
        body: bytes,
        key: str,
        properties: spec.Basic.Properties,
        on_settled: Callable[[bool], None] | None,
    ) -> None:
        confirmed = False
        try:
            await channel.basic_publish(
                body,
                exchange=topic.exchange,
                routing_key=key,
                properties=properties,
                timeout=self._publish_timeout,
                wait=False,
            )
        except Exception as error:  # live data is never retried here; what was lost is counted and told
            published_total.labels(topic.name, "unconfirmed").inc()
            log.warning(
                "live publish not confirmed", topic=topic.name, error=f"{type(error).__name__}: {error}"[:200]
            )
        else:
            confirmed = True
            published_total.labels(topic.name, "confirmed").inc()
        finally:
            if on_settled is not None:
                on_settled(confirmed)

    async def _publish_durable(
        self, topic: Topic, body: bytes, key: str, properties: spec.Basic.Properties
    ) -> None:
        try:
            async with asyncio.timeout(self._durable_timeout):
                await self._out.up.wait()
                channel = self._durable
                if channel is None or channel.is_closed:
                    raise BusUnavailable("the publishing channel is being restored")
                await channel.basic_publish(
                    body,
                    exchange=topic.exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=topic.mandatory,
                )
        except BusUnavailable:
            published_total.labels(topic.name, "unavailable").inc()
            raise
        except PublishError as error:
            published_total.labels(topic.name, "returned").inc()
            raise NoQueueYet(f"{topic.name}: no queue is bound for {key} yet") from error
        except Exception as error:  # time-out, nack, closed channel or connection: all mean "not confirmed"
            published_total.labels(topic.name, "unconfirmed").inc()
            raise BusUnavailable(
                f"{topic.name} was not confirmed: {type(error).__name__} {error}"[:300]
            ) from error
        published_total.labels(topic.name, "confirmed").inc()

    async def _publish_up(self, connection: AbstractConnection) -> None:
        reconnects_total.labels("publish").inc()
        setup = await open_channel(connection, confirms=False)
        await declare_exchanges(setup)
        await setup.close()
        self._live = await open_channel(connection, confirms=True)
        self._durable = await open_channel(connection, confirms=True)

    async def _publish_tick(self) -> None:
        """A channel that the broker closed (an unknown exchange, say) takes the connection with it: all is set up again."""
        for channel in (self._live, self._durable):
            if channel is None or channel.is_closed:
                raise BusUnavailable("a publishing channel was closed")

    # --- consume -----------------------------------------------------------------------------------------------

    async def subscribe(
        self, queue: Queue, handler: Handler, *, prefetch: int = 100, manual_ack: bool = False, name: str = ""
    ) -> Subscription:
        """See `protocols.Bus.subscribe`."""
        consumer = Consumer(
            queue, handler, prefetch=prefetch, manual_ack=manual_ack, name=name, now_us=self._clock.now_us
        )
        self._consumers.append(consumer)
        connection = self._in.connection
        if connection is not None:
            async with self._restoring:
                with contextlib.suppress(Exception):  # the watch restores it within a second
                    await consumer.establish(connection)
        return consumer  # type: ignore[return-value] # ack takes our own Received, which is the only Delivery there is

    async def bind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """See `protocols.Bus.bind`."""
        assert isinstance(subscription, Consumer)
        await subscription.bind(topic.exchange, key)

    async def unbind(self, subscription: Subscription, topic: Topic, key: str) -> None:
        """See `protocols.Bus.unbind`."""
        assert isinstance(subscription, Consumer)
        await subscription.unbind(topic.exchange, key)

    async def backlog(self, queue: Queue) -> int:
        """Messages ready, by a passive declare; 0 for a queue that does not exist yet. Raises `BusUnavailable`."""
        connection = self._in.connection
        if connection is None:
            raise BusUnavailable("the broker is away")
        channel: Channel | None = None
        try:
            async with asyncio.timeout(self._publish_timeout):
                channel = await open_channel(connection, confirms=False)
                declared = await channel.queue_declare(queue=queue.name, passive=True)
        except ChannelNotFoundEntity:
            return 0
        except Exception as error:  # any failure means the same to the caller
            raise BusUnavailable(f"backlog of {queue.name} unknown: {type(error).__name__}") from error
        finally:
            if channel is not None and not channel.is_closed:
                with contextlib.suppress(Exception):  # it has served; a dying connection takes it along
                    await asyncio.wait_for(channel.close(), self._publish_timeout)
        return declared.message_count or 0

    async def _consume_up(self, connection: AbstractConnection) -> None:
        reconnects_total.labels("consume").inc()
        setup = await open_channel(connection, confirms=False)
        await declare_exchanges(setup)
        await setup.close()
        async with self._restoring:
            for consumer in list(self._consumers):
                await consumer.establish(connection)

    async def _consume_tick(self) -> None:
        """Restore every consumer that is wanted and no longer registered, as after a queue was deleted under it."""
        connection = self._in.connection
        if connection is None:
            return
        self._consumers = [c for c in self._consumers if c.wanted]
        async with self._restoring:
            for consumer in self._consumers:
                if consumer.active:
                    continue
                if consumer.was_established:
                    log.warning("consumer restored", queue=consumer.queue.name)
                await consumer.establish(connection)
        await self._measure_backlogs()

    async def _measure_backlogs(self) -> None:
        """Every 10 s: how much waits in the queues that are ours now; a queue that went to another owner is forgotten."""
        now = self._clock.monotonic()
        if now - self._measured_at < BACKLOG_SECONDS:
            return
        self._measured_at = now
        ours = {one.queue.name: one.queue for one in self._consumers if one.active and one.queue.name}
        for gone in self._measured - ours.keys():
            ready_messages.remove(gone)
        self._measured &= ours.keys()
        for name, queue in ours.items():
            with contextlib.suppress(BusUnavailable):  # the next round measures again
                ready_messages.labels(name).set(await self.backlog(queue))
                self._measured.add(name)
