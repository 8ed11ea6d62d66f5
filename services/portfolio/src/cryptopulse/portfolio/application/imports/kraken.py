"""Kraken: ledgers (complete) and trades (without deposits, staking and fees in other assets)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
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

CODES: Final = {
    "XXBT": "BTC", "XBT": "BTC", "XETH": "ETH", "XXDG": "DOGE", "XDG": "DOGE", "XXRP": "XRP", "XLTC": "LTC",
    "XXLM": "XLM", "XXMR": "XMR", "XZEC": "ZEC", "XETC": "ETC", "XREP": "REP", "XMLN": "MLN", "ETH2": "ETH",
    "ZUSD": "USD", "ZEUR": "EUR", "ZGBP": "GBP", "ZCAD": "CAD", "ZJPY": "JPY", "ZAUD": "AUD", "USD.HOLD": "USD",
    "EUR.HOLD": "EUR",
}  # fmt: skip
_SUFFIX: Final = re.compile(r"\.(S|M|P|B|F|HOLD|T)$|\d{2}\.S$")
CREDITS: Final = frozenset({"KFEE", "FEE"})
"""Fee credits: no asset that can be held, priced or sold."""
CONVERTED: Final = frozenset({"delistingconversion", "dustsweeping"})
INTERNAL: Final = frozenset(
    {
        "spottostaking", "stakingfromspot", "stakingtospot", "spotfromstaking", "spottofutures", "spotfromfutures",
        "allocation", "deallocation", "autoallocation", "migration", "hybridearnwithdrawal",
    }
)  # fmt: skip


def kraken_asset(text: str) -> str:
    """`XXBT` -> `BTC`, `DOT28.S` -> `DOT`."""
    name = asset_name(text)
    if name in CODES:
        return CODES[name]
    name = _SUFFIX.sub("", name)
    return CODES.get(name, name)


def ledgers(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """Two rows per trade share a refid; a fee is in its row's asset, on top of the amount."""
    trades: dict[str, list[Line]] = {}
    for line in lines:
        try:
            if not line["txid"]:
                yield Outcome(line.number, ignored="pending: comes again with an id")
            elif line["asset"].upper() in CREDITS:
                yield Outcome(line.number, ignored="fee credits are no asset")
            elif (
                line["type"].lower() in {"trade", "spend", "receive"} or line["subtype"].lower() in CONVERTED
            ):
                trades.setdefault(line["refid"] or line["txid"], []).append(line)
            else:
                yield _single(line, options)
        except RowError as error:
            yield Outcome(line.number, error=str(error))
    for refid, rows in trades.items():
        try:
            yield from _trade(refid, rows, options)
        except RowError as error:
            yield from (Outcome(line.number, error=str(error)) for line in rows)


def _single(line: Line, options: Options) -> Outcome:
    kind, subtype = line["type"].lower(), line["subtype"].lower()
    asset, quantity = kraken_asset(line["asset"]), amount(line["amount"])
    fee = amount_or_none(line["fee"], "fee") or Decimal(0)
    if subtype in INTERNAL or kind in INTERNAL:
        return Outcome(line.number, ignored="moved within Kraken")
    meaning: Kind
    if kind in {"deposit", "withdrawal"}:
        meaning = "deposit" if kind == "deposit" else "withdraw"
    elif kind in {"staking", "earn"}:
        meaning = "staking"
    elif kind == "dividend":
        meaning = "income"
    elif kind in {"reward", "airdrop"} or (
        kind == "transfer" and quantity > 0 and subtype in {"", "airdrop"}
    ):
        meaning = "airdrop"
    else:
        raise RowError(f"type {f'{kind} {subtype}'.strip()!r:.60} is not supported")
    if meaning not in {"withdraw", "deposit"} and quantity <= 0:
        raise RowError("income is greater than 0")
    units = abs(quantity)
    if meaning != "withdraw" and fee:
        units, fee = units - fee, Decimal(0)  # what arrives is the amount without its fee
    draft = Draft(
        kind=meaning, asset=asset, quantity=units, at_us=time_us(line["time"]), fee=fee or None,
        fee_asset=asset if fee else None, account=options.account or "Kraken", external_id=f"kraken:{line['txid']}",
        custom_asset=True,
    )  # fmt: skip
    return Outcome(line.number, (draft,))


def _trade(refid: str, rows: list[Line], options: Options) -> Iterator[Outcome]:
    legs: dict[str, Decimal] = {}
    fees: dict[str, Decimal] = {}
    for line in rows:
        asset = kraken_asset(line["asset"])
        legs[asset] = legs.get(asset, Decimal(0)) + amount(line["amount"])
        fee = amount_or_none(line["fee"], "fee")
        if fee:
            fees[asset] = fees.get(asset, Decimal(0)) + fee
    away = [(asset, -units) for asset, units in legs.items() if units < 0]
    got = [(asset, units) for asset, units in legs.items() if units > 0]
    if len(away) != 1 or len(got) != 1:
        raise RowError(f"refid {refid} is no single trade: {len(away)} assets given, {len(got)} received")
    paid = list(fees.items())
    at_us, account = time_us(rows[0]["time"]), options.account or "Kraken"
    fee, fee_asset = (paid[0][1], paid[0][0]) if paid else (None, None)
    drafts = [
        exchanged(
            at_us,
            *away[0],
            *got[0],
            fee=fee,
            fee_asset=fee_asset,
            account=account,
            external_id=f"kraken:{refid}",
        )
    ]
    drafts += [
        Draft(kind="fee", asset=asset, quantity=units, at_us=at_us, account=account, external_id=f"kraken:{refid}:fee", custom_asset=True)
        for asset, units in paid[1:]
    ]  # fmt: skip
    yield Outcome(rows[0].number, tuple(drafts))
    yield from (Outcome(line.number, ignored=f"part of row {rows[0].number}") for line in rows[1:])


def trades(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """One row per trade; the fee is in the quote."""
    for line in lines:
        try:
            base, quote = _pair(line["pair"].upper())
            quantity, cost = amount(line["vol"], "vol"), amount(line["cost"], "cost")
            side = line["type"].lower()
            if side not in {"buy", "sell"}:
                raise RowError(f"{side!r:.20} is neither buy nor sell")
            if amount_or_none(line["margin"], "margin"):
                raise RowError("margin trades are not supported")
            sides = ((quote, cost), (base, quantity)) if side == "buy" else ((base, quantity), (quote, cost))
            fee = amount_or_none(line["fee"], "fee")
            draft = exchanged(
                time_us(line["time"]), *sides[0], *sides[1], fee=fee or None, fee_asset=quote if fee else None,
                account=options.account or "Kraken", external_id=f"kraken:{line['txid']}",
            )  # fmt: skip
            yield Outcome(line.number, (draft,))
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _pair(pair: str) -> tuple[str, str]:
    if "/" in pair:
        base, _, quote = pair.partition("/")
        return kraken_asset(base), kraken_asset(quote)
    for quote in ("ZUSD", "ZEUR", "ZGBP", "ZCAD", "ZJPY", "ZAUD", "XXBT", "XETH", "USDT", "USDC", "USD", "EUR", "GBP", "CHF",
                  "CAD", "AUD", "JPY", "XBT", "ETH", "DAI"):  # fmt: skip
        if pair.endswith(quote) and len(pair) > len(quote):
            return kraken_asset(pair[: -len(quote)]), kraken_asset(quote)
    raise RowError(f"pair {pair!r:.20} is not known")
