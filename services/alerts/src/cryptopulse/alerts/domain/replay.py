"""What happened while prices were not seen: the minutes of a hole, walked through their lows and highs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptopulse.alerts.domain.market import Hole, Market
from cryptopulse.alerts.domain.roster import Roster
from cryptopulse.alerts.domain.rules import Cause, Firing, Rule
from cryptopulse.alerts.domain.thresholds import Edge, Number, path
from cryptopulse.alerts.domain.wiring import Role
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import MINUTE_MS, open_time

MAX_REPLAY_MINUTES: Final = 7 * 24 * 60
"""A longer hole is a gap as a whole: late news of last week help nobody."""


def minutes_of(hole: Hole) -> range:
    """The opening times (ms) of the minutes that a hole touches."""
    first = open_time(hole.from_us // 1000, "1m")
    return range(first, hole.to_us // 1000 + 1, MINUTE_MS)


@dataclass(frozen=True, slots=True)
class Replay:
    """One hole of one market, walked once. Firings go to `fired`."""

    market: Market
    hole: Hole
    now_us: int
    roster: Roster
    fired: list[Firing]

    def run(self, candles: Iterable[Candle]) -> None:
        """Fire late what was crossed in the hole: each rule at most once per minute, told with that minute.

        A rule that fired in a minute already is not fired again for it: that minute was seen in part. Of the minute in which
        a rule was armed only the net move counts. Minutes without a complete candle make one `alert.gap` per owner.
        """
        minutes = minutes_of(self.hole)
        if len(minutes) > MAX_REPLAY_MINUTES:
            self._tell_gap(len(minutes))
            return
        by_minute = {candle.open_time: candle for candle in candles if candle.interval == "1m"}
        value: Number = self.hole.before
        missing = 0
        for minute in minutes:
            candle = by_minute.get(minute)
            missing += candle is None or not candle.complete
            if candle is None:
                continue
            net = (value, candle.close)
            for point in path(value, candle.low, candle.high, candle.close):
                self._walk(minute, value, point, net)
                value = point
        self._walk(minutes[-1], value, self.hole.after, (value, self.hole.after))
        # A moment within one minute needs no candle: its ends were seen, and the minute is not over.
        if missing and len(minutes) > 1:
            self._tell_gap(missing)

    def _walk(self, minute: int, before: Number, after: Number, net: tuple[Number, Number]) -> None:
        hole = self.hole
        between = [max(minute, hole.from_us // 1000), min(minute + MINUTE_MS, hole.to_us // 1000)]
        for wire, threshold, edge in self.market.index.between(before, after):
            attachment = wire.attachment
            rule = attachment.rule
            if self.roster.attached.get(rule.id) is not attachment or attachment.is_composite:
                continue
            if wire.role is Role.REARM:
                rule.rearm()
            if wire.role is not Role.ENTER or not _may_fire(rule, minute, threshold, edge, net):
                continue
            cause = Cause(
                max(minute * 1000, hole.from_us), self.now_us, f"late:{minute}", self.market.symbol, self.market.source,
                late=True, data={"detected_by": "replay", "minute": minute, "crossed_between": between},
            )  # fmt: skip
            direction = "up" if edge.is_up else "down"
            self.roster.collect(rule.enter(cause, after, threshold, direction), attachment, self.fired)

    def _tell_gap(self, minutes: int) -> None:
        """One event per owner of rules on this market, through the first of them."""
        hole, market = self.hole, self.market
        affected: dict[str, list[Rule]] = {}
        for attachment in self.roster.attached.values():
            rule = attachment.rule
            if market in attachment.markets and rule.armed_ms * 1000 < hole.to_us:
                affected.setdefault(rule.user_id, []).append(rule)
        name = f"gap:{market.symbol}:{market.source}:{hole.from_us}"
        cause = Cause(hole.from_us, self.now_us, name, market.symbol, market.source, late=True)
        for rules in affected.values():
            data = {
                "from": hole.from_us // 1000,
                "to": hole.to_us // 1000,
                "minutes": minutes,
                "rules": [rule.id for rule in rules[:50]],
            }
            self.fired.append(rules[0].gap(cause, data))


def _may_fire(rule: Rule, minute: int, threshold: Number, edge: Edge, net: tuple[Number, Number]) -> bool:
    if (
        rule.definition.missed == "ignore"
        or rule.definition.for_seconds
        or rule.armed_ms >= minute + MINUTE_MS
    ):
        return False
    if rule.armed_ms > minute and not edge.is_between(threshold, *net):
        return False
    last = rule.runtime.last_fired_ms
    return last is None or not minute <= last < minute + MINUTE_MS
