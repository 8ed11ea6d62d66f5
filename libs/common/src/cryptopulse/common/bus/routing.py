"""Routing keys: filling a topic's pattern, and AMQP topic matching for the memory bus and the subscriber's filter."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from cryptopulse.common.contracts.topics import Topic, key_part

MAX_KEY_BYTES = 255


def key_of(topic: Topic, **parts: object) -> str:
    """The routing key of `topic` with its placeholders filled; user-given words are made safe.

    KeyError when a placeholder is missing, ValueError when the key would exceed AMQP's 255 bytes.
    """
    return _filled(topic.key, parts)


def convenience_key_of(topic: Topic, **parts: object) -> str:
    """The per-symbol key that goes into the CC header. ValueError when the topic has none."""
    if topic.convenience_key is None:
        raise ValueError(f"{topic.name} has no convenience key")
    return _filled(topic.convenience_key, parts)


def _filled(pattern: str, parts: dict[str, object]) -> str:
    key = pattern.format(**{name: key_part(str(value)) for name, value in parts.items()})
    if len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"routing key of {len(key.encode())} bytes exceeds {MAX_KEY_BYTES}")
    return key


@lru_cache(maxsize=65_536)
def matches(pattern: str, key: str) -> bool:
    """AMQP topic match: `*` is exactly one word, `#` zero or more words."""
    return _match(tuple(pattern.split(".")), tuple(key.split(".")))


def matches_any(patterns: Iterable[str], keys: Iterable[str]) -> bool:
    """True when any pattern matches any key: a queue gets one copy however many match."""
    known = tuple(keys)
    return any(matches(pattern, key) for pattern in patterns for key in known)


def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_match(rest, words[cut:]) for cut in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _match(rest, words[1:])
