"""Reads recorded files into frames: what was sent, on which channel of which venue, with the trades and quotes in it.

Three line formats are known: `<unix ns> <json>`, `<unix s>: <json>`, and cryptofeed's connection lines
(`wss://... <-> time`, `wss://... <- time: sent`, `https://... -> time: answer`), which carry no frame. The reader is
tolerant: blank lines and lines that fit nothing are counted and skipped.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from tools.venue_sim.market.instruments import BINANCE, COINBASE, KRAKEN

BINANCE_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "GBP", "TRY", "BRL",
                         "AUD", "USD", "DAI", "JPY")  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecordedTrade:
    """One trade inside a frame, in the venue's own text; `trade_id` is None where the venue gives none."""

    trade_id: int | None
    price: str
    size: str
    time_us: int
    sold: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded message. `payload` is what a raw client gets; `at_us` when it was received."""

    at_us: int
    venue: str
    native: str
    channel: str
    payload: bytes
    trades: tuple[RecordedTrade, ...] = ()
    quote: tuple[str, str, str, str] | None = None
    event_us: int | None = None


@dataclass(slots=True)
class Recording:
    """Everything that was read, in the order of receipt."""

    frames: list[Frame]
    lines: int = 0
    skipped: int = 0


def read(paths: Iterable[Path]) -> Recording:
    """Read files, or every file of folders."""
    recording = Recording([])
    for path in paths:
        files = sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]
        for file in files:
            _read_file(file, recording)
    recording.frames.sort(key=lambda frame: frame.at_us)
    return recording


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else file as stream:
        yield from stream


def _read_file(path: Path, recording: Recording) -> None:
    for line in _lines(path):
        text = line.strip()
        if not text:
            continue
        recording.lines += 1
        frame = _read_line(text)
        if frame is None:
            recording.skipped += 1
        else:
            recording.frames.append(frame)


def _read_line(text: bytes) -> Frame | None:
    stamp, _, payload = text.partition(b" ")
    try:
        at_us = round(float(stamp[:-1]) * 1e6) if stamp.endswith(b":") else int(stamp) // 1000
        value = orjson.loads(payload)
    except ValueError:
        return None
    return understand(at_us, payload, value)


def understand(at_us: int, payload: bytes, value: Any) -> Frame | None:
    """The frame that a JSON value is, by its shape; None for what is no venue message."""
    if isinstance(value, list):
        return _kraken(at_us, payload, value)
    if not isinstance(value, dict):
        return None
    if "stream" in value and isinstance(value.get("data"), dict):
        inner = payload[payload.index(b'"data":') + 7 : payload.rindex(b"}")].strip()
        return _binance(at_us, inner, value["data"], str(value["stream"]))
    if "e" in value and "s" in value:
        return _binance(at_us, payload, value, f"{str(value['s']).lower()}@{value['e']}")
    if "channel" in value and "events" in value:
        return _advanced(at_us, payload, value)
    if "type" in value and "product_id" in value:
        return _exchange(at_us, payload, value)
    return None


def _binance(at_us: int, payload: bytes, data: dict[str, Any], stream: str) -> Frame | None:
    symbol, _, channel = stream.partition("@")
    native = str(data.get("s", symbol)).upper()
    event_us = _binance_us(data["E"]) if "E" in data else None
    trades: tuple[RecordedTrade, ...] = ()
    quote = None
    if data.get("e") == "trade":
        trades = (
            RecordedTrade(int(data["t"]), data["p"], data["q"], _binance_us(data["T"]), bool(data["m"])),
        )
    elif channel == "bookTicker":
        quote = (data["b"], data["B"], data["a"], data["A"])
    return Frame(at_us, BINANCE, native, channel, payload, trades, quote, event_us)


def _binance_us(value: int) -> int:
    return value if value > 10**14 else value * 1000


def _rfc3339_us(text: str) -> int:
    return round(datetime.fromisoformat(text[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp() * 1e6)


_EXCHANGE_CHANNELS: Final = {
    "match": "matches",
    "last_match": "matches",
    "ticker": "ticker",
    "heartbeat": "heartbeat",
    "l2update": "level2_batch",
    "snapshot": "level2_batch",
}


def _exchange(at_us: int, payload: bytes, value: dict[str, Any]) -> Frame | None:
    kind = value["type"]
    channel = _EXCHANGE_CHANNELS.get(kind)
    if channel is None:
        return None
    trades: tuple[RecordedTrade, ...] = ()
    quote = None
    event_us = None if kind != "match" else _rfc3339_us(value["time"])
    if channel == "matches":
        when = _rfc3339_us(value["time"])
        trades = (
            RecordedTrade(
                int(value["trade_id"]), value["price"], value["size"], when, value["side"] == "buy"
            ),
        )
    elif channel == "ticker":
        quote = (
            value["best_bid"],
            value.get("best_bid_size", "0"),
            value["best_ask"],
            value.get("best_ask_size", "0"),
        )
    return Frame(at_us, COINBASE, str(value["product_id"]), channel, payload, trades, quote, event_us)


def _advanced(at_us: int, payload: bytes, value: dict[str, Any]) -> Frame | None:
    channel = str(value["channel"])
    if channel != "market_trades":
        return None  # tickers, heartbeats and books are made anew from the trades
    found = [trade for event in value["events"] for trade in event.get("trades", [])]
    if not found:
        return None
    trades = tuple(
        RecordedTrade(
            int(trade["trade_id"]),
            trade["price"],
            trade["size"],
            _rfc3339_us(trade["time"]),
            trade["side"] == "BUY",
        )
        for trade in reversed(found)
    )
    native = str(found[0]["product_id"])
    return Frame(at_us, COINBASE, native, channel, payload, trades, None, _rfc3339_us(value["timestamp"]))


def _kraken(at_us: int, payload: bytes, value: list[Any]) -> Frame | None:
    if len(value) != 4 or value[2] not in {"trade", "ticker"}:
        return None
    trades: tuple[RecordedTrade, ...] = ()
    quote = None
    if value[2] == "trade":
        trades = tuple(
            RecordedTrade(None, row[0], row[1], round(float(row[2]) * 1e6), row[3] == "s") for row in value[1]
        )
    else:
        body = value[1]
        quote = (body["b"][0], body["b"][2], body["a"][0], body["a"][2])
    event_us = trades[-1].time_us if trades else None
    return Frame(at_us, KRAKEN, str(value[3]), str(value[2]), payload, trades, quote, event_us)


def split_native(venue: str, native: str) -> tuple[str, str]:
    """Base and quote of a venue's name, in common names."""
    if venue == COINBASE:
        base, _, quote = native.partition("-")
        return base, quote
    if venue == KRAKEN:
        common = {"XBT": "BTC", "XDG": "DOGE"}
        base, _, quote = native.partition("/")
        return common.get(base, base), common.get(quote, quote)
    for quote in BINANCE_QUOTES:
        if native.endswith(quote) and len(native) > len(quote):
            return native[: -len(quote)], quote
    return native[:3], native[3:]
