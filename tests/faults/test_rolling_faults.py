"""A rolling restart of all five services under load: no request fails, the socket resumes, nothing is a dead letter."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.balanced import AlertSocket, Requests
from tests.faults.report import Report, Stopwatch
from tests.faults.rules import book_price, make_rules, play_path
from tests.faults.stand import BEHIND, Stand
from tests.faults.test_route_faults import dead_letters

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.rolling, pytest.mark.timeout(600)]

PATH_SECONDS = 150.0


async def roll_behind(stand: Stand, service: str) -> list[int]:
    """A second replica, traffic to it, the first anew, traffic back: as a deployment does it. The exit codes."""
    second = f"{service}2"
    stand.start(second)
    await stand.until_ready(second)
    stand.turn(service, second)
    first = await stand.retire(service)
    stand.start(service)
    await stand.until_ready(service)
    stand.turn(service, service)
    return [first, await stand.retire(second)]


async def roll_gateway(stand: Stand, requests: Requests) -> list[int]:
    """The same for the public door: a load balancer takes a target out before it is told to end."""
    stand.start("gateway2")
    await stand.until_ready("gateway2")
    requests.rotation = ["gateway", "gateway2"]
    await asyncio.sleep(2)
    requests.rotation = ["gateway2"]
    first = await stand.retire("gateway")
    stand.start("gateway")
    await stand.until_ready("gateway")
    requests.rotation = ["gateway"]
    return [first, await stand.retire("gateway2")]


async def test_18_rolling_restart(stand: Stand) -> None:
    report = Report(18, "rolling restart of all five under load")
    headers = stand.token("rolling")
    base = await book_price(stand)
    rules = await make_rules(stand, headers, None, base, kinds=("once",))
    watch = Stopwatch()
    async with Requests(stand, headers) as requests, AlertSocket(stand, headers, requests) as socket:
        await play_path(stand, base, PATH_SECONDS)
        codes = []
        for service in BEHIND:
            codes += await roll_behind(stand, service)
        codes += await roll_gateway(stand, requests)

        async def told() -> bool:
            return len(set(socket.events)) >= len(rules)

        try:
            await stand.until(told, what="the socket heard every rule", seconds=PATH_SECONDS + 60)
        finally:
            await stand.control("DELETE", "/script/binance/BTC-USDT")
    rows = await stand.rows(
        "SELECT id FROM alerts.events WHERE user_id = 'rolling' AND type = 'alert.triggered'"
    )
    stored = {row["id"] for row in rows}
    report.sent, report.handled = len(rules), len(set(socket.events))
    report.confirmed = len(stored)
    report.lost = len(stored - set(socket.events))
    report.doubled = len(rows) - len(rules)
    report.duplicates = len(socket.events) - len(set(socket.events))
    report.recovery_s = watch.seconds()
    report.notes |= {
        "requests": requests.done,
        "failed": len(requests.failed),
        "socket_closes": socket.codes,
        "hints": socket.hints,
        "codes": sorted(set(codes)),
        "dead_letters": await dead_letters(stand),
    }
    report.close()
    assert not requests.failed, requests.failed[:10]
    assert set(codes) == {0}, codes
    assert socket.hints >= 2
    assert set(socket.codes) <= {1012}
    assert all(socket.resumed)
    assert not await dead_letters(stand)
