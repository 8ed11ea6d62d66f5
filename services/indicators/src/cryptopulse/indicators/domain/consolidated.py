"""The consolidated price: a weighted median of what fresh, plausible sources say, with its confidence and its reasons.

Every source votes three times, at its price and at its uncertainty above and below (as Pyth does), so one wild source
cannot move the result when there are three; the weights are capped, so the largest venue alone cannot either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from math import exp
from typing import Final

import msgspec

from cryptopulse.common.contracts.prices import STALE_AFTER_MS, ExcludedSource, PriceStatus

SHOWN: Final = Context(prec=12)
"""Significant digits of a price that was converted or taken between two others."""
FRESH_TAU_US: Final = 5_000_000
STALE_US: Final = STALE_AFTER_MS * 1_000
MAX_SHARE: Final = 0.5
LEAST_WEIGHT: Final = 0.02
"""A fresh source without volume still counts a little: quotes are information."""
OUTLIER_MAD: Final = Decimal("7.413")
"""5 x 1.4826 median absolute deviations: five standard deviations of a normal crowd."""
OUTLIER_FLOOR: Final = Decimal("0.005")
PAIR_DISTANCE: Final = Decimal("0.01")
JUMP: Final = Decimal("0.10")
JUMP_WITHIN_US: Final = 1_000_000
JUMP_HOLD_US: Final = 3_000_000
MAX_SPREAD: Final = Decimal("0.005")
TWO: Final = Decimal(2)


@dataclass(slots=True)
class SourceView:
    """What one source says now, in the target's quote. `uncertainty` is half a spread; `volume` its recent turnover.

    `refused` names why it must not count before its price is even looked at: `feed_down`, `rate_stale`.
    """

    name: str
    price: Decimal
    uncertainty: Decimal
    received_us: int
    volume: float
    refused: str | None = None


class Memory(msgspec.Struct, array_like=True):
    """What the next evaluation must know: the last value, and a jump of a lone source that waits to be confirmed."""

    price: Decimal | None = None
    at_us: int = 0
    held_price: Decimal | None = None
    held_since_us: int = 0


@dataclass(slots=True)
class Consolidated:
    """The price with its confidence (half the spread of the votes' quartiles), status, and who counted."""

    price: Decimal
    confidence: Decimal
    status: PriceStatus
    used: list[str]
    excluded: list[ExcludedSource]
    received_us: int


def source_price(
    last: Decimal | None, bid: Decimal | None, ask: Decimal | None
) -> tuple[Decimal, Decimal] | None:
    """A source's price and uncertainty: the middle of a sane, narrow quote, else the last trade. None without either.

    A crossed quote or one wider than 0.5 % says nothing.
    """
    if bid is not None and ask is not None and bid < ask:
        middle = (bid + ask) / TWO
        half = (ask - bid) / TWO
        if half * TWO <= MAX_SPREAD * middle:
            if last is None:
                return middle, half
            return middle, min(max(half, abs(last - middle)), MAX_SPREAD * middle)
    return None if last is None else (last, Decimal(0))


def consolidate(views: Sequence[SourceView], memory: Memory, now_us: int) -> Consolidated | None:
    """The price at `now_us`, or None when no source counts. Changes `memory`.

    1. Sources with `refused`, or older than 30 s, are out.
    2. Three or more: those further from the median than max(5 x 1.4826 MAD, 0.5 %) are out. Two that are more than 1 %
       apart: the one nearer to the last value stays, status `degraded`. One: status `single`, and a jump of more than
       10 % within a second is held back for 3 s unless it persists.
    3. The median of votes at p-c, p, p+c, weighted by share of volume (at most 50 %) and freshness exp(-age/5 s).
    """
    excluded: list[ExcludedSource] = []
    fresh: list[SourceView] = []
    for view in views:
        reason = view.refused or ("stale" if now_us - view.received_us > STALE_US else None)
        if reason is None:
            fresh.append(view)
        else:
            excluded.append(ExcludedSource(source=view.name, reason=reason))
    if not fresh:
        return None
    status: PriceStatus = "ok"
    if len(fresh) >= 3:
        fresh = _without_outliers(fresh, excluded)
        if len(fresh) < 3:
            status = "degraded"
    elif len(fresh) == 2:
        kept = _nearer_of_two(fresh, memory, excluded)
        if len(kept) < 2:
            status = "degraded"
        fresh = kept
    if len(fresh) == 1 and status == "ok":
        status = "single"
        held = _held_back(fresh[0], memory, now_us)
        if held is not None:
            excluded.append(ExcludedSource(source=fresh[0].name, reason="unconfirmed_jump"))
            return Consolidated(held, fresh[0].uncertainty, "degraded", [], excluded, fresh[0].received_us)
    elif len(fresh) > 1:
        memory.held_price = None
    price, confidence = _median(fresh, now_us)
    memory.price, memory.at_us = price, now_us
    newest = max(view.received_us for view in fresh)
    return Consolidated(price, confidence, status, [view.name for view in fresh], excluded, newest)


def _plain_median(values: Sequence[Decimal]) -> Decimal:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / TWO


def _without_outliers(fresh: list[SourceView], excluded: list[ExcludedSource]) -> list[SourceView]:
    middle = _plain_median([view.price for view in fresh])
    spread = _plain_median([abs(view.price - middle) for view in fresh])
    limit = max(OUTLIER_MAD * spread, OUTLIER_FLOOR * middle)
    kept = []
    for view in fresh:
        if abs(view.price - middle) > limit:
            excluded.append(ExcludedSource(source=view.name, reason="outlier"))
        else:
            kept.append(view)
    return kept


def _nearer_of_two(
    fresh: list[SourceView], memory: Memory, excluded: list[ExcludedSource]
) -> list[SourceView]:
    one, two = fresh
    if abs(one.price - two.price) <= PAIR_DISTANCE * min(one.price, two.price):
        return fresh
    if memory.price is None:
        # Nothing to measure by: the one that trades more is believed.
        keep, drop = (one, two) if one.volume >= two.volume else (two, one)
    else:
        keep, drop = sorted(fresh, key=lambda view: abs(view.price - memory.price))  # type: ignore[operator]  # not None here
    excluded.append(ExcludedSource(source=drop.name, reason="outlier"))
    return [keep]


def _held_back(view: SourceView, memory: Memory, now_us: int) -> Decimal | None:
    """The last value while a lone source's sudden jump is unconfirmed, else None. Never holds for more than 3 s."""
    last = memory.price
    if last is None:
        return None
    jumped = abs(view.price - last) > JUMP * last
    if not jumped:
        memory.held_price = None
        return None
    if memory.held_price is None:
        if now_us - memory.at_us > JUMP_WITHIN_US:
            return None
        memory.held_price, memory.held_since_us = view.price, now_us
        return last
    if now_us - memory.held_since_us < JUMP_HOLD_US:
        return last
    memory.held_price = None
    return None


def weights_of(views: Sequence[SourceView], now_us: int) -> list[float]:
    """The weight of each source: its share of the volume, at most half of all, times its freshness."""
    total = sum(view.volume for view in views)
    found = []
    for view in views:
        share = view.volume / total if total > 0 else 1.0 / len(views)
        age = max(0, now_us - view.received_us)
        found.append(max(LEAST_WEIGHT, min(MAX_SHARE, share)) * exp(-age / FRESH_TAU_US))
    return found


def _median(fresh: list[SourceView], now_us: int) -> tuple[Decimal, Decimal]:
    if len(fresh) == 1:
        return fresh[0].price, fresh[0].uncertainty
    votes: list[tuple[Decimal, float]] = []
    for view, weight in zip(fresh, weights_of(fresh, now_us), strict=True):
        votes.append((view.price, weight))
        votes.append((view.price - view.uncertainty, weight))
        votes.append((view.price + view.uncertainty, weight))
    votes.sort(key=_price_of)
    total = sum(weight for _, weight in votes)
    price = _quantile(votes, 0.5 * total)
    low, high = _quantile(votes, 0.25 * total), _quantile(votes, 0.75 * total)
    return SHOWN.plus(price), SHOWN.plus(max(price - low, high - price))


def _price_of(vote: tuple[Decimal, float]) -> Decimal:
    return vote[0]


def _quantile(votes: Sequence[tuple[Decimal, float]], limit: float) -> Decimal:
    """The price at which the running weight passes `limit`; the mean of two when it is met exactly between them."""
    running = 0.0
    for index, (price, weight) in enumerate(votes):
        running += weight
        if running > limit:
            return price
        if running == limit and index + 1 < len(votes):
            return (price + votes[index + 1][0]) / TWO
    return votes[-1][0]
