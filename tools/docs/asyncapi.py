"""The bus as an AsyncAPI 3 document, from the topic catalogue and the message types alone."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from typing import Any, Final

import msgspec

from cryptopulse.common.contracts.base import Row
from cryptopulse.common.contracts.topics import DEFAULT_SHARDS, TOPICS, Topic

SCHEMA_REF: Final = "#/components/schemas/{name}"
CONTENT_TYPE: Final = "application/msgpack"

_PARAMETERS: Final[dict[str, str]] = {
    "shard": f"The shard of the base asset: a number below SHARDS ({DEFAULT_SHARDS} unless set otherwise).",
    "venue": "The venue in lower case, e.g. `binance`.",
    "symbol": "The canonical symbol BASE-QUOTE, e.g. `BTC-USDT`.",
    "interval": "The interval of the bar, e.g. `1m`.",
    "part": "The part of the portfolios: the portfolio's id modulo 4.",
    "kind": "The kind of signal.",
    "id": "The id of the thing, as one word of a routing key.",
    "user": "The user's id, as one word of a routing key (other characters percent-encoded).",
    "rule": "The rule's id.",
}
_DELIVERY: Final[dict[str, str]] = {
    "live": "Live: transient, bounded queues that drop the oldest, never retried; the newest value wins.",
    "durable": "Durable: confirmed, quorum queues, retried, dead-lettered; a message may come twice under one message id.",
}


def bus_document() -> dict[str, Any]:
    """The whole document."""
    _, schemas = msgspec.json.schema_components([topic.message for topic in TOPICS], ref_template=SCHEMA_REF)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "CryptoPulse bus",
            "version": version("cryptopulse-common"),
            "description": (
                "What travels between the services over RabbitMQ, for anyone who wants to subscribe. Bodies are msgpack; "
                "decimals are text, so nothing is rounded; times are integers, microseconds or milliseconds UTC as the name "
                "says. New fields are optional, and added at the end of arrays: readers ignore what they do not know. The AMQP "
                "property `type` names the message and its version."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "broker": {
                "host": "{host}:{port}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The RabbitMQ of RABBITMQ_URL.",
                "variables": {"host": {"default": "localhost"}, "port": {"default": "5672"}},
            }
        },
        "channels": {name: channel for topic in TOPICS for name, channel in _channels(topic).items()},
        "operations": {name: operation for topic in TOPICS for name, operation in _operations(topic).items()},
        "components": {
            "messages": {topic.type_name: _message(topic) for topic in TOPICS},
            "messageTraits": {"envelope": _envelope()},
            "schemas": {name: _schema(name, schema) for name, schema in sorted(schemas.items())},
        },
    }


def _channels(topic: Topic) -> dict[str, Any]:
    channels = {topic.name: _channel(topic, topic.key, topic.description)}
    if topic.convenience_key is not None:
        channels[f"{topic.name}.by-key"] = _channel(
            topic,
            topic.convenience_key,
            f"{topic.description} The same messages under further keys (CC): a batch that arrives may hold others too.",
        )
    if topic.live_key is not None:
        channels[f"{topic.name}.live"] = _channel(
            topic,
            topic.live_key,
            f"{topic.description} Those that come once a second, apart from what is stored, under this key alone.",
        )
    return channels


def _channel(topic: Topic, key: str, description: str) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", key)
    return {
        "address": key,
        "title": topic.name,
        "description": f"{description} {_DELIVERY[topic.delivery]} In order per {topic.ordering_key}.",
        "messages": {topic.type_name: {"$ref": f"#/components/messages/{topic.type_name}"}},
        "parameters": {name: {"description": _PARAMETERS[name]} for name in names},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": topic.exchange, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
        "x-delivery": topic.delivery,
        "x-ordering-key": topic.ordering_key,
    }


def _operations(topic: Topic) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{topic.name}"}
    messages = [{"$ref": f"#/channels/{topic.name}/messages/{topic.type_name}"}]
    delivery_mode = 2 if topic.delivery == "durable" else 1
    sends = {
        f"{service}.send.{topic.name}": {
            "action": "send",
            "channel": channel,
            "messages": messages,
            "summary": f"{service} publishes {topic.name}",
            "bindings": {"amqp": {"deliveryMode": delivery_mode, "bindingVersion": "0.3.0"}},
        }
        for service in topic.producers
    }
    receives = {
        f"{service}.receive.{topic.name}": {
            "action": "receive",
            "channel": channel,
            "messages": messages,
            "summary": f"{service} consumes {topic.name}",
            "bindings": {"amqp": {"ack": topic.delivery == "durable", "bindingVersion": "0.3.0"}},
        }
        for service in topic.consumers
    }
    return sends | receives


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.type_name,
        "title": topic.message.__name__,
        "summary": topic.description,
        "contentType": CONTENT_TYPE,
        "traits": [{"$ref": "#/components/messageTraits/envelope"}],
        "payload": {"$ref": SCHEMA_REF.format(name=topic.message.__name__)},
        "bindings": {"amqp": {"messageType": topic.type_name, "bindingVersion": "0.3.0"}},
    }


def _envelope() -> dict[str, Any]:
    """The AMQP headers that every message carries."""
    return {
        "headers": {
            "type": "object",
            "properties": {
                "sent_us": {
                    "type": "integer",
                    "description": "The producer's clock at publish, microseconds UTC.",
                },
                "x-service": {"type": "string", "description": "The service that published it."},
                "traceparent": {
                    "type": "string",
                    "description": "The W3C trace context of the cause, when there is one.",
                },
                "CC": {"type": "array", "items": {"type": "string"}, "description": "Further routing keys."},
            },
        },
        "correlationId": {
            "location": "$message.header#/traceparent",
            "description": "The trace; the AMQP property message_id is stable over repeats.",
        },
    }


def _schema(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with a clean description and, for a row, the name of each position."""
    shown = dict(schema)
    if "description" in shown:
        shown["description"] = inspect.cleandoc(shown["description"])
    if "prefixItems" in shown:
        fields = [field.name for field in msgspec.structs.fields(_row(name))]
        shown["prefixItems"] = [
            {"title": field, **item} for field, item in zip(fields, shown["prefixItems"], strict=True)
        ]
    return shown


def _row(name: str) -> type[Row]:
    """The row of that name; rows are the only messages' parts that travel as arrays."""
    found = [row for row in Row.__subclasses__() if row.__name__ == name]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows are named {name}")
    return found[0]
