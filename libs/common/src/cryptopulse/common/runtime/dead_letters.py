"""`python -m cryptopulse.<service> dead-letters`: what a service could not handle, for an operator to look at and send again.

The queues follow from the catalogue of topics: one `.dlq` beside each shared durable queue of the service.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import aio_pika
import msgspec
import orjson
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPException, ChannelNotFoundEntity

from cryptopulse.common.contracts.topics import TOPIC_BY_TYPE, TOPICS, Queue
from cryptopulse.common.errors import BusUnavailable

EXIT_OK: Final = 0
EXIT_FAULT: Final = 1
CONNECT_SECONDS: Final = 10.0
SUFFIX: Final = ".dlq"
# What the broker and the first publish added: meaningless, or routed upon, on the way back.
_DROPPED_HEADERS: Final = ("CC", "BCC", "x-delivery-count", "x-acquired-count")

Action = Literal["list", "show", "replay", "purge"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asks for."""

    action: Action
    queue: str = ""
    limit: int = 10
    is_sure: bool = False


def parse(service: str, arguments: Sequence[str]) -> Wish:
    """The command line; ends with a readable line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog=f"python -m cryptopulse.{service} dead-letters",
        description="What this service could not handle. A queue is named as `list` names it.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|replay|purge")
    actions.add_parser("list", help="the queues and how many messages each holds")
    show = actions.add_parser("show", help="messages as JSON lines; each goes back to the end of its queue")
    replay = actions.add_parser(
        "replay", help="send messages, oldest first, to the queue that they came from"
    )
    for one, default in ((show, 10), (replay, 100_000)):
        one.add_argument("queue")
        one.add_argument("--limit", type=int, default=default, help=f"at most so many (default {default})")
    purge = actions.add_parser("purge", help="throw all messages of a queue away, for good")
    purge.add_argument("queue")
    purge.add_argument("--yes", action="store_true", help="needed: nothing brings them back")
    found = parser.parse_args(list(arguments))
    if found.action == "purge" and not found.yes:
        parser.error(f"purge {found.queue} is for good: say --yes")
    if getattr(found, "limit", 1) < 1:
        parser.error("--limit: at least 1")
    return Wish(
        found.action,
        getattr(found, "queue", ""),
        getattr(found, "limit", 10),
        getattr(found, "yes", False),
    )


def candidates(service: str, shards: int) -> tuple[str, ...]:
    """The names that dead-letter queues of a service can have, in the order of the catalogue."""
    names = []
    for topic in TOPICS:
        if topic.delivery != "durable" or service not in topic.consumers:
            continue
        queues = [Queue(service, topic, ())]
        queues += [Queue(service, topic, (), shard=shard, shards=shards) for shard in range(shards)]
        names += [queue.dead_letters for queue in queues]
    return tuple(names)


async def answer(wish: Wish, service: str, url: str, shards: int) -> int:
    """Do what is asked, on stdout; the exit code."""
    names = candidates(service, shards)
    if wish.queue and wish.queue not in names:
        return _fault(f"{wish.queue}: is not a dead-letter queue of {service}; ask `dead-letters list`")
    try:
        connection = await aio_pika.connect(url, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, AMQPException) as error:
        return _fault(f"RABBITMQ_URL: the broker does not answer: {type(error).__name__}")
    async with connection:
        try:
            return await _answer(wish, connection, names)
        except ChannelNotFoundEntity:
            return _fault(f"{wish.queue}: does not exist yet; nothing was ever refused there")


async def counts(url: str, names: Sequence[str]) -> dict[str, int]:
    """How many messages each of these queues holds, those that exist. Raises `BusUnavailable`."""
    found = {}
    try:
        connection = await aio_pika.connect(url, timeout=CONNECT_SECONDS)
        async with connection:
            for name in names:
                count = await _count(connection, name)
                if count is not None:
                    found[name] = count
    except (OSError, TimeoutError, AMQPException) as error:
        raise BusUnavailable(f"the broker does not answer: {type(error).__name__}") from error
    return found


async def _answer(wish: Wish, connection: AbstractConnection, names: Sequence[str]) -> int:
    if wish.action == "list":
        for name in names:
            count = await _count(connection, name)
            if count is not None:
                _say(f"{count:>8}  {name}")
        return EXIT_OK
    if wish.action == "purge":
        async with connection.channel() as channel:
            queue = await channel.get_queue(wish.queue)
            purged = await queue.purge()
        _say(f"{purged.message_count or 0} messages of {wish.queue} thrown away")
        return EXIT_OK
    target = wish.queue if wish.action == "show" else wish.queue.removesuffix(SUFFIX)
    moved = 0
    async for message in _messages(connection, wish.queue, wish.limit, target):
        moved += 1
        if wish.action == "show":
            _say(orjson.dumps(described(message)).decode())
    if wish.action == "replay":
        _say(f"{moved} messages sent to {target}")
    return EXIT_OK


async def _count(connection: AbstractConnection, name: str) -> int | None:
    try:
        async with connection.channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
            return queue.declaration_result.message_count or 0
    except ChannelNotFoundEntity:
        return None


async def _messages(
    connection: AbstractConnection, name: str, limit: int, target: str
) -> AsyncIterator[AbstractIncomingMessage]:
    """Each message, oldest first, after a confirmed copy of it is in `target` and the original is acknowledged.

    A copy even to look at it: a quorum queue throws a message away that was returned to it too often.
    """
    async with _channel(connection) as channel:
        queue = await channel.get_queue(name)
        waiting = min(limit, queue.declaration_result.message_count or 0)
        for _ in range(waiting):
            message = await queue.get(fail=False)
            if message is None:
                return
            await channel.default_exchange.publish(_copy(message), routing_key=target, mandatory=True)
            await message.ack()
            yield message


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[Any]:
    async with connection.channel(publisher_confirms=True, on_return_raises=True) as channel:
        yield channel


def _copy(message: AbstractIncomingMessage) -> aio_pika.Message:
    headers = {name: value for name, value in message.headers.items() if name not in _DROPPED_HEADERS}
    return aio_pika.Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message.message_id,
        type=message.type,
    )


def described(message: AbstractIncomingMessage) -> dict[str, Any]:
    """A message for a person: where from, why, and its content where it can be read."""
    deaths: Any = message.headers.get("x-death") or [{}]
    death: Any = deaths[0] if isinstance(deaths, list) else {}
    return {
        "message_id": message.message_id,
        "type": message.type,
        "from": message.headers.get("x-service"),
        "reason": death.get("reason"),
        "dead_since": str(death.get("time") or "") or None,
        "bytes": len(message.body),
        "content": _content(message.type or "", message.body),
    }


def _content(type_name: str, body: bytes) -> Any:
    topic = TOPIC_BY_TYPE.get(type_name)
    try:
        decoded = msgspec.msgpack.decode(body, type=topic.message if topic else Any)
    except msgspec.MsgspecError as error:
        return {"unreadable": str(error), "begins": body[:200].hex()}
    return msgspec.to_builtins(decoded, builtin_types=(), str_keys=True)


def _say(line: str) -> None:
    print(line)  # noqa: T201 - the answer of a command


def _fault(line: str) -> int:
    import sys

    print(line, file=sys.stderr)  # noqa: T201 - faults go to the person who asked
    return EXIT_FAULT
