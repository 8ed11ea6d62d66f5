"""A consumer on a channel of its own, restored after every loss: the `Subscription` of the RabbitMQ bus."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage

from cryptopulse.common.bus.codec import decode
from cryptopulse.common.bus.deliveries import Received
from cryptopulse.common.bus.link import open_channel
from cryptopulse.common.bus.protocols import Handler
from cryptopulse.common.bus.retry import Backoff, full_jitter
from cryptopulse.common.bus.topology import declare_queue
from cryptopulse.common.bus.traces import consumed
from cryptopulse.common.contracts.topics import Queue
from cryptopulse.common.errors import BusUnavailable, Retryable, Unavailable
from cryptopulse.common.telemetry import metrics
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

handled_total = metrics.counter(
    "cryptopulse_bus_messages_handled_total", "Messages handled, by outcome", ("topic", "consumer", "outcome")
)
queue_age_seconds = metrics.histogram(
    "cryptopulse_bus_queue_age_seconds", "From publish to the start of handling", ("topic", "consumer")
)

ANSWERED_WITHIN_SECONDS = 15.0
"""So long the broker may take to set up a consumer; then the connection counts as lost. For a binding, then the channel does."""
HELD_SECONDS = 600.0
"""So long a message is tried again in hand while what it needs is away; well under the half hour of the broker's patience."""
RETRY_BASE_SECONDS = 0.1
RETRY_CAP_SECONDS = 5.0


class Consumer:
    """Handles one message at a time, in order. See `protocols.Handler` for what the handler's outcome means."""

    def __init__(
        self,
        queue: Queue,
        handler: Handler,
        *,
        prefetch: int,
        manual_ack: bool,
        name: str,
        now_us: Callable[[], int],
    ) -> None:
        self.queue = queue
        self.bindings: list[tuple[str, str]] = []
        self._handler = handler
        self._durable = queue.topic.delivery == "durable" and not queue.exclusive
        self._prefetch = 1 if self._durable and not manual_ack else prefetch
        self._manual_ack = manual_ack
        self._name = name or queue.consumer
        self._now_us = now_us
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._epoch = 0
        self._inbox: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._queue_name = queue.name
        # Looked up once: a label costs more than the count.
        self._age_seconds = queue_age_seconds.labels(queue.topic.name, queue.consumer)
        self._handled = handled_total.labels(queue.topic.name, queue.consumer, "ok")

    # --- life --------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """True while registered on a live channel."""
        channel = self._channel
        return channel is not None and not channel.is_closed and self._tag in channel.consumers

    @property
    def was_established(self) -> bool:
        """True once it has consumed on any channel; before that its first channel is still to come."""
        return self._epoch > 0

    @property
    def wanted(self) -> bool:
        """False once `pause` or `close` was called."""
        return not self._stopping.is_set()

    async def establish(self, connection: AbstractConnection) -> None:
        """Open a channel, declare, bind, consume. What the old channel had in hand will come again from the broker.

        Raises `BusUnavailable` when the broker does not answer: a connection whose reader has just ended does not say so at once, and
        who waits on it for an answer waits for ever.
        """
        if self._stopping.is_set():
            return
        await self._drop_channel()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
                await self._open(connection)
        except TimeoutError as error:
            raise BusUnavailable("the broker does not answer on a channel") from error

    async def _open(self, connection: AbstractConnection) -> None:
        channel = await open_channel(connection, confirms=False)
        self._epoch += 1
        epoch = self._epoch
        self._inbox = asyncio.Queue()
        inbox = self._inbox
        self._queue_name = await declare_queue(channel, self.queue)
        for exchange, key in self.bindings:
            await channel.queue_bind(queue=self._queue_name, exchange=exchange, routing_key=key)
        await channel.basic_qos(prefetch_count=self._prefetch)

        async def on_message(message: Any) -> None:
            inbox.put_nowait(message)

        self._channel = channel
        consumed_ok = await channel.basic_consume(self._queue_name, on_message)
        self._tag = consumed_ok.consumer_tag
        self._worker = asyncio.create_task(
            self._work(channel, inbox, epoch), name=f"bus-consumer-{self._name}"
        )

    async def pause(self) -> None:
        """Stop consuming and wait for the handler in hand; the unacked stays with the channel until `close`."""
        self._stopping.set()
        channel = self._channel
        if channel is not None and not channel.is_closed and self._tag is not None:
            with contextlib.suppress(
                Exception
            ):  # the channel may end under us; then nothing is consumed either
                await asyncio.wait_for(channel.basic_cancel(self._tag), 2.0)
        await self._idle.wait()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None

    async def close(self) -> None:
        """Pause, then close the channel: everything unacked goes back to the queue in order."""
        await self.pause()
        await self._drop_channel()

    async def _drop_channel(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and worker is not asyncio.current_task():
            await self._idle.wait()
            worker.cancel()
            # A cancellation of ours goes through, unlike by suppressing the worker's.
            await asyncio.wait({worker})
        channel, self._channel = self._channel, None
        self._tag = None
        if channel is not None and not channel.is_closed:
            with contextlib.suppress(Exception):  # it is being thrown away
                await asyncio.wait_for(channel.close(), 2.0)

    # --- acks and bindings -------------------------------------------------------------------------------------

    async def ack(self, upto: Received) -> None:
        """Ack `upto` and all before it; a no-op when it came on an earlier channel (it will come again)."""
        channel = self._channel
        if channel is None or channel.is_closed or upto.epoch != self._epoch:
            return
        with contextlib.suppress(Exception):  # the channel ended meanwhile: the broker delivers again
            async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
                await channel.basic_ack(upto.tag, multiple=True, wait=False)

    async def bind(self, exchange: str, key: str) -> None:
        """Add a binding; kept for later channels, of which the next one follows where this one does not answer."""
        if (exchange, key) not in self.bindings:
            self.bindings.append((exchange, key))
        channel = self._channel
        if channel is not None and not channel.is_closed:
            await self._answered(
                channel.queue_bind(queue=self._queue_name, exchange=exchange, routing_key=key)
            )

    async def unbind(self, exchange: str, key: str) -> None:
        """Take a binding back; see `bind`."""
        if (exchange, key) in self.bindings:
            self.bindings.remove((exchange, key))
        channel = self._channel
        if channel is not None and not channel.is_closed:
            await self._answered(
                channel.queue_unbind(queue=self._queue_name, exchange=exchange, routing_key=key)
            )

    async def _answered(self, request: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
                await request
        except Exception as error:  # closed meanwhile, refused or silent: the watch sets it all up anew
            log.warning(
                "binding not answered: the consumer is set up anew",
                queue=self._queue_name,
                error=f"{type(error).__name__}: {error}"[:300],
            )
            self._tag = None

    # --- work --------------------------------------------------------------------------------------------------

    async def _work(self, channel: Channel, inbox: asyncio.Queue[DeliveredMessage], epoch: int) -> None:
        # What is left of a channel that has ended comes again on the next one. A handler may lose the cancellation that
        # would end this (as `wait_for` of Python 3.11 may), and the connection is not restored before it has ended.
        while not channel.is_closed:
            raw = await inbox.get()
            if self._stopping.is_set() or channel.is_closed:
                return
            self._idle.clear()
            try:
                await self._one(channel, raw, epoch)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # acking on a channel that ended: the message comes again
                log.warning(
                    "message not settled",
                    queue=self._queue_name,
                    error=f"{type(error).__name__}: {error}"[:300],
                )
            finally:
                self._idle.set()

    async def _one(self, channel: Channel, raw: DeliveredMessage, epoch: int) -> None:
        tag = raw.delivery_tag or 0
        try:
            delivery = _received(raw, epoch)
        except Exception as error:  # any body a stranger may send
            await self._refuse(channel, tag, raw, error)
            return
        if delivery.sent_us:
            self._age_seconds.observe(max(0.0, (self._now_us() - delivery.sent_us) / 1e6))
        loop = asyncio.get_running_loop()
        backoff, started = Backoff(RETRY_BASE_SECONDS, RETRY_CAP_SECONDS), loop.time()
        while True:
            try:
                with consumed(self.queue.topic, delivery.routing_key, delivery.headers, self.queue.consumer):
                    await self._handler(delivery)
                self._idle.set()  # whoever waits for the handler must not wait for a channel that takes nothing any more
                break
            except Unavailable as error:
                if not self._durable or loop.time() - started > HELD_SECONDS:
                    await self._again(channel, delivery, error)
                    return
                await self._hold(error, backoff.next())
            except Retryable as error:
                await self._again(channel, delivery, error)
                return
            except Exception as error:  # the handler's verdict on this message: never retried
                await self._refuse(channel, tag, raw, error)
                return
            if self._stopping.is_set() or channel.is_closed:
                return  # it comes again, to whoever consumes then
            delivery = dataclasses.replace(delivery, redelivered=True)
        self._handled.inc()
        if not self._manual_ack:
            await channel.basic_ack(tag, wait=False)

    async def _hold(self, error: Exception, seconds: float) -> None:
        """A pause before the next try of the message in hand; it ends with the subscription."""
        handled_total.labels(self.queue.topic.name, self.queue.consumer, "held").inc()
        log.warning("message waits for what is away", queue=self._queue_name, error=str(error)[:300])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _again(self, channel: Channel, delivery: Received, error: Exception) -> None:
        """Durable: back to the queue after a pause, until the broker's delivery limit. Live: dropped and counted."""
        self._idle.set()
        outcome = "retried" if self._durable else "dropped"
        handled_total.labels(self.queue.topic.name, self.queue.consumer, outcome).inc()
        log.warning(
            "message handling failed", queue=self._queue_name, outcome=outcome, error=str(error)[:300]
        )
        if self._durable:
            await asyncio.sleep(
                full_jitter(
                    delivery.delivery_count, base_seconds=RETRY_BASE_SECONDS, cap_seconds=RETRY_CAP_SECONDS
                )
            )
        await channel.basic_nack(delivery.tag, requeue=self._durable)

    async def _refuse(self, channel: Channel, tag: int, raw: DeliveredMessage, error: Exception) -> None:
        self._idle.set()
        outcome = "dead_lettered" if self._durable else "dropped"
        handled_total.labels(self.queue.topic.name, self.queue.consumer, outcome).inc()
        log.error(
            "message refused",
            queue=self._queue_name,
            outcome=outcome,
            message_id=raw.header.properties.message_id,
            error=f"{type(error).__name__}: {error}"[:300],
            exc_info=error,
        )
        await channel.basic_nack(tag, requeue=False)


def _received(raw: DeliveredMessage, epoch: int) -> Received:
    properties = raw.header.properties
    headers = properties.headers or {}
    _, message = decode(bytes(raw.body), properties.message_type)
    sent = headers.get("sent_us", 0)
    count = headers.get("x-delivery-count", 0)
    return Received(
        message=message,
        message_id=properties.message_id or "",
        routing_key=raw.routing_key or "",
        headers=headers,
        redelivered=bool(raw.redelivered),
        sent_us=sent if isinstance(sent, int) else 0,
        tag=raw.delivery_tag or 0,
        epoch=epoch,
        delivery_count=count if isinstance(count, int) else 0,
    )
