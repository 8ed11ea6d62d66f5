"""Golden messages of every topic decode for ever, and today's schemas stay compatible with the published ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from cryptopulse.common.bus.codec import decode, encode
from cryptopulse.common.contracts.topics import TOPICS, Topic, shard_of
from cryptopulse.common.errors import Invalid

MAJORS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "DOT", "LINK", "LTC")


def _load_golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_messages", Path(__file__).with_name("golden.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _load_golden()
every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.type_name)


@every_topic
def test_every_topic_has_golden_examples(topic: Topic) -> None:
    assert golden.folder(topic).is_dir(), "run python tests/contract/golden.py"


@every_topic
def test_golden_bytes_decode_to_the_same_values(topic: Topic) -> None:
    body = (golden.folder(topic) / "message.msgpack").read_bytes()
    decoded_topic, message = decode(body, topic.type_name)
    expected = json.loads((golden.folder(topic) / "message.json").read_text())
    assert decoded_topic is topic
    assert is_covered(expected, golden.as_json(message))


@every_topic
def test_what_is_encoded_decodes_to_itself(topic: Topic) -> None:
    message = golden.MESSAGES[topic.name]
    assert decode(encode(message), topic.type_name)[1] == message


@every_topic
def test_readers_ignore_fields_that_they_do_not_know(topic: Topic) -> None:
    plain = golden.as_json(golden.MESSAGES[topic.name]) | {"added_later": {"deep": [1]}}
    decode(msgspec.msgpack.encode(plain), topic.type_name)


@every_topic
def test_the_schema_stays_compatible_with_the_published_one(topic: Topic) -> None:
    published = json.loads((golden.folder(topic) / "schema.json").read_text())
    assert not breaks(published, golden.schema_of(topic))


def test_a_removed_or_retyped_field_counts_as_a_break() -> None:
    topic = TOPICS[0]
    published = golden.schema_of(topic)
    name = topic.message.__name__
    removed = json.loads(json.dumps(published))
    del removed["$defs"][name]["properties"]["venue"]
    retyped = json.loads(json.dumps(published))
    retyped["$defs"][name]["properties"]["venue"] = {"type": "integer"}
    demanding = json.loads(json.dumps(published))
    demanding["$defs"][name]["required"].append("part")
    for changed in (removed, retyped, demanding):
        assert breaks(published, changed)
    assert not breaks(published, published)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(Invalid, match="unknown message type"):
        decode(b"\x80", "ticks.v99")


def test_majors_spread_evenly_over_shards() -> None:
    for shards, most in ((2, 5), (4, 3), (8, 2)):
        counts = [sum(shard_of(base, shards) == shard for base in MAJORS) for shard in range(shards)]
        assert sum(counts) == len(MAJORS)
        assert max(counts) <= most


def test_the_hash_of_shards_never_changes() -> None:
    assert [shard_of(base, 4) for base in MAJORS] == [0, 3, 1, 3, 0, 2, 1, 2, 0, 3]


def is_covered(expected: Any, got: Any) -> bool:
    """Whether everything expected is in `got`, which may hold more fields with defaults."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and all(
            key in got and is_covered(value, got[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) >= len(expected) and all(map(is_covered, expected, got))
    return bool(expected == got)


def breaks(published: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What a reader or writer of the published schema would trip over in the current one."""
    found = []
    for name, old in published.get("$defs", {}).items():
        new = current.get("$defs", {}).get(name)
        if new is None:
            found.append(f"{name} is gone")
            continue
        found += _struct_breaks(name, old, new)
    return found


def _struct_breaks(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = []
    for field, shape in old.get("properties", {}).items():
        now = new.get("properties", {}).get(field)
        if now is None:
            found.append(f"{name}.{field} is gone")
        elif _type(now) != _type(shape):
            found.append(f"{name}.{field} changed its type")
    found += [
        f"{name}.{field} became required"
        for field in set(new.get("required", [])) - set(old.get("required", []))
    ]
    positional = old.get("prefixItems", [])
    for place, shape in enumerate(positional):
        now = new.get("prefixItems", [])
        if place >= len(now) or _type(now[place]) != _type(shape):
            found.append(f"{name}[{place}] moved or changed its type")
    if new.get("minItems", 0) > old.get("minItems", 0):
        found.append(f"{name} demands more items")
    return found


def _type(shape: dict[str, Any]) -> str:
    return json.dumps(
        {key: value for key, value in shape.items() if key not in ("default", "description", "enum")},
        sort_keys=True,
    )
