"""The one resolver: whatever a client calls a market or a coin, to the canonical symbol."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.values import SYMBOL_PATTERN

MAX_NAME_LENGTH = 64


class UnknownSymbolError(LookupError):
    """Nothing of that name is known."""


class AmbiguousSymbolError(LookupError):
    """Several things have that name; `candidates` lists what to say instead."""

    def __init__(self, text: str, candidates: list[str]) -> None:
        super().__init__(f"{text!r} is ambiguous: say one of {', '.join(candidates)}")
        self.candidates = candidates


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """A traded pair and the venues that list it; `precision` is the number of decimals of its price."""

    symbol: str
    venues: list[str]
    status: str = "trading"
    precision: int | None = None


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The projection of the catalogue that readers load: pairs, coins, and which coin an asset is."""

    version: int
    pairs: list[Pair] = []
    coins: list[Coin] = []
    asset_coins: dict[str, str] = {}
    """Asset (`BTC`) -> coin id (`bitcoin`): the highest-ranked coin of that symbol, where several share it."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name means. `symbol` is canonical; `coin_id` is set when the base is a known coin."""

    symbol: str
    base: str
    quote: str
    coin_id: str | None = None
    pair: Pair | None = None


@dataclass
class Resolver:
    """Resolves names against one version of the catalogue.

    Accepts `BTC-USDT`, `BTC/USDT`, `BTC_USDT`, `BTCUSDT`, `BTC` (meaning `BTC-USD`), any case, and CoinGecko ids (`bitcoin`).
    A coin id that another, higher-ranked coin's symbol hides is still found by its id.
    """

    catalogue: Catalogue
    _pairs: dict[str, Pair] = field(init=False, default_factory=dict)
    _glued: dict[str, list[str]] = field(init=False, default_factory=dict)
    _coins: dict[str, Coin] = field(init=False, default_factory=dict)
    _bases: dict[str, str | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for pair in self.catalogue.pairs:
            self._pairs[pair.symbol] = pair
            self._glued.setdefault(pair.symbol.replace("-", ""), []).append(pair.symbol)
            self._bases.setdefault(pair.symbol.partition("-")[0], None)
        for coin in self.catalogue.coins:
            self._coins[coin.id] = coin
        self._bases.update(self.catalogue.asset_coins)
        self._owners = {coin: asset for asset, coin in self.catalogue.asset_coins.items()}

    def resolve(self, text: str) -> Resolved:
        """The meaning of `text`. Raises `UnknownSymbolError` or `AmbiguousSymbolError`."""
        name = text.strip()
        if not name or len(name) > MAX_NAME_LENGTH:
            raise UnknownSymbolError(f"{text!r:.80} is not a symbol")
        upper = name.upper().replace("/", "-").replace("_", "-")
        if upper in self._pairs:
            return self._of_symbol(upper)
        coin = self._coins.get(name.lower())
        if coin is not None and coin.id in self._owners:
            return self._of_symbol(f"{self._owners[coin.id]}-USD")
        if upper in self._bases:
            return self._of_symbol(f"{upper}-USD")
        if SYMBOL_PATTERN.match(upper):
            return self._crossed(upper, text)
        glued = self._glued.get(upper, [])
        if len(glued) > 1:
            raise AmbiguousSymbolError(text, sorted(glued))
        if glued:
            return self._of_symbol(glued[0])
        crossed = self._split_glued(upper)
        if len(crossed) > 1:
            raise AmbiguousSymbolError(text, crossed)
        if crossed:
            return self._of_symbol(crossed[0])
        if coin is not None:
            return Resolved(
                symbol=f"{coin.symbol.upper()}-USD", base=coin.symbol.upper(), quote="USD", coin_id=coin.id
            )
        raise UnknownSymbolError(f"{text!r} is not known: say BASE-QUOTE, an asset, or a CoinGecko id")

    def coin(self, coin_id: str) -> Coin | None:
        """The coin of this id."""
        return self._coins.get(coin_id)

    def _of_symbol(self, symbol: str) -> Resolved:
        base, _, quote = symbol.partition("-")
        return Resolved(
            symbol=symbol, base=base, quote=quote, coin_id=self._bases.get(base), pair=self._pairs.get(symbol)
        )

    def _crossed(self, symbol: str, text: str) -> Resolved:
        base, _, quote = symbol.partition("-")
        if base in self._bases and (quote in self._bases or quote == "USD"):
            return self._of_symbol(symbol)
        raise UnknownSymbolError(f"{text!r} is not known: neither a pair nor a cross rate of known assets")

    def _split_glued(self, text: str) -> list[str]:
        found = []
        for cut in range(2, len(text) - 1):
            base, quote = text[:cut], text[cut:]
            if base in self._bases and (quote in self._bases or quote == "USD"):
                found.append(f"{base}-{quote}")
        return sorted(found)
