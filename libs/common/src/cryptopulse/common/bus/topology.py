"""Exchanges, queues and arguments, derived from the topic catalogue.

Shared queues are durable in both delivery classes: RabbitMQ 4.3 refuses non-durable queues that are not exclusive,
and `queue_arguments` raises on such a wish before the broker does.
"""

from __future__ import annotations

from typing import Any

from aiormq.abc import AbstractChannel

from cryptopulse.common.contracts.topics import TOPICS, Queue

DEAD_LETTER_EXCHANGE = "cryptopulse.dead-letters"
DEAD_LETTERS_KEPT = 100_000
DURABLE_MAX_LENGTH = 1_000_000


def exchanges() -> tuple[str, ...]:
    """The names of all topic exchanges of the catalogue, each once."""
    return tuple(dict.fromkeys(topic.exchange for topic in TOPICS))


def is_durable(queue: Queue) -> bool:
    """Whether the queue is declared durable: everything that is not exclusive."""
    return not queue.exclusive


def queue_arguments(queue: Queue) -> dict[str, Any]:
    """The arguments of a queue. ValueError for a sharded queue that is exclusive (its order could not be handed over)."""
    if queue.exclusive:
        if queue.shard is not None:
            raise ValueError(f"{queue.topic.name}: a sharded queue cannot be exclusive")
        return {
            "x-max-length": queue.max_length,
            "x-max-length-bytes": queue.max_bytes,
            "x-overflow": "drop-head",
        }
    arguments: dict[str, Any] = {}
    if queue.shard is not None:
        arguments["x-single-active-consumer"] = True
    if queue.topic.delivery == "live":
        return arguments | {
            "x-queue-type": "classic",
            "x-max-length": queue.max_length,
            "x-max-length-bytes": queue.max_bytes,
            "x-overflow": "drop-head",
        }
    return arguments | {
        "x-queue-type": "quorum",
        "x-delivery-limit": queue.delivery_limit,
        "x-max-length": DURABLE_MAX_LENGTH,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-routing-key": queue.dead_letters,
        "x-dead-letter-strategy": "at-least-once",
    }


async def declare_exchanges(channel: AbstractChannel) -> None:
    """Declare every exchange of the catalogue and the one for dead letters. Idempotent."""
    for name in exchanges():
        await channel.exchange_declare(exchange=name, exchange_type="topic", durable=True)
    await channel.exchange_declare(exchange=DEAD_LETTER_EXCHANGE, exchange_type="direct", durable=True)


async def declare_queue(channel: AbstractChannel, queue: Queue) -> str:
    """Declare a queue with its bindings, and its dead-letter queue when it has one; returns its name on the broker."""
    declared = await channel.queue_declare(
        queue=queue.name,
        durable=is_durable(queue),
        exclusive=queue.exclusive,
        auto_delete=queue.exclusive,
        arguments=queue_arguments(queue),
    )
    name = declared.queue or queue.name
    for key in queue.bindings:
        await channel.queue_bind(queue=name, exchange=queue.topic.exchange, routing_key=key)
    if not queue.exclusive and queue.topic.delivery == "durable":
        await _declare_dead_letters(channel, queue)
    return name


async def _declare_dead_letters(channel: AbstractChannel, queue: Queue) -> None:
    await channel.queue_declare(
        queue=queue.dead_letters,
        durable=True,
        arguments={"x-queue-type": "quorum", "x-max-length": DEAD_LETTERS_KEPT, "x-overflow": "drop-head"},
    )
    await channel.queue_bind(
        queue=queue.dead_letters, exchange=DEAD_LETTER_EXCHANGE, routing_key=queue.dead_letters
    )
