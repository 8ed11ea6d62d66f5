"""Rules of a user over a rise of a venue's price, and the path that crosses all of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx

from tests.faults.stand import Stand

RISE = Decimal("0.04")
RULES_OF_A_KIND = 20
KINDS: dict[str, dict[str, Any]] = {
    "once": {"trigger": "once"},
    "cooldown": {"trigger": "recurring", "cooldown_seconds": 3_600},
    "every_cross": {"trigger": "every_cross"},
}


async def book_price(stand: Stand) -> Decimal:
    """The venue's newest trade."""
    rows = await stand.control("GET", "/trades/binance/BTC-USDT", params={"limit": 1})
    return Decimal(rows[-1]["price"])


async def make_rules(
    stand: Stand,
    headers: dict[str, str],
    url: str | None,
    base: Decimal,
    kinds: tuple[str, ...] = ("once", "cooldown"),
) -> dict[str, tuple[str, Decimal]]:
    """Rules with thresholds evenly spread over the rise, once the engine has them: rule -> (kind, threshold)."""
    made = {}
    for kind in kinds:
        for step in range(1, RULES_OF_A_KIND + 1):
            threshold = (base * (1 + RISE * step / (RULES_OF_A_KIND + 1))).quantize(Decimal("0.01"))
            condition = {"type": "price_cross_up", "value": str(threshold)}
            rule = {"symbol": "BTC-USDT", "condition": condition, **KINDS[kind]}
            if url is not None:
                rule["webhook_url"] = url
            answer = await stand.client.post("/v1/alerts", json=rule, headers=headers)
            assert answer.status_code == httpx.codes.CREATED, answer.text
            assert answer.json()["source"] == "binance"
            made[answer.json()["id"]] = (kind, threshold)

    async def evaluated() -> bool:
        rows = await stand.rows(
            "SELECT count(*) AS n FROM alerts.rules WHERE id = ANY($1) AND (runtime->>'evaluated')::bool",
            list(made),
        )
        return bool(rows[0]["n"] == len(made))

    await stand.until(evaluated, what="all rules are evaluated", of="alerts")
    return made


async def play_path(stand: Stand, base: Decimal, seconds: float, *, rises: int = 1) -> None:
    """Let the venue's price rise over all thresholds so many times, falling back between, and stay there at the end."""
    low, top = float(base), float(base * (1 + RISE))
    leg = seconds / (2 * rises - 1)
    path = [[leg * turn, top if turn % 2 else low] for turn in range(2 * rises)]
    path.append([seconds + 3_600, top])
    script = {"venue": "binance", "symbol": "BTC-USDT", "path": path, "hold": True}
    await stand.control("POST", "/script", json=script)
