"""Messages to bytes and back: msgpack bodies, the topic's type and version in the AMQP `type` property."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.topics import TOPIC_BY_TYPE, Topic
from cryptopulse.common.errors import Invalid

CONTENT_TYPE = "application/msgpack"

_encoder = msgspec.msgpack.Encoder()


@cache
def _decoder(message_type: type[Message]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(message_type)


def encode(message: Message) -> bytes:
    """The body of a message. Decimals travel as text, so nothing is rounded."""
    return _encoder.encode(message)


def decode(body: bytes, type_name: str | None) -> tuple[Topic, Any]:
    """The topic and message of a body. Raises `Invalid` for an unknown type or a body that does not fit it."""
    topic = TOPIC_BY_TYPE.get(type_name or "")
    if topic is None:
        raise Invalid(f"unknown message type {type_name!r:.80}", code="unknown-type")
    try:
        return topic, _decoder(topic.message).decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"{type_name}: {error}", code="undecodable") from error
