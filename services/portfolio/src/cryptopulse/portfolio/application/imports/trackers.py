"""Trackers: CoinTracking, Koinly, Ghostfolio, and our own format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.imports.reading import (
    MAX_ROWS,
    Line,
    Options,
    Outcome,
    RowError,
    amount,
    amount_or_none,
    asset_name,
    checked_text,
    exchanged,
    time_us,
)
from cryptopulse.portfolio.application.ports import Coin
from cryptopulse.portfolio.application.tables import unsafe
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.transactions import Kind

KINDS: Final = frozenset(
    {
        "buy", "sell", "trade", "deposit", "withdraw", "transfer", "transfer_in", "transfer_out", "staking", "interest",
        "airdrop", "mining", "reward", "income", "fee", "gift", "lost", "split", "rename",
    }
)  # fmt: skip
COINTRACKING_IN: Final[dict[str, Kind]] = {
    "deposit": "deposit", "income": "income", "mining": "mining", "staking": "staking", "airdrop": "airdrop",
    "interest income": "interest", "reward / bonus": "reward", "masternode": "staking", "gift/tip": "income",
    "gift/tip(in)": "income", "gift / tip": "income", "lending income": "interest",
}  # fmt: skip
COINTRACKING_OUT: Final[dict[str, Kind]] = {
    "withdrawal": "withdraw", "spend": "withdraw", "donation": "gift", "gift": "gift", "lost": "lost",
    "stolen": "lost", "other fee": "fee",
}  # fmt: skip
KOINLY_IN: Final[dict[str, Kind]] = {
    "": "deposit", "staking": "staking", "reward": "reward", "airdrop": "airdrop", "mining": "mining", "fork": "airdrop",
    "loan interest": "interest", "lending interest": "interest", "other income": "income", "salary": "income",
    "income": "income", "interest": "interest", "cashback": "reward",
}  # fmt: skip
KOINLY_OUT: Final[dict[str, Kind]] = {
    "": "withdraw",
    "gift": "gift",
    "donation": "gift",
    "lost": "lost",
    "cost": "fee",
    "margin fee": "fee",
    "loan fee": "fee",
}
SOURCES: Final = frozenset({"given", "live", "candle"})
_CURRENCY: Final = re.compile(r"[A-Z0-9]{2,10}")
_NET_VALUE: Final = re.compile(r"net value \(([a-z0-9]{2,10})\)")


def cointracking(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """Three columns are named `Cur.`: after Buy, Sell and Fee."""
    for line in lines:
        try:
            kind = line["type"].lower()
            got, away = amount_or_none(line["buy"], "buy"), amount_or_none(line["sell"], "sell")
            fee = amount_or_none(line["fee"], "fee")
            more: dict[str, Any] = {
                "fee": fee or None, "fee_asset": asset_name(line["cur.#3"]) if fee else None,
                "account": options.account or line["exchange"] or "main", "note": line["comment"] or None,
            }  # fmt: skip
            at_us = time_us(line["date"], options.utc_offset)
            if got and away:
                draft = exchanged(
                    at_us, asset_name(line["cur.#2"]), away, asset_name(line["cur."]), got, **more
                )
            elif got and kind in COINTRACKING_IN:
                draft = Draft(
                    kind=COINTRACKING_IN[kind],
                    asset=asset_name(line["cur."]),
                    quantity=got,
                    at_us=at_us,
                    custom_asset=True,
                    **more,
                )
            elif away and kind in COINTRACKING_OUT:
                draft = Draft(
                    kind=COINTRACKING_OUT[kind],
                    asset=asset_name(line["cur.#2"]),
                    quantity=away,
                    at_us=at_us,
                    custom_asset=True,
                    **more,
                )
            else:
                raise RowError(f"type {line['type']!r:.60} is not known")
            yield Outcome(line.number, (draft,))
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def koinly(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """The universal template; currencies may carry an id after a semicolon."""
    for line in lines:
        try:
            away, got = amount_or_none(line["sent amount"]), amount_or_none(line["received amount"])
            fee, worth = amount_or_none(line["fee amount"]), amount_or_none(line["net worth amount"])
            label = line["label"].lower()
            fee_asset = _koinly_asset(line["fee currency"]) if fee else None
            note = line["description"] or None
            account = options.account or "main"
            at_us = time_us(line["date"], options.utc_offset)
            money: dict[str, Any] = {}
            if worth and line["net worth currency"]:
                money = {"total": worth, "currency": asset_name(line["net worth currency"])}
            external = f"koinly:{line['txhash']}:{'in' if got else 'out'}" if line["txhash"] else None
            if away and got:
                draft = exchanged(
                    at_us, _koinly_asset(line["sent currency"]), away, _koinly_asset(line["received currency"]), got,
                    fee=fee or None, fee_asset=fee_asset, account=account, note=note, external_id=external,
                )  # fmt: skip
            elif got:
                if label not in KOINLY_IN:
                    raise RowError(f"label {label!r:.60} is not known for something received")
                draft = _one_sided(
                    KOINLY_IN[label],
                    _koinly_asset(line["received currency"]),
                    got,
                    at_us,
                    account,
                    note,
                    external,
                    money,
                    None,
                    None,
                )
            elif away:
                if label not in KOINLY_OUT:
                    raise RowError(f"label {label!r:.60} is not known for something sent")
                draft = _one_sided(
                    KOINLY_OUT[label],
                    _koinly_asset(line["sent currency"]),
                    away,
                    at_us,
                    account,
                    note,
                    external,
                    money,
                    fee or None,
                    fee_asset,
                )
            else:
                raise RowError("neither a sent nor a received amount is given")
            yield Outcome(line.number, (draft,))
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def koinly_history(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """The transaction history: wallets instead of one account, `Label` or `Tag`, `Net Value (EUR)` in the user's currency.

    A transfer between wallets has the same coin on both sides; where it does not say its fee, the fee is what is missing.
    """
    for line in lines:
        try:
            yield Outcome(line.number, (_koinly_moved(line, options),))
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _koinly_moved(line: Line, options: Options) -> Draft:
    away, got = amount_or_none(line["sent amount"]), amount_or_none(line["received amount"])
    fee = amount_or_none(line["fee amount"]) or None
    label = line.first("label", "tag").lower().replace("_", " ")
    source, target = line["sending wallet"] or "main", line["receiving wallet"] or "main"
    at_us, note = time_us(line["date"], options.utc_offset), line["description"] or None
    given: dict[str, Any] = {"fee": fee, "fee_asset": _koinly_asset(line["fee currency"]) if fee else None}
    side = "in" if got else "out"
    external = f"koinly:{line['txhash']}:{side}" if line["txhash"] else None
    more: dict[str, Any] = {"at_us": at_us, "note": note, "external_id": external, "custom_asset": True}
    worth = _koinly_worth(line)
    if away and got:
        sent, received = _koinly_asset(line["sent currency"]), _koinly_asset(line["received currency"])
        if sent != received:
            del more["at_us"], more["custom_asset"]
            return exchanged(
                at_us, sent, away, received, got, account=options.account or source, **given, **more
            )
        missing = away - got
        if missing < 0:
            raise RowError("more arrives than was sent")
        if missing and fee is None:
            given = {"fee": missing, "fee_asset": sent}
        elif missing and given != {"fee": missing, "fee_asset": sent}:
            raise RowError("what is missing on arrival is not the fee")
        if options.account or source == target:
            raise RowError("a transfer goes to another wallet")
        return Draft(
            kind="transfer", asset=sent, quantity=got, account=source, to_account=target, **given, **more
        )
    if got:
        if label not in KOINLY_IN:
            raise RowError(f"label {label!r:.60} is not known for something received")
        asset = _koinly_asset(line["received currency"])
        return Draft(
            kind=KOINLY_IN[label], asset=asset, quantity=got, account=options.account or target,
            **worth, **given, **more,
        )  # fmt: skip
    if not away:
        raise RowError("neither a sent nor a received amount is given")
    if label not in KOINLY_OUT:
        raise RowError(f"label {label!r:.60} is not known for something sent")
    asset = _koinly_asset(line["sent currency"])
    return Draft(
        kind=KOINLY_OUT[label], asset=asset, quantity=away, account=options.account or source,
        **worth, **given, **more,
    )  # fmt: skip


def _koinly_worth(line: Line) -> dict[str, Any]:
    """What the row was worth, in the currency that the column's name says."""
    for name in line.cells:
        found = _NET_VALUE.fullmatch(name)
        worth = amount_or_none(line[name]) if found else None
        if found and worth:
            return {"total": worth, "currency": found[1].upper()}
    return {}


def _koinly_asset(text: str) -> str:
    return asset_name(text.partition(";")[0])


def _one_sided(  # noqa: PLR0917 - the columns of one row
    kind: Kind, asset: str, quantity: Any, at_us: int, account: str, note: str | None, external: str | None,
    money: dict[str, Any], fee: Any, fee_asset: str | None,
) -> Draft:  # fmt: skip
    return Draft(
        kind=kind, asset=asset, quantity=quantity, at_us=at_us, account=account, note=note, external_id=external,
        fee=fee, fee_asset=fee_asset, custom_asset=True, **money,
    )  # fmt: skip


GHOSTFOLIO: Final[dict[str, Kind]] = {
    "BUY": "buy",
    "SELL": "sell",
    "DIVIDEND": "income",
    "INTEREST": "interest",
    "FEE": "fee",
}


def ghostfolio(text: str, options: Options) -> Iterator[Outcome]:
    """`{"activities": [...]}`; amounts are JSON numbers there and are read without a float between."""
    try:
        data = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Invalid(f"The file is not valid JSON: {error}.", code="malformed-json") from error
    activities = data.get("activities") if isinstance(data, dict) else None
    if not isinstance(activities, list) or len(activities) > MAX_ROWS:
        raise Invalid(f"The file has no list of at most {MAX_ROWS} activities.", code="unknown-format")
    for number, item in enumerate(activities, start=1):
        try:
            yield Outcome(number, (_activity(item, options),))
        except RowError as error:
            yield Outcome(number, error=str(error))


def _activity(item: Any, options: Options) -> Draft:
    if not isinstance(item, dict):
        raise RowError("an activity is an object")
    checked_text("".join(value for value in item.values() if isinstance(value, str)))
    kind = GHOSTFOLIO.get(str(item.get("type", "")).upper())
    if kind is None:
        raise RowError(f"type {item.get('type')!r:.40} is not supported")
    currency = asset_name(str(item.get("currency") or ""))
    symbol = str(item.get("symbol") or "").strip()
    at_us = time_us(str(item.get("date") or ""))
    quantity, price = (
        amount(str(item.get("quantity", "")), "quantity"),
        amount(str(item.get("unitPrice", "")), "unitPrice"),
    )
    fee = amount_or_none(str(item.get("fee", "") if item.get("fee") is not None else ""), "fee")
    account = options.account or str(item.get("accountId") or "main")[:64]
    note = str(item["comment"]) if item.get("comment") else None
    if kind == "fee":
        total = quantity * price if quantity and price else fee
        if not total:
            raise RowError("the fee is 0")
        return Draft(
            kind="fee",
            asset=currency,
            quantity=total,
            at_us=at_us,
            account=account,
            note=note,
            custom_asset=True,
        )
    coin = Coin(symbol, symbol) if item.get("dataSource") == "COINGECKO" else None
    asset = symbol if coin else _yahoo(symbol, currency)
    return Draft(
        kind=kind, asset=asset, quantity=quantity, price=price, currency=currency, at_us=at_us, fee=fee or None,
        fee_asset=currency if fee else None, account=account, note=note, coin=coin, custom_asset=True,
    )  # fmt: skip


def _yahoo(symbol: str, currency: str) -> str:
    """`BTC-USD` and `BTCUSD` -> `BTC`."""
    name = asset_name(symbol)
    for tail in (f"-{currency}", currency):
        if name.endswith(tail) and len(name) > len(tail):
            return name[: -len(tail)]
    return name


def own(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """Our own format: what an export wrote, exactly; the columns after `note` may be missing."""
    for line in lines:
        try:
            kind = line["type"].lower()
            if kind not in KINDS:
                raise RowError(f"type {line['type']!r:.40} is not known")
            coin_id = unsafe(line["coin_id"]) or None
            fee = amount_or_none(line["fee"], "fee")
            draft = Draft(
                kind=kind,  # type: ignore[arg-type] # checked above
                asset=unsafe(line["asset"]) or _missing("asset"),
                quantity=amount_or_none(line["quantity"], "quantity"),
                at_us=time_us(line["timestamp"], options.utc_offset),
                price=amount_or_none(line["price"], "price"),
                total=amount_or_none(line["total"], "total"),
                currency=_currency(line["currency"]),
                fx_rate=amount_or_none(line["fx_rate"], "fx_rate"),
                counter_asset=unsafe(line["counter_asset"]) or None,
                counter_quantity=amount_or_none(line["counter_quantity"], "counter_quantity"),
                fee=fee or None,
                fee_asset=(unsafe(line["fee_asset"]) or _currency(line["currency"])) if fee else None,
                fee_value=amount_or_none(line["fee_value"], "fee_value"),
                cost_basis=amount_or_none(line["cost_basis"], "cost_basis"),
                acquired_us=time_us(line["acquired_at"]) if line["acquired_at"] else None,
                account=options.account or _text(line, "account") or "main",
                to_account=_text(line, "to_account") or None,
                note=unsafe(line.cells.get("note", "")) or None,
                external_id=_text(line, "external_id") or None,
                allow_uncovered=line["allow_uncovered"].lower() == "true",
                price_source=line["price_source"] if line["price_source"] in SOURCES else None,
                coin=Coin(
                    coin_id, coin_id, unsafe(line["coin_name"]) or None, unsafe(line["coin_symbol"]) or None
                )
                if coin_id
                else None,
                custom_asset=True,
            )
            own_id = int(line["id"]) if line["id"].isdigit() and len(line["id"]) < 19 else None
            yield Outcome(line.number, (draft,), own_id=own_id)
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _text(line: Line, name: str) -> str:
    """A free text: blanks at its ends belong to it in an export of ours, which has ids, and to nobody in a file by hand."""
    return unsafe(line.cells.get(name, "") if line["id"] else line[name])


def _currency(text: str) -> str | None:
    """A currency as a transaction over HTTP may name it."""
    name = text.upper()
    if name and _CURRENCY.fullmatch(name) is None:
        raise RowError(f"{text!r:.20} is not a currency")
    return name or None


def _missing(name: str) -> str:
    raise RowError(f"{name} is missing")
