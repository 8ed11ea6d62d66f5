"""Which markets a venue is asked for: the setting, the venue's product list, and a replica's part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.values import ValueRefusedError, split_symbol

RATE_SYMBOLS = ("USDT-USD", "USDC-USD", "USDC-USDT", "EUR-USD", "EUR-USDT")
"""Rates that consolidation needs; asked for wherever they are listed, whatever the setting says."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What `SYMBOLS` asks for: named pairs, every pair of some quotes, or the top n by quote volume."""

    names: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    top: int = 0

    @classmethod
    def parse(cls, text: str) -> Wish:
        """`BTC-USD,ETH-USDT`, `all:USDT`, `top:100`, mixed by commas. Raises `ValueRefusedError` naming the word."""
        names, quotes, top = [], [], 0
        for word in filter(None, (part.strip() for part in text.split(","))):
            kind, colon, rest = word.partition(":")
            if not colon:
                base, quote = split_symbol(word.upper())
                names.append(f"{base}-{quote}")
            elif kind == "all" and rest.isalnum():
                quotes.append(rest.upper())
            elif kind == "top" and rest.isdigit() and 0 < int(rest) <= 5_000:
                top = max(top, int(rest))
            else:
                raise ValueRefusedError(f"{word!r:.40}: say BASE-QUOTE, all:<QUOTE> or top:<1..5000>")
        if not (names or quotes or top):
            raise ValueRefusedError("no symbols: say for example BTC-USD,ETH-USDT")
        return cls(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(quotes)), top)

    @property
    def needs_volumes(self) -> bool:
        """True when the venue's 24 h volumes are needed to choose."""
        return self.top > 0


@dataclass(frozen=True, slots=True)
class Part:
    """Part `index` of `of`, from 1: a base asset belongs to exactly one part, with all its quotes."""

    index: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """`2/4`. Raises `ValueRefusedError`."""
        left, slash, right = text.partition("/")
        if slash and left.isdigit() and right.isdigit() and 1 <= int(left) <= int(right) <= 64:
            return cls(int(left), int(right))
        raise ValueRefusedError(f"{text!r:.20} is no part: say for example 2/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def holds(self, symbol: str) -> bool:
        """True when this part serves the symbol."""
        base = symbol.partition("-")[0]
        digest = hashlib.blake2b(base.encode(), digest_size=4, key=b"ingest-part").digest()
        return int.from_bytes(digest, "big") % self.of == self.index - 1


def chosen(
    wish: Wish, instruments: Sequence[Instrument], part: Part, volumes: Mapping[str, Decimal] | None = None
) -> list[Instrument]:
    """The trading instruments that the wish and the part ask for, in the venue's order; rates always."""
    trading = [i for i in instruments if i.status == "trading"]
    wanted = set(wish.names) | set(RATE_SYMBOLS)
    wanted |= {i.symbol for i in trading if i.symbol.rpartition("-")[2] in wish.quotes}
    if wish.top and volumes:
        ranked = sorted(
            (i for i in trading if i.symbol in volumes), key=lambda i: volumes[i.symbol], reverse=True
        )
        wanted |= {i.symbol for i in ranked[: wish.top]}
    found: dict[str, Instrument] = {}
    for instrument in trading:
        if instrument.symbol in wanted and part.holds(instrument.symbol):
            found.setdefault(instrument.symbol, instrument)
    return list(found.values())


def unlisted(wish: Wish, instruments: Iterable[Instrument]) -> list[str]:
    """Named symbols that the venue does not list."""
    listed = {i.symbol for i in instruments}
    return [name for name in wish.names if name not in listed]


def changes(old: Sequence[Instrument], new: Sequence[Instrument]) -> tuple[list[str], list[str]]:
    """Symbols that appeared and that went (or stopped trading) between two lists."""
    before = {i.symbol for i in old if i.status == "trading"}
    after = {i.symbol for i in new if i.status == "trading"}
    return sorted(after - before), sorted(before - after)
