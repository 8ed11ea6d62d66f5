"""Tells a person when the API is up, what the first prices are, and when the health of the whole changes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cryptopulse.common.config import DEFAULT_SYMBOLS
from cryptopulse.common.contracts.values import SYMBOL_PATTERN
from tools.local_stack.api import Api, price_line
from tools.local_stack.console import say

_POLL_SECONDS = 0.2
_HEALTH_SECONDS = 3.0
_PATIENCE_SECONDS = 60.0
_SHOWN_SYMBOLS = 5
_MOVED_SECONDS = 5.0


async def watch(api: Api, symbols: str, began: float) -> None:
    """Wait for the first price, print what there is, then follow the health until cancelled."""
    named = [part.strip().upper() for part in symbols.split(",")]
    wanted = [symbol for symbol in named if SYMBOL_PATTERN.match(symbol)] or list(DEFAULT_SYMBOLS)
    first = await _first_price(api, wanted)
    seconds = time.monotonic() - began
    say("api", f"{api.url}  documents: {api.url}/docs  health: {api.url}/health/")
    say("api", f"try: curl {api.url}/prices/{first['symbol'].split('-')[0]}")
    await _print_prices(api, wanted)
    say("prices", f"first price {seconds:.1f} s after the start")
    await asyncio.sleep(_MOVED_SECONDS)
    await _print_prices(api, wanted)
    await _follow_health(api)


async def _first_price(api: Api, wanted: list[str]) -> dict[str, Any]:
    complained = time.monotonic()
    while True:
        for symbol in wanted[:_SHOWN_SYMBOLS]:
            body = await api.price(symbol)
            if body is not None:
                return body
        if time.monotonic() - complained > _PATIENCE_SECONDS:
            complained = time.monotonic()
            say("prices", f"no price yet; {await _health_words(api)}")
        await asyncio.sleep(_POLL_SECONDS)


async def _print_prices(api: Api, wanted: list[str]) -> None:
    shown = 0
    for symbol in wanted:
        body = await api.price(symbol)
        if body is not None:
            say("prices", price_line(body))
            shown += 1
        if shown == _SHOWN_SYMBOLS:
            return


async def _follow_health(api: Api) -> None:
    words = await _health_words(api)
    say("health", words)
    while True:
        await asyncio.sleep(_HEALTH_SECONDS)
        now = await _health_words(api)
        if now != words:
            say("health", now)
            words = now


async def _health_words(api: Api) -> str:
    """The sum of `/health/`, with the parts that are not well."""
    status, body = await api.get("/health/")
    if status == 0:
        return "the gateway does not answer"
    unwell = _unwell(body.get("services")) + _unwell(body.get("feeds")) + _unwell(body.get("checks"))
    return f"{body.get('status', status)}" + (f": {', '.join(unwell)}" if unwell else "")


def _unwell(parts: Any) -> list[str]:
    """Names of the parts that say anything but 'ok', from `{name: state}` or `[{name, status}]`."""
    if isinstance(parts, dict):
        pairs = [(str(name), _state(value)) for name, value in parts.items()]
    elif isinstance(parts, list):
        pairs = [
            (str(part.get("name") or part.get("venue") or "?"), _state(part))
            for part in parts
            if isinstance(part, dict)
        ]
    else:
        return []
    return [
        f"{name} {state}"
        for name, state in pairs
        if state not in {"ok", "up", "ready", "connected", "live", ""}
    ]


def _state(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("status") or value.get("state") or "").lower()
    if isinstance(value, bool):
        return "ok" if value else "not ready"
    return str(value).lower()
