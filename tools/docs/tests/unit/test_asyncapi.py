"""The bus document says what the catalogue says, holds together, and the committed copy is up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from cryptopulse.common.bus.codec import encode
from cryptopulse.common.contracts.topics import TOPICS
from cryptopulse.common.testing.builders import a_price_update, a_tick_batch, a_trade
from tools.docs import __main__ as command
from tools.docs.asyncapi import bus_document

DOCUMENT = bus_document()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def at(pointer: str) -> Any:
    value: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        value = value[part]
    return value


def test_the_committed_document_is_up_to_date() -> None:
    kept = (command.FOLDER / "asyncapi.json").read_text(encoding="utf-8")

    assert kept == command.rendered(DOCUMENT), "docs/asyncapi.json is out of date: run `make docs`"


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))

    assert found
    for pointer in found:
        assert at(pointer)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_is_a_channel_with_its_exchange_key_and_services(topic: Any) -> None:
    channel = DOCUMENT["channels"][topic.name]

    assert channel["address"] == topic.key
    assert channel["bindings"]["amqp"]["exchange"]["name"] == topic.exchange
    assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", topic.key))
    assert list(channel["messages"]) == [topic.type_name]
    operations = [name for name in DOCUMENT["operations"] if name.endswith(f".{topic.name}")]
    wanted = [f"{s}.send.{topic.name}" for s in topic.producers] + [
        f"{s}.receive.{topic.name}" for s in topic.consumers
    ]
    assert operations == wanted
    if topic.convenience_key is not None:
        assert DOCUMENT["channels"][f"{topic.name}.by-key"]["address"] == topic.convenience_key
    if topic.live_key is not None:
        assert DOCUMENT["channels"][f"{topic.name}.live"]["address"] == topic.live_key


def test_what_goes_over_the_wire_fits_the_schema() -> None:
    batch = a_tick_batch(trades=[a_trade(price="67000.10")])
    on_the_wire = msgspec.msgpack.decode(encode(batch))
    schemas = {"components": {"schemas": DOCUMENT["components"]["schemas"]}}
    schema = {"$ref": "#/components/schemas/TickBatch", **schemas}

    jsonschema.Draft202012Validator(schema).validate(on_the_wire)
    on_the_wire["trades"][0][1] = "not a number"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(on_the_wire)
    price = msgspec.msgpack.decode(msgspec.msgpack.encode(a_price_update()))
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/PriceUpdate", **schemas}).validate(price)


def test_rows_name_their_positions() -> None:
    trade = DOCUMENT["components"]["schemas"]["Trade"]

    assert [item["title"] for item in trade["prefixItems"]][:5] == [
        "symbol",
        "trade_id",
        "price",
        "size",
        "side",
    ]


def test_no_default_holds_anything_of_this_machine() -> None:
    text = json.dumps(DOCUMENT)

    assert str(Path.home()) not in text
    assert "127.0.0.1" not in text


def test_the_check_fails_on_an_old_document_and_the_command_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asyncapi.json").write_text("{}")

    assert command.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "asyncapi.json" in capsys.readouterr().err
    assert command.main(["--folder", str(tmp_path)]) == 0
    assert command.main(["--check", "--folder", str(tmp_path)]) == 0
