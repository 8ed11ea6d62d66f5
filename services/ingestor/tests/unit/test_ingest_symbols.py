"""Which markets are followed: wishes, parts, lists that change."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import TypeAdapter

from cryptopulse.common.config import SymbolList
from cryptopulse.common.contracts.catalogue import Instrument, InstrumentStatus
from cryptopulse.common.contracts.values import ValueRefusedError
from cryptopulse.ingestor.domain.symbols import Part, Wish, changes, chosen, unlisted


def listed(*symbols: str, status: InstrumentStatus = "trading") -> list[Instrument]:
    return [Instrument(venue="v", symbol=s, native=s.replace("-", ""), status=status) for s in symbols]


def names(instruments: list[Instrument]) -> list[str]:
    return [i.symbol for i in instruments]


def test_a_wish_mixes_names_quotes_and_top() -> None:
    assert Wish.parse("btc-usd, all:usdt, top:100") == Wish(("BTC-USD",), ("USDT",), 100)


@pytest.mark.parametrize("text", ["", "BTC", "top:0", "top:x", "all:", "best:3", "BTC-USD,top:99999"])
def test_a_wish_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueRefusedError):
        Wish.parse(text)


def test_what_the_shared_setting_takes_is_what_a_wish_reads() -> None:
    taken = TypeAdapter(SymbolList).validate_python("TOP:0100, all:usdt,btc-usd,ALL:USDT,top:5000")
    assert Wish.parse(",".join(taken)) == Wish(("BTC-USD",), ("USDT",), 5_000)


def test_only_trading_markets_are_chosen_and_rates_always() -> None:
    market = listed("BTC-USD", "USDT-USD", "DOGE-USD") + listed("ETH-USD", status="halted")
    assert names(chosen(Wish.parse("BTC-USD,ETH-USD"), market, Part())) == ["BTC-USD", "USDT-USD"]
    assert unlisted(Wish.parse("BTC-USD,XYZ-USD"), market) == ["XYZ-USD"]


def test_the_top_is_by_quote_volume() -> None:
    market = listed("A-USDT", "B-USDT", "C-USDT")
    volumes = {"A-USDT": Decimal(1), "B-USDT": Decimal(30), "C-USDT": Decimal(20)}
    assert names(chosen(Wish.parse("top:2"), market, Part(), volumes)) == ["B-USDT", "C-USDT"]


def test_parts_cover_every_market_exactly_once_and_keep_a_base_together() -> None:
    market = listed(*(f"C{n}-{q}" for n in range(200) for q in ("USD", "USDT")))
    wish = Wish.parse("all:USD,all:USDT")
    parts = [set(names(chosen(wish, market, Part(i, 4)))) for i in range(1, 5)]
    assert sum(map(len, parts)) == len(market)
    assert set().union(*parts) == {i.symbol for i in market}
    assert all({s.replace("-USDT", "-USD") for s in part} <= part for part in parts)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/65"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueRefusedError):
        Part.parse(text)


def test_new_and_gone_markets_are_told() -> None:
    assert changes(listed("A-USD", "B-USD"), listed("B-USD", "C-USD")) == (["C-USD"], ["A-USD"])
    assert changes(listed("A-USD"), listed("A-USD", status="halted")) == ([], ["A-USD"])
