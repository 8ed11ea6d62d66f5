"""Binance: spot trades (current and older), transaction history, deposits and withdrawals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final

from cryptopulse.portfolio.application.imports.reading import (
    Line,
    Options,
    Outcome,
    RowError,
    amount,
    amount_or_none,
    asset_name,
    exchanged,
    time_us,
)
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.transactions import Kind

INCOME: Final[dict[str, Kind]] = {
    "simple earn flexible interest": "interest", "simple earn locked rewards": "staking", "staking rewards": "staking",
    "eth 2.0 staking rewards": "staking", "pos savings interest": "staking", "savings interest": "interest",
    "launchpool interest": "interest", "launchpool earnings withdrawal": "interest", "bnb vault rewards": "staking",
    "airdrop assets": "airdrop", "distribution": "airdrop", "referral commission": "reward",
    "commission rebate": "reward", "cash voucher distribution": "reward", "commission history": "reward",
}  # fmt: skip
MOVES: Final[dict[str, Kind]] = {
    "deposit": "deposit", "fiat deposit": "deposit", "withdraw": "withdraw", "fiat withdraw": "withdraw",
}  # fmt: skip
TRADES: Final = frozenset(
    {
        "buy", "sell", "transaction buy", "transaction spend", "transaction sold", "transaction revenue",
        "transaction related", "binance convert", "large otc trading", "otc trading",
    }
)  # fmt: skip
FEES: Final = frozenset({"fee", "transaction fee"})
SMALL: Final = "small assets exchange bnb"
INTERNAL: Final = re.compile(
    r"transfer between|subscription|redemption|staking purchase|internal transfer|main account|sub-account"
)
_ZONE: Final = re.compile(r"\(UTC([+-]{1,2})(\d{1,2})(?::?(\d\d))?\)")


def zone_of(options: Options) -> timedelta:
    """The zone that only the file's name states, such as `(UTC--6)`; else what the caller said."""
    found = _ZONE.search(options.filename)
    if found is None:
        return options.utc_offset
    length = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
    return -length if "-" in found[1] else length


def _split(pair: str, executed: str, paid: str) -> tuple[str, Decimal, str, Decimal]:
    """Base, its quantity, quote, its amount. The pair tells where a number ends and an asset's name begins."""
    found = []
    for cut in range(1, len(pair)):
        base, quote = pair[:cut], pair[cut:]
        if executed.endswith(base) and paid.endswith(quote):
            try:
                found.append((base, amount(executed[: -len(base)]), quote, amount(paid[: -len(quote)])))
            except RowError:
                continue
    if len(found) != 1:
        raise RowError(f"{executed!r:.40} and {paid!r:.40} do not fit the pair {pair!r:.20}")
    return found[0]


def _glued_fee(text: str, assets: tuple[str, ...]) -> tuple[Decimal | None, str | None]:
    if not text:
        return None, None
    for asset in (*assets, "BNB"):
        if text.endswith(asset):
            try:
                value = amount(text[: -len(asset)])
            except RowError:
                continue
            return (value, asset) if value else (None, None)
    found = re.fullmatch(r"([\d.,]+)([A-Z][A-Z0-9]*)", text)
    if found is None:
        raise RowError(f"{text!r:.40} is not a fee")
    value = amount(found[1])
    return (value, found[2]) if value else (None, None)


def trades(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """`Date(UTC),Pair,Side,Price,Executed,Amount,Fee`: assets are glued to the numbers."""
    for line in lines:
        try:
            base, quantity, quote, total = _split(
                line["pair"].upper(), line["executed"].upper(), line["amount"].upper()
            )
            fee, fee_asset = _glued_fee(line["fee"].upper(), (base, quote))
            yield _trade(line, line["side"], base, quantity, quote, total, fee, fee_asset, options)
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _trade(  # noqa: PLR0917 - the columns of one row
    line: Line, side: str, base: str, quantity: Decimal, quote: str, total: Decimal,
    fee: Decimal | None, fee_asset: str | None, options: Options,
) -> Outcome:  # fmt: skip
    at_us = time_us(line.first("date(utc)", "date(utc+0)", "date"))
    away, into = (
        ((quote, total), (base, quantity)) if side.lower() == "buy" else ((base, quantity), (quote, total))
    )
    if side.lower() not in {"buy", "sell"}:
        raise RowError(f"{side!r:.20} is neither BUY nor SELL")
    draft = exchanged(at_us, *away, *into, fee=fee, fee_asset=fee_asset, account=options.account or "Binance")
    return Outcome(line.number, (draft,))


QUOTES: Final = (
    "FDUSD", "USDT", "USDC", "TUSD", "BUSD", "BIDR", "IDRT", "BVND", "DAI", "EUR", "GBP", "AUD", "TRY", "BRL", "RUB",
    "UAH", "NGN", "ZAR", "PLN", "RON", "ARS", "JPY", "MXN", "CZK", "BTC", "ETH", "BNB", "TRX", "XRP", "DOGE", "DOT", "SOL",
    "PAX", "VAI", "USD",
)  # fmt: skip


def trades_old(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """`Date(UTC),Market,Type,Price,Amount,Total,Fee,Fee Coin`."""
    for line in lines:
        try:
            market = line["market"].upper()
            quote = next(
                (known for known in QUOTES if market.endswith(known) and len(market) > len(known)), None
            )
            if quote is None:
                raise RowError(f"the quote of {market!r:.20} is not known")
            base = market[: -len(quote)]
            fee = amount_or_none(line["fee"], "fee")
            coin = asset_name(line["fee coin"]) if fee else None
            yield _trade(
                line,
                line["type"],
                base,
                amount(line["amount"]),
                quote,
                amount(line["total"]),
                fee or None,
                coin,
                options,
            )
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _moved(lines: Iterable[Line], options: Options, *, into: bool) -> Iterator[Outcome]:
    for line in lines:
        try:
            status = line["status"].lower()
            if status and status not in {"completed", "success", "successful"}:
                yield Outcome(line.number, ignored=f"status {status}")
                continue
            fee = None if into else amount_or_none(line["fee"], "fee")
            draft = Draft(
                kind="deposit" if into else "withdraw", asset=asset_name(line["coin"]), quantity=amount(line["amount"]),
                at_us=time_us(line.first("date(utc+0)", "date(utc)", "date")), fee=fee or None,
                fee_asset=asset_name(line["coin"]) if fee else None, account=options.account or "Binance",
                external_id=f"binance:{line['txid']}" if line["txid"] else None, custom_asset=True,
            )  # fmt: skip
            yield Outcome(line.number, (draft,))
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def deposits(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """`Date(UTC+0),Coin,Network,Amount,Address,TXID,Status`."""
    return _moved(lines, options, into=True)


def withdrawals(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """`Date(UTC+0),Coin,Network,Amount,Fee,Address,TXID,Status`."""
    return _moved(lines, options, into=False)


def history(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """Signed ledger rows; those of one time and account that belong to trades are put together."""
    zone = zone_of(options)
    groups: dict[tuple[int, str], list[tuple[Line, str, str, Decimal]]] = {}
    for line in lines:
        try:
            at_us = time_us(line.first("utc_time", "time"), zone if line["time"] else timedelta(0))
            operation = line["operation"].lower()
            coin, change = asset_name(line["coin"]), amount(line["change"], "change")
            if INTERNAL.search(operation):
                yield Outcome(line.number, ignored="moved within Binance")
            elif operation in TRADES or operation in FEES or operation == SMALL:
                groups.setdefault((at_us, line["account"]), []).append((line, operation, coin, change))
            else:
                yield _single(line, operation, coin, change, at_us, options)
        except RowError as error:
            yield Outcome(line.number, error=str(error))
    for (at_us, account), rows in groups.items():
        yield from _group(rows, at_us, options.account or account or "Binance")


def _single(line: Line, operation: str, coin: str, change: Decimal, at_us: int, options: Options) -> Outcome:
    account = options.account or line["account"] or "Binance"
    kind = INCOME.get(operation) or MOVES.get(operation)
    if kind is None:
        raise RowError(f"operation {line['operation']!r:.60} is not known")
    draft = Draft(
        kind=kind, asset=coin, quantity=abs(change), at_us=at_us, account=account, custom_asset=True
    )
    return Outcome(line.number, (draft,))


def _group(rows: list[tuple[Line, str, str, Decimal]], at_us: int, account: str) -> Iterator[Outcome]:
    first = rows[0][0].number
    small = [row for row in rows if row[1] == SMALL]
    others = [row for row in rows if row[1] != SMALL]
    if small:
        yield from _small(small, at_us, account)
    if not others:
        return
    fees: dict[str, Decimal] = {}
    legs: dict[str, Decimal] = {}
    for _, operation, coin, change in others:
        into = fees if operation in FEES else legs
        into[coin] = into.get(coin, Decimal(0)) + change
    away = [(coin, -change) for coin, change in legs.items() if change < 0]
    got = [(coin, change) for coin, change in legs.items() if change > 0]
    if len(away) != 1 or len(got) != 1:
        sides = f"{len(away)} coins given, {len(got)} received"
        yield from (
            Outcome(line.number, error=f"the rows of this second are no single trade: {sides}")
            for line, *_ in others
        )
        return
    paid = [(coin, -change) for coin, change in fees.items() if change]
    fee, fee_asset = (paid[0][1], paid[0][0]) if paid else (None, None)
    drafts = [exchanged(at_us, *away[0], *got[0], fee=fee, fee_asset=fee_asset, account=account)]
    drafts += [
        Draft(kind="fee", asset=coin, quantity=units, at_us=at_us, account=account, custom_asset=True)
        for coin, units in paid[1:]
    ]
    yield Outcome(first, tuple(drafts))
    yield from (Outcome(line.number, ignored=f"part of row {first}") for line, *_ in others[1:])


def _small(rows: list[tuple[Line, str, str, Decimal]], at_us: int, account: str) -> Iterator[Outcome]:
    """Dust to BNB: rows come in pairs, a coin given and BNB received."""
    away = [row for row in rows if row[3] < 0]
    got = [row for row in rows if row[3] > 0]
    if len(away) != len(got):
        yield from (Outcome(line.number, error="dust and BNB do not pair up") for line, *_ in rows)
        return
    for (line, _, coin, change), (other, _, into, received) in zip(away, got, strict=True):
        yield Outcome(line.number, (exchanged(at_us, coin, -change, into, received, account=account),))
        yield Outcome(other.number, ignored=f"part of row {line.number}")
