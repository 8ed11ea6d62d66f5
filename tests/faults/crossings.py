"""The judge of rules that fire at every crossing: their events against the crossings in the venue's own trades.

What a running service sees is told once per crossing; of a minute that it missed at least in part, a rule is told once,
late, if the minute's candle tells the crossing: a price that came up through the threshold and went down again on its way
down does not show in it, nor when in the minute its high was, which counts in the minute a rule is armed in. So a minute with a
crossing that its candle tells and no event of its rule is lost, and an event without a crossing of its own is doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

from tests.faults.judge import minute_of
from tests.faults.stand import Stand

PAGE = 5_000
_EVENTS = """
SELECT rule_id, (extract(epoch FROM at) * 1000)::bigint AS at_ms, late, (data->>'minute')::bigint AS minute
FROM alerts.events WHERE rule_id = ANY($1) AND type = 'alert.triggered'
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Crossings of the venue, events that told them, and what is wrong."""

    crossings: int
    prompt: int
    late: int
    lost: int
    doubled: int
    hidden: int
    """Crossings in missed minutes whose candle does not tell them."""


async def newest_trade(stand: Stand, venue: str, symbol: str) -> int:
    """The id of the venue's newest trade."""
    rows = await stand.control("GET", f"/trades/{venue}/{symbol}", params={"limit": 1})
    return int(rows[-1]["id"])


async def trades_since(stand: Stand, venue: str, symbol: str, trade_id: int) -> list[tuple[int, Decimal]]:
    """(time in ms, price) of all trades from an id on."""
    found: list[tuple[int, Decimal]] = []
    while True:
        page = await stand.control(
            "GET", f"/trades/{venue}/{symbol}", params={"from_id": trade_id, "limit": PAGE}
        )
        found += [(row["time_us"] // 1000, Decimal(row["price"])) for row in page]
        if len(page) < PAGE:
            return found
        trade_id = page[-1]["id"] + 1


def rises_through(trades: Iterable[tuple[int, Decimal]], threshold: Decimal) -> Counter[int]:
    """The moments (ms) at which the price came from below the threshold to it or above, with how often."""
    found: Counter[int] = Counter()
    before: Decimal | None = None
    for at_ms, price in trades:
        if before is not None and before < threshold <= price:
            found[at_ms] += 1
        before = price
    return found


def told_by_candles(trades: list[tuple[int, Decimal]], threshold: Decimal) -> set[int]:
    """The minutes (ms) whose candle alone tells that the price came up through the threshold after the rule was armed.

    It was armed in the first minute, of which only the way from its first price to its last counts.
    """
    found: set[int] = set()
    before = trades[0][1]
    for minute, those in groupby(trades, key=lambda trade: minute_of(trade[0])):
        prices = [price for _, price in those]
        last = prices[-1]
        is_first = minute == minute_of(trades[0][0])
        high, low = (last, last) if is_first else (max(prices), min(prices))
        if before < threshold <= high or low < threshold <= last:
            found.add(minute)
        before = last
    return found


async def judge_crossings(
    stand: Stand, rules: dict[str, Decimal], trades: list[tuple[int, Decimal]]
) -> Verdict:
    """Rule -> threshold, and the venue's trades since all rules were evaluated; what is newer than these is not judged."""
    events: dict[str, list[Any]] = {rule: [] for rule in rules}
    for row in await stand.rows(_EVENTS, list(rules)):
        if row["late"] or trades[0][0] <= row["at_ms"] <= trades[-1][0]:
            events[row["rule_id"]].append(row)
    missed = {row["minute"] for rows in events.values() for row in rows if row["late"]}
    crossings = prompt = late = lost = doubled = hidden = 0
    for rule, threshold in rules.items():
        real = rises_through(trades, threshold)
        seen = Counter(row["at_ms"] for row in events[rule] if not row["late"])
        replayed = Counter(row["minute"] for row in events[rule] if row["late"])
        real_minutes = {minute_of(at_ms) for at_ms in real}
        told = {minute_of(at_ms) for at_ms in seen} | set(replayed)
        crossings += real.total()
        prompt += seen.total()
        late += replayed.total()
        untold = real_minutes - told
        not_shown = (untold & missed) - told_by_candles(trades, threshold)
        hidden += len(not_shown)
        lost += len(untold - not_shown)
        doubled += (seen - real).total()
        doubled += sum(
            times if minute not in real_minutes else times - 1 for minute, times in replayed.items()
        )
    return Verdict(crossings, prompt, late, lost, doubled, hidden)
