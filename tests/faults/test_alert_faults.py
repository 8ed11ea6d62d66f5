"""The alerts service killed at random while prices cross its rules: each rule told of what it must, once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.crossings import Verdict, judge_crossings, newest_trade, trades_since
from tests.faults.report import Report, Stopwatch
from tests.faults.rules import book_price, make_rules, play_path
from tests.faults.stand import Stand
from tools.harness.receiver import Receiver

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.alerts]

QUICK_KILLS, FULL_KILLS = 5, int(os.environ.get("CRYPTOPULSE_FAULT_KILLS", "50"))
SECONDS_PER_KILL = 5.0
RISES = 3
STORM = 300
TAKEN_OVER_SECONDS = 60.0


async def events_of(stand: Stand, rules: dict[str, Any]) -> dict[str, list[str]]:
    """Rule -> ids of its events."""
    rows = await stand.rows(
        "SELECT rule_id, id FROM alerts.events WHERE rule_id = ANY($1) AND type = 'alert.triggered'",
        list(rules),
    )
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        found[row["rule_id"]].append(row["id"])
    return found


async def with_others(stand: Stand, kill: int, dice: random.Random) -> None:
    """Broker and Postgres die once each in a long run."""
    if kill == FULL_KILLS // 3:
        stand.servers.kill("postgres")
        await asyncio.sleep(dice.uniform(1, 3))
        await stand.servers.revive("postgres")
    if kill == FULL_KILLS * 2 // 3:
        stand.servers.kill("rabbitmq")
        await asyncio.sleep(dice.uniform(1, 3))
        await stand.servers.revive("rabbitmq")


async def play(stand: Stand, dice: random.Random, kills: int, *, others: bool) -> None:
    """Kill and start the service at random moments while the price rises over all thresholds."""
    base = await book_price(stand)
    report = Report(14, f"alerts SIGKILL {kills} times" + (", broker and Postgres once" if others else ""))
    async with Receiver() as receiver:
        headers = stand.token(f"alerts-{dice.getrandbits(40)}")
        rules = await make_rules(stand, headers, receiver.url, base)
        every = await make_rules(stand, headers, None, base, ("every_cross",))
        first = await newest_trade(stand, "binance", "BTC-USDT")
        await play_path(stand, base, kills * SECONDS_PER_KILL, rises=RISES)
        try:
            for kill in range(kills):
                await asyncio.sleep(dice.uniform(0.2, SECONDS_PER_KILL - 2))
                stand.kill("alerts")
                await asyncio.sleep(dice.uniform(0.0, 1.0))
                stand.start("alerts")
                if others:
                    await with_others(stand, kill, dice)
                if dice.random() < 0.7:
                    await stand.until_alive("alerts")
            watch = Stopwatch()
            await stand.until_ready("alerts")
            await all_told(stand, rules, receiver)
            report.recovery_s = watch.seconds()
            await asyncio.sleep(3)
            await judge(stand, rules, receiver, report)
            verdict = await told_of_crossings(
                stand, {rule: level for rule, (_, level) in every.items()}, first
            )
            report.lost = (report.lost or 0) + verdict.lost
            report.doubled = (report.doubled or 0) + verdict.doubled
            report.notes["every_cross"] = verdict
        finally:
            await stand.control("DELETE", "/script/binance/BTC-USDT")
    report.close()


async def all_told(stand: Stand, rules: dict[str, Any], receiver: Receiver) -> None:
    """Wait until every rule has an event and a delivery; what never comes is the judge's to tell."""

    async def told() -> bool:
        found = await events_of(stand, rules)
        delivered = {hook.body["data"].get("alert_id") for hook in receiver.hooks}
        return set(rules) <= set(found) and set(rules) <= delivered

    try:
        await stand.until(told, what="every rule fired and was delivered", of="alerts", seconds=150)
    except AssertionError as error:
        if "ended with" in str(error):
            raise


async def told_of_crossings(stand: Stand, levels: dict[str, Decimal], first: int) -> Verdict:
    """The verdict once nothing is untold; at the latest when the shards of the dead have long been taken over.

    Who is killed every three seconds may hold no shard for a minute; ticks wait in its queue, and are told when one lives.
    """
    trades = await trades_since(stand, "binance", "BTC-USDT", first)
    deadline = time.monotonic() + TAKEN_OVER_SECONDS
    while (verdict := await judge_crossings(stand, levels, trades)).lost and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return verdict


async def judge(
    stand: Stand, rules: dict[str, tuple[str, Decimal]], receiver: Receiver, report: Report
) -> None:
    """Once and cooldown rules: exactly one event, at least one delivery, under one id."""
    events = await events_of(stand, rules)
    ids: dict[str, set[str]] = defaultdict(set)
    for hook in receiver.hooks:
        if hook.body["type"] == "alert.triggered":
            ids[hook.body["data"]["alert_id"]].add(hook.headers["webhook-id"])
    crossed = await crossed_by_the_ledger(stand, rules)
    report.sent = len(crossed)
    report.handled = sum(len(events[rule]) for rule in rules)
    report.confirmed = sum(len(ids[rule]) for rule in rules)
    report.duplicates = (
        len([h for h in receiver.hooks if h.body["type"] == "alert.triggered"]) - report.confirmed
    )
    untold = [rule for rule in crossed if not events[rule] or not ids[rule]]
    report.lost = len(untold)
    report.doubled = sum(max(0, len(events[rule]) - 1) + max(0, len(ids[rule]) - 1) for rule in rules)
    if untold:
        report.notes["untold"] = [(rules[rule], len(events[rule]), len(ids[rule])) for rule in untold[:4]]
    for rule in rules:
        assert ids[rule] <= set(events[rule]), "a delivery without an event"
    late = await stand.rows(
        "SELECT count(*) AS n FROM alerts.events WHERE late AND rule_id = ANY($1)", list(rules)
    )
    report.notes["late"] = late[0]["n"]


async def crossed_by_the_ledger(stand: Stand, rules: dict[str, tuple[str, Decimal]]) -> list[str]:
    """The rules whose threshold the venue's own trades reached."""
    book = await stand.control("GET", "/ledger/binance/BTC-USDT")
    highest = max(Decimal(minute["high"]) for minute in book["minutes"])
    return [rule for rule, (_, threshold) in rules.items() if highest >= threshold]


@pytest.mark.quick
@pytest.mark.timeout(300)
async def test_14_alerts_killed_five_times(stand: Stand, dice: random.Random) -> None:
    await play(stand, dice, QUICK_KILLS, others=False)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_14_alerts_killed_fifty_times(stand: Stand, dice: random.Random) -> None:
    await play(stand, dice, FULL_KILLS, others=True)


@pytest.mark.timeout(300)
async def test_25_alert_storm(stand: Stand) -> None:
    """300 rules cross in one trade: each fires once; what is over the user's budget is stored and told in a summary."""
    report = Report(25, "300 rules on one trade")
    headers = stand.token("storm")
    await stand.control("POST", "/fault", json={"kind": "quiet", "venue": "coinbase", "symbol": "SOL-USD"})
    top = Decimal((await stand.control("GET", "/trades/coinbase/SOL-USD", params={"limit": 1}))[-1]["price"])
    condition = {"type": "price_cross_up", "value": str((top * 2).quantize(Decimal("0.01")))}
    made = 0
    while made < STORM:
        rule = {"symbol": "SOL-USD", "source": "coinbase", "condition": condition, "note": f"storm {made}"}
        answer = await stand.client.post("/v1/alerts", json=rule, headers=headers)
        if "retry-after" in answer.headers:
            await asyncio.sleep(float(answer.headers["retry-after"]))
            continue
        assert answer.status_code == 201, answer.text
        made += 1

    async def count(query: str) -> int:
        return int((await stand.rows(query))[0]["n"])

    waiting = (
        "SELECT count(*) AS n FROM alerts.rules WHERE user_id = 'storm' AND (runtime->>'evaluated')::bool"
    )
    stored = "SELECT count(*) AS n FROM alerts.events WHERE user_id = 'storm' AND type = 'alert.triggered'"

    async def ready() -> bool:
        return await count(waiting) == STORM

    async def fired() -> bool:
        return await count(stored) >= STORM

    await stand.until(ready, what="all rules are evaluated", of="alerts")
    watch = Stopwatch()
    trade = {"venue": "coinbase", "symbol": "SOL-USD", "price": str(top * 3)}
    await stand.control("POST", "/trade", json=trade)
    await stand.until(fired, what="every rule fired", of="alerts")
    report.recovery_s = watch.seconds()
    await asyncio.sleep(2)
    report.sent, report.handled = STORM, await count(stored)
    report.lost, report.doubled = max(0, STORM - report.handled), max(0, report.handled - STORM)
    report.close()


@pytest.mark.timeout(300)
async def test_15_webhook_receivers_hostile(stand: Stand) -> None:
    """One refuses, one never answers, one is not there: the good one beside them gets all of its own."""
    report = Report(15, "hostile webhook receivers beside a good one")
    base = await book_price(stand)
    pid = stand.processes["alerts"].pid
    mute = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    mute_port = mute.sockets[0].getsockname()[1]
    async with Receiver() as good, Receiver(status=500) as bad, mute:
        rules = await make_rules(stand, stand.token("good"), good.url, base, ("once",))
        for number, url in enumerate((bad.url, f"http://127.0.0.1:{mute_port}/", "http://127.0.0.1:9/")):
            await make_rules(stand, stand.token(f"bad{number}"), url, base, ("once",))
        watch = Stopwatch()
        await play_path(stand, base, 10)
        try:
            await all_told(stand, rules, good)
        finally:
            await stand.control("DELETE", "/script/binance/BTC-USDT")
        report.recovery_s = watch.seconds()
        await judge(stand, rules, good, report)
        report.notes["refused"] = len(bad.hooks)
    pending = await stand.rows(
        "SELECT count(*) AS n FROM alerts.deliveries WHERE user_id LIKE 'bad%' AND status IN ('pending', 'delivering')"
    )
    report.notes["wait_for_retry"] = pending[0]["n"]
    report.close()
    assert stand.processes["alerts"].pid == pid
    assert stand.is_running("alerts")
    assert pending[0]["n"] == 60
