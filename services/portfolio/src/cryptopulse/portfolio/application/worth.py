"""What a transaction was worth in the base currency: from what the caller said, our rates, or the close of its minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.portfolio.application.ports import (
    AssetRef,
    CloseReader,
    Coin,
    CoinCatalogue,
    Portfolio,
    PriceReader,
)
from cryptopulse.portfolio.domain.money import LIMIT, ONE, ZERO, OutOfRangeError, kept, money_context
from cryptopulse.portfolio.domain.postings import INCOME_KINDS
from cryptopulse.portfolio.domain.transactions import (
    FIAT,
    USD_STABLE,
    Kind,
    Transaction,
    TransactionRefusedError,
    check,
)

LIVE_WITHIN_US: Final = 2 * 60 * 1_000_000
"""A transaction younger than this is valued at the live price, an older one at the close of its minute."""
SYMBOL_LENGTH: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A transaction as the caller or a file said it: names unresolved, worth maybe left out."""

    kind: Kind
    asset: str
    quantity: Decimal | None = None
    at_us: int | None = None
    price: Decimal | None = None
    total: Decimal | None = None
    currency: str | None = None
    fx_rate: Decimal | None = None
    counter_asset: str | None = None
    counter_quantity: Decimal | None = None
    fee: Decimal | None = None
    fee_asset: str | None = None
    fee_price: Decimal | None = None
    fee_value: Decimal | None = None
    price_source: str | None = None
    cost_basis: Decimal | None = None
    acquired_us: int | None = None
    account: str = "main"
    to_account: str | None = None
    note: str | None = None
    external_id: str | None = None
    fingerprint: str | None = None
    coin: Coin | None = None
    custom_asset: bool = False
    allow_uncovered: bool = False
    stablecoin_par: bool = False


class Worth:
    """Resolves names and values drafts. Every look-up happens here, outside of any database transaction."""

    def __init__(
        self, prices: PriceReader, closes: CloseReader, catalogue: CoinCatalogue, clock: Clock
    ) -> None:
        self._prices = prices
        self._closes = closes
        self._catalogue = catalogue
        self._clock = clock

    def coin_of(
        self, text: str, known: Sequence[Coin], *, given: Coin | None = None, custom: bool = False
    ) -> Coin:
        """The asset's key and coin. Raises `Invalid` for an unknown name, unless it is custom or nothing is known yet.

        A portfolio that holds the coin already keeps the key that it uses.
        """
        found = None
        if text.upper() in FIAT:
            return Coin(text.upper(), None, text.upper(), text.upper())
        if given is not None and given.coin_id:
            found = self._catalogue.coin(given.coin_id) or given
            found = Coin(found.asset, found.coin_id, given.name or found.name, given.symbol or found.symbol)
        else:
            found = self._catalogue.resolve(text)
        if found is None:
            held = next(
                (coin for coin in known if text in {coin.asset, coin.coin_id} or text.upper() == coin.asset),
                None,
            )
            if held is not None:
                return held
            if self._catalogue.is_loaded and not custom:
                raise Invalid(
                    f"{text!r:.60} is not a known asset: say a symbol (BTC), a CoinGecko id (bitcoin), or set custom_asset.",
                    code="unknown-asset",
                    errors=(FieldError("/asset", "unknown-asset", "not a known symbol or CoinGecko id"),),
                )
            found = _unlisted(text)
        if found.coin_id is not None:
            same = next((coin for coin in known if coin.coin_id == found.coin_id), None)
            if same is not None:
                return Coin(same.asset, same.coin_id, same.name or found.name, same.symbol or found.symbol)
        return found

    async def valued(
        self, portfolio: Portfolio, draft: Draft, known: Sequence[Coin]
    ) -> tuple[Transaction, list[Coin]]:
        """The transaction with its worth in the base currency, and the coins in it. Raises `Invalid` when unknown."""
        at_us = draft.at_us if draft.at_us is not None else self._clock.now_us()
        coin = self.coin_of(draft.asset, known, given=draft.coin, custom=draft.custom_asset)
        coins = [coin]
        counter = fee_coin = None
        if draft.counter_asset:
            counter = self.coin_of(
                draft.counter_asset, known, custom=draft.custom_asset or draft.kind == "rename"
            )
            coins.append(counter)
        currency = draft.currency or portfolio.base_currency
        if draft.fee and draft.fee_asset:
            fee_coin = self.coin_of(draft.fee_asset, known, custom=draft.custom_asset)
            coins.append(fee_coin)
        with money_context():
            quantity = self._quantity(draft)
        shaped = Transaction(
            kind=draft.kind, at_us=at_us, asset=coin.asset, quantity=quantity, account=draft.account,
            price=draft.price, currency=draft.currency, total=draft.total, fx_rate=draft.fx_rate,
            counter_asset=counter.asset if counter else None, counter_quantity=draft.counter_quantity,
            fee=draft.fee or None, fee_asset=fee_coin.asset if fee_coin else (currency if draft.fee else None),
            cost_basis=draft.cost_basis, acquired_us=draft.acquired_us, to_account=draft.to_account, note=draft.note,
            external_id=draft.external_id, fingerprint=draft.fingerprint, allow_uncovered=draft.allow_uncovered,
        )  # fmt: skip
        try:
            check(shaped, self._clock.now_us())
        except TransactionRefusedError as error:
            raise Invalid(
                f"{error.field}: {error.detail}",
                errors=(FieldError(f"/{error.field}", "invalid", error.detail),),
            ) from error
        looker = _Looker(self, portfolio, at_us, {c.asset: c for c in coins}, par=draft.stablecoin_par)
        try:
            return await self._priced(portfolio, draft, shaped, looker), coins
        except OutOfRangeError as error:
            raise Invalid(f"quantity: {error}", code="out-of-range") from error

    @staticmethod
    def _quantity(draft: Draft) -> Decimal:
        if draft.quantity is not None:
            return draft.quantity
        if draft.kind in {"split", "rename"}:
            return ONE
        raise Invalid("quantity: is required", errors=(FieldError("/quantity", "required", "is required"),))

    async def _priced(
        self, portfolio: Portfolio, draft: Draft, tx: Transaction, look: _Looker
    ) -> Transaction:
        changes: dict[str, object] = {}
        if tx.kind in {"split", "rename", "transfer"}:
            value = ZERO
        else:
            value, changes = await self._main_worth(portfolio, tx, look)
        fee_value: Decimal | None = ZERO
        if tx.fee and tx.fee_asset:
            fee_value = draft.fee_value
            if fee_value is None:
                fee_value = await self._fee_worth(draft, tx, look, changes)
        assert fee_value is not None
        with money_context():
            fields = {"value": kept(value), "fee_value": kept(fee_value), **changes}
        if draft.price_source is not None and "price_source" in fields:
            fields["price_source"] = draft.price_source
        return _replaced(tx, fields)

    async def _main_worth(
        self, portfolio: Portfolio, tx: Transaction, look: _Looker
    ) -> tuple[Decimal, dict[str, object]]:
        """The main leg's worth in the base currency, with price, total, currency and rate as they are recorded."""
        if tx.kind == "lost" and tx.price is None and tx.total is None:
            return ZERO, {}
        money = tx.price is not None or tx.total is not None
        if money:
            currency = tx.currency or portfolio.base_currency
            source = "given"
            with money_context():
                total = tx.total if tx.total is not None else kept(tx.quantity * (tx.price or ZERO))
                price = tx.price if tx.price is not None else kept(total / tx.quantity)
        elif tx.asset in FIAT or tx.asset == portfolio.base_currency:
            currency, source, total, price = tx.asset, "given", tx.quantity, ONE
        else:
            currency = portfolio.base_currency
            price, source = await look.price(tx)
            with money_context():
                price = kept(price)
                total = kept(tx.quantity * price)
        rate = tx.fx_rate if tx.fx_rate is not None else await look.rate(currency)
        with money_context():
            value = kept(total * rate)
        if total >= LIMIT or value >= LIMIT:
            raise OutOfRangeError("quantity * price has more than 36 integer digits")
        return value, {
            "price": price,
            "total": total,
            "currency": currency,
            "fx_rate": rate,
            "price_source": source,
        }

    async def _fee_worth(
        self, draft: Draft, tx: Transaction, look: _Looker, main: dict[str, object]
    ) -> Decimal:
        assert tx.fee is not None
        assert tx.fee_asset is not None
        if draft.fee_price is not None:
            rate = draft.fee_price
        elif tx.fee_asset == tx.asset and tx.quantity and main.get("price") is not None:
            price, fx = main["price"], main["fx_rate"]
            assert isinstance(price, Decimal)
            assert isinstance(fx, Decimal)
            with money_context():
                rate = price * fx
        elif tx.fee_asset == main.get("currency") and isinstance(main.get("fx_rate"), Decimal):
            fx = main["fx_rate"]
            assert isinstance(fx, Decimal)
            rate = fx
        else:
            rate = await look.rate(tx.fee_asset)
        with money_context():
            return kept(tx.fee * rate)

    async def usd(self, ref: AssetRef, at_us: int) -> tuple[Decimal, str] | None:
        """Price in USD at a time: live when it is now, else the close; None when unknown."""
        if ref.asset == "USD":
            return ONE, "given"
        if self._clock.now_us() - at_us <= LIVE_WITHIN_US:
            quote = (await self._prices.latest([ref])).get(ref.asset)
            if quote is not None and not quote.stale:
                return quote.price, "live"
        close = await self._closes.at(ref, at_us)
        return None if close is None else (close, "candle")


@dataclass(slots=True)
class _Looker:
    """Looks prices up for one transaction at its time."""

    worth: Worth
    portfolio: Portfolio
    at_us: int
    coins: dict[str, Coin]
    par: bool = False

    def _ref(self, asset: str) -> AssetRef:
        coin = self.coins.get(asset)
        return AssetRef(asset, coin.coin_id if coin else None)

    async def rate(self, asset: str) -> Decimal:
        """Base currency per unit of an asset at the time. Raises `Invalid` when it is not known."""
        base = self.portfolio.base_currency
        if asset == base:
            return ONE
        usd, base_usd = await self._usd(asset), await self._usd(base)
        with money_context():
            return kept(usd / base_usd)

    async def _usd(self, asset: str) -> Decimal:
        found = await self.worth.usd(self._ref(asset), self.at_us)
        if found is not None:
            return found[0]
        if self.par and asset in USD_STABLE:
            return ONE
        raise Invalid(
            f"No rate of {asset} is known at the time of the transaction: give price and currency, fx_rate or fee_price.",
            code="rate-unknown",
            errors=(FieldError("/fx_rate", "rate-unknown", f"no rate of {asset} is known at that time"),),
        )

    async def price(self, tx: Transaction) -> tuple[Decimal, str]:
        """The price of the main asset in the base currency; a trade takes the leg that is priced better.

        Fiat, then stablecoins, then whichever leg has a price.
        """
        refs = [tx.asset]
        if tx.kind == "trade" and tx.counter_asset:
            refs = sorted([tx.asset, tx.counter_asset], key=_trust)
        for asset in refs:
            found = await self.worth.usd(self._ref(asset), self.at_us)
            if found is None:
                continue
            base_usd = await self._usd(self.portfolio.base_currency)
            with money_context():
                unit = found[0] / base_usd
                if asset != tx.asset:
                    assert tx.counter_quantity is not None
                    unit = unit * tx.counter_quantity / tx.quantity
            return unit, found[1] if found[1] != "given" else "live"
        if tx.kind in INCOME_KINDS | {"deposit", "withdraw", "transfer_in", "transfer_out", "gift", "fee"}:
            hint = "give its price"
        else:
            hint = "give a price or a total"
        raise Invalid(
            f"No price of {tx.asset} is known at the time of the transaction: {hint}.",
            code="price-unknown",
            errors=(FieldError("/price", "price-unknown", f"no price is known at that time: {hint}"),),
        )


def _trust(asset: str) -> int:
    return 0 if asset in FIAT else 1 if asset in USD_STABLE else 2


def _unlisted(text: str) -> Coin:
    """An asset that no catalogue lists: as written, a symbol in capitals unless it looks like a coin id."""
    name = text.strip()
    if name.upper().endswith("-USD"):
        name = name[:-4]
    if len(name) <= SYMBOL_LENGTH and name.isalnum():
        return Coin(name.upper(), None, None, name.upper())
    return Coin(name.lower(), name.lower(), None, None)


def _replaced(tx: Transaction, fields: dict[str, object]) -> Transaction:
    return replace(tx, **fields)  # type: ignore[arg-type] # names of Transaction
