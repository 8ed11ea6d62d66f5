"""The rules of a shard: how they are hung on what they watch, and what a crossed wire does to them."""

from __future__ import annotations

import heapq
from decimal import Decimal

from cryptopulse.alerts.domain.attachment import Attachment, Strand, Wire
from cryptopulse.alerts.domain.definition import source_of_leaf, symbol_of_leaf
from cryptopulse.alerts.domain.market import Market
from cryptopulse.alerts.domain.registry import Registry
from cryptopulse.alerts.domain.rules import Cause, Firing, Rule
from cryptopulse.alerts.domain.thresholds import Edge, Number
from cryptopulse.alerts.domain.wiring import LeafView, Role
from cryptopulse.common.contracts.http.alert_conditions import (
    Leaf,
    NewListing,
    PctChange,
    PortfolioCondition,
    PriceRange,
    SignalCondition,
    Spread,
    Trailing,
)


class Roster:
    """Rules by id, each attached to the registry's indexes. Firings are appended to the list that the caller gives."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.attached: dict[str, Attachment] = {}
        self.signals: dict[tuple[str, str], dict[str, Attachment]] = {}
        self.listings: dict[str, Attachment] = {}
        self._holding: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        self._expiring: list[tuple[int, str]] = []

    def add(self, rule: Rule, now_us: int, fired: list[Firing]) -> None:
        """Evaluate a rule from now on, in place of an earlier version of it."""
        self.remove(rule.id)
        if rule.is_over or rule.state == "paused":
            return
        attachment = Attachment(rule, [_view(leaf, rule) for leaf in rule.definition.leaves])
        self.attached[rule.id] = attachment
        for at in range(len(attachment.views)):
            self._attach(attachment, at)
        if rule.expires_ms is not None:
            heapq.heappush(self._expiring, (rule.expires_ms, rule.id))
        self._schedule(rule)
        self._take_over(attachment, now_us, fired)

    def remove(self, rule_id: str) -> None:
        """Evaluate a rule no longer; unknown ids are ignored."""
        attachment = self.attached.pop(rule_id, None)
        if attachment is None:
            return
        for levels, metric, edge, threshold, wire in attachment.strands:
            levels.remove(edge, threshold, wire)
            if metric.kind != "price" and levels.is_empty:
                self.registry.drop_index(metric)
        # Wires and attachments point at each other: cut here, they are freed at once and not by the collector.
        attachment.strands = []
        self.registry.release(attachment.markets)
        if not attachment.is_plain:
            self._remove_rest(attachment)
        if self._due:
            self._due.pop(rule_id, None)

    def _remove_rest(self, attachment: Attachment) -> None:
        """What only some kinds of rules hang on."""
        rule_id = attachment.rule.id
        if attachment.follows is not None:
            book, wire = attachment.follows
            book.remove(wire)
        for market in attachment.markets:
            market.waiting = [wire for wire in market.waiting if wire.attachment is not attachment]
        for view in attachment.views:
            if isinstance(view.leaf, SignalCondition):
                self.signals.get(_signal_key(view), {}).pop(rule_id, None)
        self.listings.pop(rule_id, None)

    def hit(
        self, wire: Wire, value: Number, threshold: Number, edge: Edge, cause: Cause, fired: list[Firing]
    ) -> None:
        """A wire's threshold was crossed."""
        attachment = wire.attachment
        rule = attachment.rule
        if self.attached.get(rule.id) is not attachment:
            return
        if wire.role is Role.ENTER and not attachment.is_composite:
            if attachment.is_plain or self._begins(wire):
                direction = "up" if edge < 2 else "down"
                self.collect(rule.enter(cause, value, threshold, direction), attachment, fired)
        elif attachment.is_composite:
            self._reconsider(attachment, cause, value, fired)
        elif wire.role is Role.REARM:
            if attachment.views[wire.leaf].is_rearmed(self.registry.value):
                rule.rearm()
        elif attachment.views[wire.leaf].holds(self.registry.value) is not True:
            self.collect(rule.leave(cause, value, threshold), attachment, fired)

    def _begins(self, wire: Wire) -> bool:
        """Whether a crossed wire really is the beginning of its condition."""
        view = wire.attachment.views[wire.leaf]
        if isinstance(view.leaf, PriceRange) and wire.attachment.rule.runtime.truth is True:
            return False
        return view.holds(self.registry.value) is not False

    def collect(self, firing: Firing | None, attachment: Attachment, fired: list[Firing]) -> None:
        """Keep a firing, and take a rule out that is over."""
        if firing is not None:
            fired.append(firing)
        if attachment.rule.is_over:
            self.remove(attachment.rule.id)
        elif attachment.rule.runtime.pending_since_us is not None:
            self._schedule(attachment.rule)

    def follow(self, wire: Wire, market: Market, anchor: Decimal | None) -> None:
        """Put a trailing rule (back) into its book, from `anchor` on; without one it waits for the first price."""
        leaf = wire.attachment.views[wire.leaf].leaf
        assert isinstance(leaf, Trailing)
        if anchor is None:
            market.waiting.append(wire)
            return
        book = market.highs if leaf.from_ == "high" else market.lows
        book.add(wire, leaf.pct, anchor)
        wire.attachment.follows = (book, wire)

    def anchor(self, wire: Wire, market: Market, price: Decimal) -> None:
        """The first price of a market is the reference of a rule that waited for it."""
        attachment = wire.attachment
        if isinstance(attachment.views[wire.leaf].leaf, Trailing):
            self.follow(wire, market, price)
            return
        attachment.rule.runtime.anchor, attachment.rule.dirty = price, True
        attachment.views[wire.leaf] = _view(attachment.views[wire.leaf].leaf, attachment.rule)
        self._string(attachment, wire.leaf)

    def dirty(self) -> list[Rule]:
        """Rules whose memory changed without a firing, the extremes of trailing rules included."""
        found = []
        for attachment in self.attached.values():
            rule = attachment.rule
            if attachment.follows is not None:
                book, wire = attachment.follows
                extreme = book.anchor(wire)
                if extreme is not None and rule.runtime.anchor != extreme:
                    rule.runtime.anchor, rule.dirty = extreme, True
            if rule.dirty:
                found.append(rule)
        return found

    @property
    def has_timers(self) -> bool:
        """True when something waits for time to pass."""
        return bool(self._holding or self._expiring)

    def on_time(self, now_us: int, fired: list[Firing]) -> None:
        """What has held for as long as it must, and what expired."""
        while self._holding and self._holding[0][0] <= now_us:
            _, rule_id = heapq.heappop(self._holding)
            self._held(rule_id, now_us, fired)
        while self._expiring and self._expiring[0][0] * 1000 <= now_us:
            due, rule_id = heapq.heappop(self._expiring)
            attachment = self.attached.get(rule_id)
            if attachment is not None and attachment.rule.expires_ms == due:
                self.collect(
                    attachment.rule.expire(Cause(now_us, now_us, f"expiry:{due}")), attachment, fired
                )

    def _held(self, rule_id: str, now_us: int, fired: list[Firing]) -> None:
        attachment = self.attached.get(rule_id)
        self._due.pop(rule_id, None)
        since = attachment.rule.runtime.pending_since_us if attachment else None
        if attachment is None or since is None:
            return
        rule = attachment.rule
        if now_us < since + rule.definition.for_seconds * 1_000_000:
            self._schedule(rule)
            return
        first = attachment.views[0]
        values = [self.registry.value(metric) for metric in first.metrics]
        cause = Cause(
            now_us, now_us, f"held:{since}", symbol_of_leaf(first.leaf, rule.definition),
            source_of_leaf(first.leaf, rule.definition), data={"held_since_ms": since // 1000},
        )  # fmt: skip
        self.collect(rule.held(cause, values[0] if values else None), attachment, fired)

    def _schedule(self, rule: Rule) -> None:
        since = rule.runtime.pending_since_us
        if since is None:
            return
        due = since + rule.definition.for_seconds * 1_000_000
        if self._due.get(rule.id) != due:
            self._due[rule.id] = due
            heapq.heappush(self._holding, (due, rule.id))

    def _reconsider(
        self, attachment: Attachment, cause: Cause, value: Number | None, fired: list[Firing]
    ) -> None:
        """A leaf of a composite may have changed: the whole is looked at again."""
        rule = attachment.rule
        before, after = rule.runtime.truth, attachment.truth(self.registry.value)
        if after is None or after is before:
            return
        if before is None:
            rule.note_truth(after)
        elif after:
            self.collect(rule.enter(cause, value, None, "none"), attachment, fired)
        else:
            self.collect(rule.leave(cause, value, None), attachment, fired)

    def _take_over(self, attachment: Attachment, now_us: int, fired: list[Firing]) -> None:
        """Account for what happened between the rule's creation (or the last look at it) and now."""
        rule = attachment.rule
        fresh, known = not rule.runtime.evaluated, rule.runtime.truth
        rule.runtime.evaluated = True
        rule.dirty = rule.dirty or fresh
        cause = Cause(
            now_us, now_us, f"armed:{rule.armed_ms}", rule.definition.symbol or "", rule.definition.source
        )
        self._stand_where_made(attachment, cause, fired)
        truth = attachment.truth(self.registry.value)
        if rule.runtime.fire_now:
            rule.runtime.fire_now = False
            self.collect(rule.enter(cause, rule.created_price, None, "none"), attachment, fired)
            return
        if attachment.is_composite or (rule.tracks_end and not fresh):
            if truth and known is False:
                self.collect(rule.enter(cause, None, None, "none"), attachment, fired)
            elif truth is False and known:
                self.collect(rule.leave(cause, None, None), attachment, fired)
            elif truth is not None:
                rule.note_truth(truth)
            return
        metrics = attachment.views[0].metrics
        if not fresh or rule.created_price is None or not metrics or metrics[0].kind != "price":
            return
        now = self.registry.value(metrics[0])
        for _, metric, edge, threshold, wire in list(attachment.strands):
            if (
                now is not None
                and wire.role is Role.ENTER
                and edge.is_between(threshold, rule.created_price, now)
            ):
                assert metric == metrics[0]
                self.hit(wire, now, threshold, edge, cause, fired)

    def _stand_where_made(self, attachment: Attachment, cause: Cause, fired: list[Firing]) -> None:
        """Of a market that nothing was heard of yet the price at which a rule was made is known: the first one is a step from there."""
        rule, metrics = attachment.rule, attachment.views[0].metrics
        price = rule.created_price
        if price is None or attachment.is_composite or not metrics or metrics[0].kind != "price":
            return
        market = self.registry.market(metrics[0].symbol, metrics[0].source)
        if market.at_us or rule.armed_ms < market.said_ms:
            return
        market.said_ms = rule.armed_ms
        for wire, threshold, edge in market.index.move(price):
            if wire.attachment is not attachment:
                self.hit(wire, price, threshold, edge, cause, fired)

    def _attach(self, attachment: Attachment, at: int) -> None:
        """Hang a leaf on what it watches."""
        rule, view = attachment.rule, attachment.views[at]
        leaf = view.leaf
        if isinstance(leaf, SignalCondition):
            self.signals.setdefault(_signal_key(view), {})[rule.id] = attachment
            return
        if isinstance(leaf, NewListing):
            self.listings[rule.id] = attachment
            return
        market: Market | None = None
        if not isinstance(leaf, PortfolioCondition):
            symbol = symbol_of_leaf(leaf, rule.definition)
            for source in _sources(view):
                market = self.registry.market(symbol, source)
                market.users += 1
                attachment.markets.append(market)
        if isinstance(leaf, Trailing) and market is not None:
            anchor = rule.runtime.anchor or rule.created_price or market.price
            self.follow(Wire(attachment, at, Role.ENTER), market, anchor)
        elif (
            isinstance(leaf, PctChange)
            and leaf.ref == "since_created"
            and view.anchor is None
            and market is not None
        ):
            market.waiting.append(Wire(attachment, at, Role.ENTER))
            if market.price is not None:
                market.waiting.pop()
                self.anchor(Wire(attachment, at, Role.ENTER), market, market.price)
        else:
            self._string(attachment, at)

    def _string(self, attachment: Attachment, at: int) -> None:
        """Add a leaf's thresholds to their indexes."""
        view = attachment.views[at]
        track = attachment.is_composite or attachment.rule.tracks_end
        wires = {role: Wire(attachment, at, role) for role in Role}
        for metric in view.metrics:
            self.registry.index(metric)
        for metric, edge, threshold, role in view.wires(track=track):
            levels = self.registry.index(metric)
            levels.add(edge, threshold, wires[role])
            attachment.strands.append(Strand(levels, metric, edge, threshold, wires[role]))


def _view(leaf: Leaf, rule: Rule) -> LeafView:
    anchor = rule.runtime.anchor if rule.runtime.anchor is not None else rule.created_price
    return LeafView(leaf, rule.definition, rule.user_id, anchor)


def _sources(view: LeafView) -> tuple[str, ...]:
    if isinstance(view.leaf, Spread):
        return (view.leaf.venue_a, view.leaf.venue_b)
    return (source_of_leaf(view.leaf, view.definition),)


def _signal_key(view: LeafView) -> tuple[str, str]:
    assert isinstance(view.leaf, SignalCondition)
    return view.leaf.kind, symbol_of_leaf(view.leaf, view.definition)
