"""Broken contents: what a frame or a REST body can be turned into."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

import orjson

from tools.venue_sim.net import frames

HTML: Final = (
    b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1>"
    b"</center><hr><center>cloudflare</center></body></html>"
)
HTML_1020: Final = (
    b"<!DOCTYPE html><html><head><title>Access denied | used Cloudflare to restrict access</title></head>"
    b"<body><h1>Error 1020</h1><p>Access denied</p></body></html>"
)
GARBAGE_BYTES: Final = 1 << 20

# The names under which the dialects write the same thing.
FIELDS: Final[dict[str, frozenset[str]]] = {
    "price": frozenset({"p", "price", "b", "a", "best_bid", "best_ask", "bid", "ask", "last"}),
    "size": frozenset({"q", "size", "qty"}),
    "time": frozenset({"T", "time", "timestamp"}),
    "id": frozenset({"t", "trade_id"}),
    "symbol": frozenset({"s", "product_id", "symbol"}),
    "kind": frozenset({"e", "type", "channel", "event"}),
}
_KRAKEN_COLUMNS: Final = {"price": 0, "size": 1, "time": 2}

Edit = Callable[[Any], Any]
REMOVE: Final = object()

PLAIN: Final = ("html", "html_1020", "empty", "truncated", "garbage", "binary", "invalid_utf8", "array", "null",
                "number", "string", "object")  # fmt: skip
EDITED: Final = ("unknown_event", "unknown_symbol", "non_ascii_symbol", "extra_field", "missing_field", "null_field",
                 "wrong_shape", "bad_number", "wrong_time")  # fmt: skip


def edit_fields(value: Any, keys: frozenset[str], column: int | None, edit: Edit) -> Any:
    """A copy of a JSON value with `edit` applied to every field named in `keys`, and to a column of Kraken's rows."""
    if isinstance(value, dict):
        edited = {}
        for key, inner in value.items():
            changed = (
                edit(inner)
                if key in keys and not isinstance(inner, dict)
                else _inside(inner, keys, column, edit)
            )
            if changed is not REMOVE:
                edited[key] = changed
        return edited
    return _inside(value, keys, column, edit)


def _inside(value: Any, keys: frozenset[str], column: int | None, edit: Edit) -> Any:
    if isinstance(value, dict):
        return edit_fields(value, keys, column, edit)
    if not isinstance(value, list):
        return value
    if column is not None and len(value) >= 4 and all(isinstance(cell, str) for cell in value):
        changed = edit(value[column])
        kept = list(value)
        if changed is REMOVE:
            del kept[column]
        else:
            kept[column] = changed
        return kept
    return [_inside(item, keys, column, edit) for item in value]


class RawToken(str):
    """Text that goes into JSON as it is, without quotes: NaN, 1e400 and other things that JSON does not allow."""

    __slots__ = ()


def _dump(value: Any) -> bytes:
    tokens: list[str] = []

    def mark(item: Any) -> Any:
        if isinstance(item, RawToken):
            tokens.append(str(item))
            return f"@@raw{len(tokens) - 1}@@"
        if isinstance(item, dict):
            return {key: mark(inner) for key, inner in item.items()}
        return [mark(inner) for inner in item] if isinstance(item, list) else item

    text = json.dumps(mark(value), separators=(",", ":"), ensure_ascii=False)
    for number, token in enumerate(tokens):
        text = text.replace(f'"@@raw{number}@@"', token)
    return text.encode()


def _shift_time(value: Any, shift: str) -> Any:
    number = isinstance(value, int)
    ms = value if number else None
    if shift == "microseconds":
        return value * 1000 if number else value
    if shift == "before_2010":
        return 1_230_768_000_000 if number else "2009-01-01T00:00:00.000000Z"
    if shift == "future_day":
        if ms is not None:
            return ms + 86_400_000 * (1000 if ms > 10**14 else 1)
        return "2099-01-01T00:00:00.000000Z"
    return REMOVE if shift == "missing" else RawToken(shift)


def edited(content: str, payload: bytes, params: dict[str, Any]) -> bytes:
    """A payload with one thing wrong in it; a payload that is no JSON stays as it is."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload
    field = str(params.get("field", "kind" if content == "unknown_event" else "price"))
    if content in {"unknown_symbol", "non_ascii_symbol"}:
        field = "symbol"
    if content == "wrong_time":
        field = "time"
    keys = FIELDS.get(field, frozenset({field}))
    column = _KRAKEN_COLUMNS.get(field)
    if content == "extra_field":
        if isinstance(value, dict):
            value["extraField"] = {"nested": [1, 2, 3]}
        return _dump(value)
    return _dump(edit_fields(value, keys, column, _edit_for(content, params)))


def _edit_for(content: str, params: dict[str, Any]) -> Edit:
    wanted = params.get("value", "NaN")
    edits: dict[str, Edit] = {
        "unknown_event": lambda _: "unheardOf",
        "unknown_symbol": lambda _: "NOSUCHUSDT",
        "non_ascii_symbol": lambda _: "币安人生USDT",
        "missing_field": lambda _: REMOVE,
        "null_field": lambda _: None,
        "wrong_shape": lambda old: [old],
        "bad_number": lambda _: RawToken(wanted) if params.get("raw") else wanted,
        "wrong_time": lambda old: _shift_time(old, str(params.get("shift", "future_day"))),
    }
    return edits[content]


def plain(content: str, payload: bytes, random: Random) -> tuple[int, bytes]:
    """A whole frame or body that has nothing to do with the protocol: (opcode, bytes)."""
    if content == "binary":
        return frames.BINARY, random.randbytes(256)
    fixed = {
        "html": HTML,
        "html_1020": HTML_1020,
        "empty": b"",
        "truncated": payload[: max(1, len(payload) // 2)],
        "invalid_utf8": b'{"e":"trade","s":"\xff\xfe\xc3\x28","p":"1.0"}',
        "array": b'[1,2,{"a":[]}]',
        "null": b"null",
        "number": b"42",
        "string": b'"hello"',
        "object": b"{}",
    }
    if content == "garbage":
        return frames.TEXT, random.randbytes(GARBAGE_BYTES // 2).hex().encode()
    return frames.TEXT, fixed[content]


def broken(content: str, payload: bytes, params: dict[str, Any], random: Random) -> tuple[int, bytes]:
    """Any broken version of a payload: (opcode, bytes)."""
    if content in EDITED:
        return frames.TEXT, edited(content, payload, params)
    return plain(content, payload, random)
