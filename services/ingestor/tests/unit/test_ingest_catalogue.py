"""The product list while it changes: halts, delistings, returns, and a list that cannot be had."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.common.bus.memory import MemoryBroker, MemoryBus
from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.catalogue import Instrument, InstrumentStatus
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.application.catalogue import RETRY_SECONDS, VenueCatalogue
from cryptopulse.ingestor.domain.symbols import Part, Wish

HOUR = 3_601.0


class Listing:
    """A venue with a product list that a test changes."""

    name = "v"

    def __init__(self) -> None:
        self.markets: dict[str, InstrumentStatus] = {"BTC-USDT": "trading", "ETH-USDT": "trading"}
        self.is_away = False
        self.defect: Exception | None = None

    def native_by_rule(self, symbol: str) -> str:
        return symbol.replace("-", "")

    async def instruments(self) -> list[Instrument]:
        if self.defect is not None:
            raise self.defect
        if self.is_away:
            raise UpstreamUnavailable("HTTP 503", retry_after_seconds=1.0)
        return [
            Instrument(venue="v", symbol=s, native=s.replace("-", ""), status=status)
            for s, status in self.markets.items()
        ]

    async def volumes(self) -> dict[str, Decimal]:
        return {"ETH-USDT": Decimal(9), "BTC-USDT": Decimal(7)}


def a_catalogue(listing: Listing, clock: ManualClock, wish: str = "BTC-USDT,ETH-USDT") -> VenueCatalogue:
    venue: Any = listing
    bus = MemoryBus(MemoryBroker(), service="test")
    return VenueCatalogue(venue, bus, clock, Wish.parse(wish), Part(), simulated=False)


def followed(catalogue: VenueCatalogue) -> list[str]:
    return [instrument.symbol for instrument in catalogue.followed]


async def test_a_halted_or_delisted_market_is_left_and_comes_back_when_it_trades() -> None:
    listing, clock = Listing(), ManualClock()
    catalogue = a_catalogue(listing, clock)
    assert await catalogue.refresh()
    assert followed(catalogue) == ["BTC-USDT", "ETH-USDT"]
    listing.markets["ETH-USDT"] = "halted"
    assert not await catalogue.refresh()
    clock.advance(HOUR)
    assert await catalogue.refresh()
    assert followed(catalogue) == ["BTC-USDT"]
    del listing.markets["ETH-USDT"]
    clock.advance(HOUR)
    assert not await catalogue.refresh()
    assert catalogue.detail == "not listed here: ETH-USDT"
    listing.markets["ETH-USDT"] = "trading"
    clock.advance(HOUR)
    assert await catalogue.refresh()
    assert followed(catalogue) == ["BTC-USDT", "ETH-USDT"]


async def test_a_list_that_cannot_be_had_changes_nothing_that_flows() -> None:
    listing, clock = Listing(), ManualClock()
    catalogue = a_catalogue(listing, clock)
    await catalogue.refresh()
    listing.is_away = True
    clock.advance(HOUR)
    assert not await catalogue.refresh()
    assert followed(catalogue) == ["BTC-USDT", "ETH-USDT"]
    assert "HTTP 503" in catalogue.detail


async def test_an_error_nobody_thought_of_is_not_asked_for_again_at_once() -> None:
    listing, clock = Listing(), ManualClock()
    catalogue = a_catalogue(listing, clock)
    listing.defect = ZeroDivisionError("unthinkable")
    with pytest.raises(ZeroDivisionError):
        await catalogue.refresh()
    assert not await catalogue.refresh()
    clock.advance(RETRY_SECONDS + 1)
    listing.defect = None
    assert await catalogue.refresh()


async def test_the_top_is_chosen_by_volume_and_named_markets_start_without_a_list() -> None:
    listing, clock = Listing(), ManualClock()
    top = a_catalogue(listing, clock, "top:1")
    await top.refresh()
    assert followed(top) == ["ETH-USDT"]
    listing.is_away = True
    blind = a_catalogue(listing, clock, "SOL-USDT,top:1")
    assert await blind.refresh()
    assert [(i.native, i.status) for i in blind.followed] == [("SOLUSDT", "unknown")]


def test_every_test_that_the_table_of_cases_names_exists() -> None:
    root = Path(__file__).resolve().parents[4]
    table = (root / "docs" / "ingest-cases.md").read_text()
    rows = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    modules = [
        *root.glob("services/ingestor/tests/**/test_*.py"),
        *root.glob("services/indicators/tests/**/test_*.py"),
    ]
    known = set(re.findall(r"def (test_\w+)", "\n".join(module.read_text() for module in modules)))
    named = [set(re.findall(r"`(test_\w+)`", row)) for row in rows]
    assert [row.split("|")[1].strip() for row in rows] == [str(n) for n in range(1, 26)]
    assert all(named)
    assert set().union(*named) - known == set()
