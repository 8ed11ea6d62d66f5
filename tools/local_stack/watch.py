"""Tells a person when the API is up, what the first prices are, how far history is, and when the health changes."""

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
_HISTORY_SECONDS = 10.0
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
    async with asyncio.TaskGroup() as group:
        group.create_task(_follow_history(api))
        group.create_task(_follow_health(api))


async def _first_price(api: Api, wanted: list[str]) -> dict[str, Any]:
    complained = time.monotonic()
    while True:
        for symbol in wanted[:_SHOWN_SYMBOLS]:
            body = await api.price(symbol)
            if body is not None:
                return body
        if time.monotonic() - complained > _PATIENCE_SECONDS:
            complained = time.monotonic()
            _, words = await _health(api)
            say("prices", f"no price yet; health: {words}")
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


async def _follow_history(api: Api) -> None:
    """Print how far the history of each venue is, whenever that has changed; what is asked for later is told as well."""
    known = ""
    while True:
        code, body = await api.get("/v1/status")
        words = history_words(body.get("data")) if code == 200 else ""
        if words and words != known:
            say("history", words)
            known = words
        await asyncio.sleep(_HISTORY_SECONDS)


def history_words(feeds: Any) -> str:
    """Progress of each venue that has any history to fetch: `binance 12 of 60 series, 48,000 candles`."""
    found = []
    for feed in feeds if isinstance(feeds, list) else ():
        progress = feed.get("history") if isinstance(feed, dict) else None
        if not isinstance(progress, dict) or not progress.get("series_total"):
            continue
        total, done = progress["series_total"], progress.get("series_done", 0)
        series = f"all {total} series" if done >= total else f"{done} of {total} series"
        found.append(f"{feed.get('venue')} {series}, {progress.get('candles', 0):,} candles")
    return "; ".join(found)


async def _follow_health(api: Api) -> None:
    known: tuple[str, ...] = ()
    while True:
        state, words = await _health(api)
        if state != known:
            say("health", words)
            known = state
        await asyncio.sleep(_HEALTH_SECONDS)


async def _health(api: Api) -> tuple[tuple[str, ...], str]:
    """The sum of `/health/` as a value that changes when somebody should know, and in words."""
    code, body = await api.get("/health/")
    if code == 0:
        return ("away",), "the gateway does not answer"
    status = str(body.get("status", code))
    unwell = unwell_checks(body.get("checks"))
    words = "; ".join(f"{name}: {detail}" for name, detail in unwell.items())
    return (status, *unwell), f"{status} ({words})" if words else status


def unwell_checks(checks: Any) -> dict[str, str]:
    """Name and detail of each check that is not ok."""
    if not isinstance(checks, dict):
        return {}
    return {
        str(name): str(check.get("detail", ""))
        for name, check in checks.items()
        if isinstance(check, dict) and not check.get("ok")
    }
