"""Every condition and behaviour on scripted prices: what fires, when, and what does not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest

from cryptopulse.alerts.domain.cooldown import Runtime
from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.rules import Firing, Rule
from cryptopulse.alerts.entrypoints.stream import _on_portfolio as on_portfolio
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal, SignalStatus, Warmup
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.portfolio import PortfolioValueBatch, PortfolioValued
from cryptopulse.common.testing.builders import START_US, a_candle, a_price_update, a_tick_batch, a_trade

SECOND = 1_000_000
START_MS = START_US // 1000


def a_definition(condition: dict[str, Any], **more: Any) -> RuleDefinition:
    return RuleDefinition.model_validate(
        {"symbol": "BTC-USDT", "source": "binance", "condition": condition, "trigger": "every_cross"} | more
    )


def a_rule(condition: dict[str, Any], *, name: str = "al_1", **more: Any) -> Rule:
    own = {"created_price", "expires_ms", "snoozed_until_ms", "runtime", "armed_ms", "state"}
    return Rule(
        name,
        "ann",
        1,
        a_definition(condition, **{key: value for key, value in more.items() if key not in own}),
        **{key: value for key, value in more.items() if key in own},
    )


def above(value: object, kind: str = "price_above") -> dict[str, Any]:
    return {"type": kind, "value": str(value)}


class Script:
    """An engine on which prices of BTC-USDT at binance are played, one a second."""

    def __init__(self, *rules: Rule) -> None:
        self.engine = ShardEngine()
        self.at = START_US
        self.next_id = 1
        self.fired: list[Firing] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        self.fired += self.engine.add(rule, self.at)

    def play(
        self, *prices: object, step: float = 1.0, symbol: str = "BTC-USDT", venue: str = "binance"
    ) -> list[str]:
        """The kinds of events these prices cause, as `<price>` or `<kind>@<price>` for what is no trigger."""
        before = len(self.fired)
        for price in prices:
            self.at += round(step * SECOND)
            trade = a_trade(
                symbol, price=str(price), trade_id=self.next_id, event_us=self.at, received_us=self.at
            )
            self.next_id += 1
            self.fired += self.engine.on_ticks(a_tick_batch([trade], venue=venue), self.at)
            self.fired += self.engine.on_time(self.at)
        return [label(firing) for firing in self.fired[before:]]

    def wait(self, seconds: float) -> list[str]:
        before = len(self.fired)
        self.at += round(seconds * SECOND)
        self.fired += self.engine.on_time(self.at)
        return [label(firing) for firing in self.fired[before:]]


def label(firing: Firing) -> str:
    price = "-" if firing.price is None else f"{firing.price:f}"
    return price if firing.type == "alert.triggered" else f"{firing.type.removeprefix('alert.')}@{price}"


@pytest.mark.parametrize(
    ("condition", "prices", "expected"),
    [
        (above(100), [99, 100, 101, 99, 100], ["100", "100"]),
        (above(100, "price_below"), [101, 100, 99, 101, 99], ["100", "99"]),
        (above(100, "price_cross_up"), [99, 101, 99, 100], ["101", "100"]),
        (above(100, "price_cross_down"), [101, 99, 101, 100], ["99", "100"]),
        (above(100, "price_cross"), [99, 101, 99, 99, 101], ["101", "99", "101"]),
        (
            {"type": "price_enter_range", "low": "90", "high": "110"},
            [80, 90, 100, 120, 110, 80],
            ["90", "110"],
        ),
        ({"type": "price_enter_range", "low": "90", "high": "110"}, [80, 120, 100], ["100"]),
        (
            {"type": "price_exit_range", "low": "90", "high": "110"},
            [100, 90, 89, 120, 110, 111],
            ["89", "111"],
        ),
        (
            {"type": "pct_change", "pct": "5", "window": "1m", "direction": "up"},
            [100, 104, 105, 106],
            ["105"],
        ),
        ({"type": "pct_change", "pct": "5", "window": "1m", "direction": "down"}, [100, 96, 95, 94], ["95"]),
        ({"type": "pct_change", "pct": "5", "window": "1m"}, [100, 95, 100], ["95", "100"]),
        ({"type": "trailing", "pct": "10"}, [100, 120, 109, 108, 119, 107.2, 107.1], ["108", "107.1"]),
        ({"type": "trailing", "pct": "10", "from": "low"}, [100, 80, 87, 88], ["88"]),
    ],
)
def test_a_condition_fires_at_its_prices(
    condition: dict[str, Any], prices: list[float], expected: list[str]
) -> None:
    assert Script(a_rule(condition)).play(*prices) == expected


def test_a_change_since_creation_is_measured_from_the_price_then() -> None:
    rule = a_rule({"type": "pct_change", "pct": "10", "ref": "since_created"}, created_price=Decimal(100))
    assert Script(rule).play(105, 109, 110, 90.1, 90) == ["110", "90"]


def test_a_change_since_creation_without_a_price_takes_the_first_one() -> None:
    rule = a_rule({"type": "pct_change", "pct": "10", "ref": "since_created", "direction": "up"})
    script = Script(rule)
    assert script.play(200, 219, 220) == ["220"]
    assert rule.runtime.anchor == 200


def test_a_rolling_change_forgets_what_left_its_window() -> None:
    rule = a_rule({"type": "pct_change", "pct": "5", "window": "1m", "direction": "up"})
    script = Script(rule)
    assert script.play(100, 103) == []
    assert script.play(103, step=61) == []
    assert script.play(106) == []
    assert script.play(108.2) == ["108.2"]


def test_once_fires_once_and_is_over() -> None:
    rule = a_rule(above(100), trigger="once")
    script = Script(rule)
    assert script.play(99, 100, 99, 100) == ["100"]
    assert rule.state == "completed"
    assert len(script.engine) == 0


def test_max_triggers_ends_the_rule() -> None:
    rule = a_rule(above(100), max_triggers=2)
    assert Script(rule).play(99, 100, 99, 100, 99, 100) == ["100", "100"]
    assert rule.state == "completed"


def test_recurring_keeps_its_cooldown() -> None:
    rule = a_rule(above(100), trigger="recurring", cooldown_seconds=10)
    script = Script(rule)
    assert script.play(99, 101, 99, 102, 99, 103) == ["101"]
    assert rule.state == "cooldown"
    script.wait(10)
    assert script.play(99, 104) == ["104"]


def test_once_per_bar_fires_in_each_minute_once() -> None:
    script = Script(a_rule(above(100), trigger="once_per_bar", bar_interval="1m"))
    assert script.play(99, 101, 99, 102) == ["101"]
    script.wait(60)
    assert script.play(99, 103, 99, 104) == ["103"]


def test_once_per_bar_close_looks_at_closes_alone() -> None:
    script = Script(a_rule(above(100), trigger="once_per_bar_close", bar_interval="5m"))
    assert script.play(99, 150, 99) == []
    fired = []
    for number, close in enumerate([99, 101, 102, 98, 100]):
        candle = a_candle(
            source="binance", interval="5m", open_time=number * 300_000, open=99, high=500, low=1, close=close
        )
        fired += script.engine.on_candle(candle, script.at)
        fired += script.engine.on_candle(candle, script.at)
    assert [label(firing) for firing in fired] == ["101", "100"]


def test_hysteresis_wants_the_price_back_before_it_fires_again() -> None:
    rule = a_rule(above(100), hysteresis={"abs": "5"})
    script = Script(rule)
    assert script.play(99, 100, 98, 101, 96, 102) == ["100"]
    assert rule.state == "recovering"
    assert script.play(95) == []
    assert rule.state == "armed"
    assert script.play(100) == ["100"]


def test_hysteresis_of_a_cross_wants_distance_on_either_side() -> None:
    script = Script(a_rule(above(100, "price_cross"), hysteresis={"pct": "2"}))
    assert script.play(99, 100, 99, 101, 99, 102, 99) == ["100", "99"]


def test_a_condition_that_must_hold_fires_after_that_time_and_not_when_it_broke() -> None:
    rule = a_rule(above(100), for_seconds=10)
    script = Script(rule)
    assert script.play(99, 101) == []
    assert rule.state == "pending"
    script.wait(5)
    assert script.play(99) == []
    assert rule.state == "armed"
    assert script.play(101) == []
    assert script.wait(9.5) == []
    assert script.wait(1) == ["101"]
    assert script.wait(100) == []


def test_resolution_is_told_when_asked_for() -> None:
    rule = a_rule(above(100), trigger="once", notify_resolved=True)
    script = Script(rule)
    assert script.play(99, 101, 105) == ["101"]
    assert rule.state == "firing"
    assert script.play(100, 99) == ["resolved@99"]
    assert rule.state == "completed"


def test_expiry_is_told_once_and_nothing_fires_after() -> None:
    rule = a_rule(above(100), expires_ms=START_MS + 5_000)
    script = Script(rule)
    assert script.play(99) == []
    assert script.wait(10) == ["expired@-"]
    assert script.play(101) == []
    assert rule.state == "expired"


def test_a_snoozed_rule_is_silent_and_awake_again_after() -> None:
    script = Script(a_rule(above(100), state="snoozed", snoozed_until_ms=START_MS + 10_000))
    assert script.play(99, 101) == []
    script.wait(10)
    assert script.play(99, 101) == ["101"]


def test_a_paused_rule_is_not_evaluated() -> None:
    script = Script(a_rule(above(100), state="paused"))
    assert len(script.engine) == 0


def test_what_is_true_at_creation_waits_for_a_cross_unless_told_to_fire() -> None:
    waits = a_rule(above(100), name="al_waits", created_price=Decimal(150), runtime=Runtime(truth=True))
    fires = a_rule(
        above(100), name="al_fires", created_price=Decimal(150), runtime=Runtime(truth=True, fire_now=True)
    )
    script = Script(waits, fires)
    assert [firing.rule_id for firing in script.fired] == ["al_fires"]
    assert script.play(150, 160) == []
    assert len(script.play(99, 101)) == 2


def test_a_crossing_between_creation_and_the_first_look_is_not_lost() -> None:
    script = Script(a_rule(above(90, "price_below"), name="al_0"))
    script.play(95, 105)
    script.add(a_rule(above(100), created_price=Decimal(95), runtime=Runtime(truth=False)))
    assert [label(firing) for firing in script.fired] == ["105"]
    script.engine.remove("al_1")
    script.add(a_rule(above(100), created_price=Decimal(95), runtime=Runtime(truth=False, evaluated=True)))
    assert len(script.fired) == 1


def test_the_first_price_of_a_silent_market_is_a_step_from_where_a_rule_was_made() -> None:
    rules = [(above(100), False), (above(100), True)]
    rules += [(above(100, kind), False) for kind in ("price_cross_up", "price_cross")]
    for condition, told in rules:
        for known in (False, True):
            runtime = Runtime(truth=False, evaluated=known)
            rule = a_rule(condition, created_price=Decimal(95), runtime=runtime, notify_resolved=told)
            script = Script(rule)
            assert script.engine.positions() == []
            assert script.play(105) == ["105"]
            assert [position.price for position in script.engine.positions()] == [105]
    script = Script(a_rule(above(100), created_price=Decimal(105), runtime=Runtime(truth=True)))
    assert script.play(106) == []


def test_of_a_silent_market_the_newest_rule_knows_the_newest_price() -> None:
    first = a_rule(above(100), name="al_1", created_price=Decimal(95), armed_ms=1_000)
    second = a_rule(above(102), name="al_2", created_price=Decimal(105), armed_ms=2_000)
    for rules in ((first, second), (second, first)):
        again = [
            a_rule(above(100 if rule is first else 102), name=rule.id, created_price=rule.created_price, armed_ms=rule.armed_ms)
            for rule in rules
        ]  # fmt: skip
        script = Script(*again)
        assert [firing.rule_id for firing in script.fired] == ["al_1"]
        assert script.play(106) == []


def test_repeated_and_older_ticks_change_nothing() -> None:
    script = Script(a_rule(above(100)))
    script.play(99, 101, 99)
    before = len(script.fired)
    for number in (1, 2, 3, 2):
        old = a_trade(price="150", trade_id=number, event_us=script.at)
        script.fired += script.engine.on_ticks(a_tick_batch([old]), script.at)
    assert len(script.fired) == before == 1


def test_the_same_input_handled_again_makes_the_same_dedupe_key() -> None:
    keys = []
    for _ in range(2):
        script = Script(a_rule(above(100)))
        script.play(99, 101)
        keys.append(script.fired[0].dedupe_key)
    assert keys[0] == keys[1]


def test_a_spread_is_measured_between_two_venues() -> None:
    script = Script(a_rule({"type": "spread", "venue_a": "binance", "venue_b": "coinbase", "pct": "2"}))
    assert script.play(100) == []
    script.next_id = 1
    assert script.play(101, venue="coinbase") == []
    assert script.play(103, venue="coinbase") == ["2.95566502463"]


def test_a_quiet_feed_is_told_and_its_return_too() -> None:
    script = Script(a_rule({"type": "stale_feed", "seconds": 30}, notify_resolved=True))
    script.play(100)
    assert script.wait(29) == []
    assert script.wait(2) == ["31"]
    assert script.wait(100) == []
    assert [kind.partition("@")[0] for kind in script.play(100)] == ["resolved"]


def test_a_volume_spike_is_told_for_each_bar() -> None:
    script = Script(a_rule({"type": "volume_spike", "factor": "3", "interval": "5m", "bars": 2}))
    fired = []
    for number, volume in enumerate([10, 10, 29, 30, 100, 10]):
        candle = a_candle(source="binance", interval="5m", open_time=number * 300_000, volume=volume)
        fired += script.engine.on_candle(candle, script.at)
    assert [(firing.cause.data["open_time"], label(firing)) for firing in fired] == [
        (1_200_000, "3.38983050847")
    ]


def indicator(
    values: dict[str, float | None], at: int, *, closed: bool = True, seq: int = 1
) -> IndicatorUpdate:
    return IndicatorUpdate(
        symbol="BTC-USDT", source="binance", interval="1h", open_time=at * 3_600_000, closed=closed, revision=0,
        as_of_us=at * 3_600_000_000, seq=seq, values=values, warmup=Warmup(have=500, needed=300, converged=True), close=100.0,
    )  # fmt: skip


def test_an_indicator_is_compared_on_closed_bars_only_unless_told() -> None:
    on_close = a_rule(
        {"type": "indicator", "output": "rsi_14", "op": "above", "value": "70"}, name="al_close"
    )
    live = a_rule(
        {"type": "indicator", "output": "rsi_14", "op": "above", "value": "70", "on": "live"}, name="al_live"
    )
    script = Script(on_close, live)
    fired: list[Firing] = []
    for update in [
        indicator({"rsi_14": 60.0}, 1),
        indicator({"rsi_14": 60.0}, 2, closed=False, seq=1),
        indicator({"rsi_14": 75.0}, 2, closed=False, seq=2),
        indicator({"rsi_14": None}, 2),
        indicator({"rsi_14": 71.0}, 3),
        indicator({"rsi_14": 99.0}, 3),
    ]:
        fired += script.engine.on_indicators(update, script.at)
    assert [(firing.rule_id, label(firing)) for firing in fired] == [("al_live", "75"), ("al_close", "71")]


def test_two_outputs_cross_each_other() -> None:
    script = Script(a_rule({"type": "indicator", "output": "macd", "op": "cross", "other": "macd_signal"}))
    fired: list[Firing] = []
    for at, (macd, signal) in enumerate([(1.0, 2.0), (2.5, 2.0), (3.0, 2.0), (1.0, 2.0)]):
        fired += script.engine.on_indicators(indicator({"macd": macd, "macd_signal": signal}, at), script.at)
    assert [firing.direction for firing in fired] == ["up", "down"]


def test_a_signal_fires_when_confirmed_and_matching() -> None:
    script = Script(a_rule({"type": "signal", "kind": "macd_cross", "interval": "1h", "direction": "up"}))
    fired: list[Firing] = []
    cases: list[tuple[SignalStatus, Literal["up", "down"], Interval]] = [
        ("pending", "up", "1h"),
        ("confirmed", "down", "1h"),
        ("confirmed", "up", "4h"),
        ("confirmed", "up", "1h"),
        ("withdrawn", "up", "1h"),
    ]
    for status, direction, interval in cases:
        found = Signal(
            id=f"{direction}{interval}", kind="macd_cross", symbol="BTC-USDT", source="binance", interval=interval,
            open_time=1, status=status, direction=direction, at_us=1,
        )  # fmt: skip
        fired += script.engine.on_signal(found, script.at)
    assert len(fired) == 1


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ({"type": "portfolio_value", "portfolio_id": 7, "op": "above", "value": "1000"}, "value"),
        (
            {"type": "portfolio_pnl_pct", "portfolio_id": 7, "op": "above", "value": "1000"},
            "unrealised_pnl_pct",
        ),
        (
            {
                "type": "portfolio_allocation_pct",
                "portfolio_id": 7,
                "op": "above",
                "value": "1000",
                "asset": "BTC",
            },
            "allocation",
        ),
    ],
)
def test_a_portfolio_rule_follows_its_owners_portfolio(condition: dict[str, Any], field: str) -> None:
    script = Script(a_rule(condition, symbol=None))
    assert script.engine.portfolios() == {7}

    def valued(value: object, user: str = "ann", portfolio: int = 7) -> list[Firing]:
        fields: dict[str, Any] = {"value": Decimal(1), "unrealised_pnl_pct": Decimal(1)}
        if field == "allocation":
            fields["allocation_pct"] = {"BTC": Decimal(str(value))}
        else:
            fields[field] = None if value is None else Decimal(str(value))
        one = PortfolioValued(user_id=user, portfolio_id=portfolio, version=1, snapshot_id=f"s{value}", at_ms=1, base_currency="USD", cost=Decimal(1), unrealised_pnl=None, complete=True, **fields)  # fmt: skip
        other = msgspec.structs.replace(one, portfolio_id=99)
        batch = PortfolioValueBatch(part=3, sent_us=1, values=[other, one])
        return on_portfolio(script.engine, batch, script.at)

    assert valued(900) == []
    assert valued(2000, user="bob") == []
    assert valued(2000, portfolio=8) == []
    assert len(valued(1000)) == 1
    assert valued(2000) == []


def test_a_new_listing_is_matched_by_what_was_asked() -> None:
    script = Script(a_rule({"type": "new_listing", "quote": "USDT"}, symbol=None))
    assert script.engine.on_listing("ABC-EUR", "binance", 1) == []
    assert len(script.engine.on_listing("ABC-USDT", "binance", 1)) == 1


def test_a_composite_fires_when_the_whole_becomes_true() -> None:
    condition = {
        "type": "all",
        "conditions": [
            {"type": "price_above", "value": "100"},
            {"type": "not", "conditions": [{"type": "price_above", "value": "200", "symbol": "ETH-USDT"}]},
        ],
    }
    script = Script(a_rule(condition))
    assert script.play(99, 101) == [], "ETH is not known yet"
    script.play(150, symbol="ETH-USDT")
    script.next_id = 1000
    assert script.play(99, 101, 105) == ["101"]
    assert script.play(250, 150, symbol="ETH-USDT") == ["150"]


def test_a_storm_of_ten_thousand_rules_on_one_price_fires_each_once() -> None:
    script = Script(*(a_rule(above(100), name=f"al_{number}", trigger="once") for number in range(10_000)))
    assert script.play(99) == []
    assert len(script.play(100)) == 10_000
    assert len({firing.dedupe_key for firing in script.fired}) == 10_000
    assert script.play(99, 101) == []


def test_consolidated_prices_are_evaluated_between_their_extremes() -> None:
    rule = a_rule(above(100), symbol="BTC-USD", source="consolidated")
    script = Script(rule)
    fired: list[Firing] = []
    for seq, (low, high, price) in enumerate(
        [(90, 90, 90), (89, 101, 95), (90, 99, 91), (90, 100, 99)], start=1
    ):
        fired += script.engine.on_price(
            a_price_update(
                price=price, low=Decimal(low), high=Decimal(high), seq=seq, event_us=START_US + seq
            ),
            script.at,
        )
    assert [label(firing) for firing in fired] == ["101", "100"]
    repeat = a_price_update(price=500, low=Decimal(1), high=Decimal(500), seq=4, event_us=START_US + 5)
    assert script.engine.on_price(repeat, script.at) == []


def test_a_stale_or_fallback_price_moves_nothing() -> None:
    script = Script(a_rule(above(100), symbol="BTC-USD", source="consolidated"))
    fired: list[Firing] = []
    for seq, (price, status) in enumerate(
        [(90, "ok"), (150, "fallback"), (150, "stale"), (91, "ok")], start=1
    ):
        fired += script.engine.on_price(
            a_price_update(price=price, seq=seq, status=status, event_us=START_US), script.at
        )
    assert fired == []


def test_rules_that_are_removed_leave_nothing_behind() -> None:
    kinds = [
        above(100),
        {"type": "pct_change", "pct": "5", "window": "1m"},
        {"type": "trailing", "pct": "10"},
        {"type": "spread", "venue_a": "binance", "venue_b": "coinbase", "pct": "2"},
        {"type": "volume_spike", "factor": "3"},
        {"type": "indicator", "output": "rsi_14", "op": "above", "value": "70"},
        {"type": "stale_feed", "seconds": 30},
        {"type": "signal", "kind": "macd_cross"},
        {"type": "new_listing"},
        {"type": "portfolio_value", "portfolio_id": 7, "op": "above", "value": "1"},
    ]
    script = Script(*(a_rule(condition, name=f"al_{number}") for number, condition in enumerate(kinds)))
    script.play(100, 101)
    for number in range(len(kinds)):
        script.engine.remove(f"al_{number}")
    registry = script.engine._registry
    assert (len(script.engine), registry.markets, registry.indexes, registry.volumes) == (0, {}, {}, {})
    assert registry._families == {}
