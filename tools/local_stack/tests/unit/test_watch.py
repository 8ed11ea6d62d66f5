"""What a person is told of the running system: the first prices, and each change of its health once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tools.local_stack import watch
from tools.local_stack.api import Api, price_line
from tools.local_stack.watch import history_words, unwell_checks


class FakeApi(Api):
    """Answers of the gateway, one after the other; the last one stays."""

    answers: dict[str, list[tuple[int, dict[str, Any]]]]

    def __init__(self, **answers: list[tuple[int, dict[str, Any]]]) -> None:
        super().__init__("127.0.0.1", 8000)
        object.__setattr__(self, "answers", answers)

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/v1/status" and "status" not in self.answers:
            return 404, {}
        kind = {"/health/": "health", "/v1/status": "status"}.get(path, "prices")
        queue = self.answers[kind]
        return queue.pop(0) if len(queue) > 1 else queue[0]


def a_price(symbol: str = "BTC-USD", **more: Any) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "price": "67000.5",
        "status": "ok",
        "source": "consolidated",
        "stale": False,
        **more,
    }


def a_health(status: str, **checks: bool) -> tuple[int, dict[str, Any]]:
    return 200, {
        "status": status,
        "checks": {name: {"ok": ok, "detail": f"{name} says"} for name, ok in checks.items()},
    }


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(watch, "say", lambda who, text: lines.append(f"{who}: {text}"))
    for name in ("_POLL_SECONDS", "_HEALTH_SECONDS", "_HISTORY_SECONDS", "_MOVED_SECONDS"):
        monkeypatch.setattr(watch, name, 0.0)
    return lines


async def watch_for_a_while(api: Api, symbols: str = "BTC-USD") -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await watch.watch(api, symbols, began=0.0)


async def test_the_first_price_is_waited_for_and_shown(told: list[str]) -> None:
    api = FakeApi(prices=[(0, {}), (404, {}), (200, a_price())], health=[a_health("ok")])
    await watch_for_a_while(api)
    assert any("http://127.0.0.1:8000" in line for line in told)
    assert any("BTC-USD" in line and "67000.5" in line for line in told)
    assert any(line.startswith("prices: first price") for line in told)


async def test_a_stale_price_is_no_first_price(told: list[str]) -> None:
    await watch_for_a_while(FakeApi(prices=[(200, a_price(stale=True))], health=[a_health("ok")]))
    assert told == []


async def test_health_is_told_when_it_changes_and_only_then(told: list[str]) -> None:
    health = (
        [a_health("ok", redis=True)] * 3
        + [a_health("degraded", redis=False)] * 3
        + [a_health("ok", redis=True)]
    )
    await watch_for_a_while(FakeApi(prices=[(200, a_price())], health=health))
    assert [line for line in told if line.startswith("health")] == [
        "health: ok",
        "health: degraded (redis: redis says)",
        "health: ok",
    ]


async def test_a_gateway_that_went_away_is_told(told: list[str]) -> None:
    await watch_for_a_while(FakeApi(prices=[(200, a_price())], health=[a_health("ok"), (0, {})]))
    assert told[-1] == "health: the gateway does not answer"


def a_status(done: int, candles: int) -> tuple[int, dict[str, Any]]:
    progress = {"series_total": 6, "series_done": done, "candles": candles}
    feeds = [{"venue": "binance", "history": progress}, {"venue": "coinbase", "history": None}]
    return 200, {"data": feeds}


async def test_the_progress_of_history_is_told_when_it_changes(told: list[str]) -> None:
    status = [(0, {}), *([a_status(2, 3_000)] * 3), *([a_status(6, 8_730)] * 2)]
    await watch_for_a_while(FakeApi(prices=[(200, a_price())], health=[a_health("ok")], status=status))
    assert [line for line in told if line.startswith("history")] == [
        "history: binance 2 of 6 series, 3,000 candles",
        "history: binance all 6 series, 8,730 candles",
    ]


def test_a_status_of_another_shape_says_nothing_of_history() -> None:
    odds: list[Any] = [None, {}, ["x"], [{"history": 3}], [{"history": {"series_total": 0}}]]
    for odd in odds:
        assert history_words(odd) == ""


def test_only_checks_that_fail_are_unwell() -> None:
    checks = {"bus": {"ok": False, "detail": "away"}, "redis": {"ok": True, "detail": "fine"}, "odd": 3}
    assert unwell_checks(checks) == {"bus": "away"}
    assert unwell_checks(None) == {}


def test_a_simulated_price_is_marked() -> None:
    assert "SIMULATED" in price_line(a_price(simulated=True, sources_used=["binance", "coinbase"]))
    assert "SIMULATED" not in price_line(a_price())
