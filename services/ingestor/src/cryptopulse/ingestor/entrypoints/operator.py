"""Subcommands for operators: the feeds of the running service beside us, and candles of the past once more."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import Final

from cryptopulse.common.config import ServiceSettings
from cryptopulse.common.contracts.intervals import INTERVALS
from cryptopulse.common.runtime.operator_call import Call, send
from cryptopulse.common.runtime.operator_tool import Tool


def when(text: str) -> int:
    """Milliseconds of a time: RFC 3339 (UTC where no offset stands) or milliseconds."""
    if text.isdigit():
        return int(text)
    found = datetime.fromisoformat(text)
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000)


def _feeds(parser: argparse.ArgumentParser) -> None:
    wishes = parser.add_subparsers(dest="wish", required=True)
    wishes.add_parser("list", help="every feed: connected, gaps, budget, history left")
    for wish, text in (
        ("pause", "stop a venue's feed"),
        ("resume", "go on; what was missed is fetched by id"),
    ):
        wishes.add_parser(wish, help=text).add_argument("venue")


async def _control(wish: argparse.Namespace, settings: ServiceSettings) -> int:
    call = Call("GET", "/status", None)
    if wish.wish != "list":
        call = Call("POST", f"/feeds/{wish.venue}/{wish.wish}", None)
    return await asyncio.to_thread(send, call, settings)


def _backfill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", help="BASE-QUOTE as the venue trades it: BTC-USDT")
    parser.add_argument("interval", choices=INTERVALS)
    parser.add_argument("begin", type=when, help="inclusive: 2026-01-01T00:00:00Z, or milliseconds")
    parser.add_argument("end", type=when, help="exclusive")
    parser.add_argument("--venue", help="one venue instead of all that trade the symbol")


async def _request(wish: argparse.Namespace, settings: ServiceSettings) -> int:
    body = {"symbol": wish.symbol, "interval": wish.interval, "from_ms": wish.begin, "to_ms": wish.end}
    body |= {"venue": wish.venue} if wish.venue else {}
    return await asyncio.to_thread(send, Call("POST", "/backfill", json.dumps(body).encode()), settings)


TOOLS: Final = {
    "feeds": Tool("list, pause or resume the feeds of this container", _feeds, _control),
    "backfill": Tool("fetch candles of a range again", _backfill, _request),
}
