"""The older, newer and odder shapes of every format: other columns, other words, rows that must not count."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import Options

D = Decimal


def read(text: str) -> tuple[str, list[Any]]:
    name, outcomes = read_file(text, None, Options())
    return name, list(outcomes)


def drafts(text: str) -> list[tuple[Any, ...]]:
    _, outcomes = read(text)
    assert not [o.error for o in outcomes if o.error], [o.error for o in outcomes if o.error]
    return [short(d) for o in outcomes for d in o.drafts]


def short(draft: Any) -> tuple[Any, ...]:
    other = (
        f"{draft.counter_quantity} {draft.counter_asset}"
        if draft.kind == "trade"
        else f"{draft.total if draft.total is not None else draft.price} {draft.currency}"
    )
    fee = f"{draft.fee} {draft.fee_asset}" if draft.fee else ""
    return (draft.kind, f"{draft.quantity} {draft.asset}", other, fee)


# --- Binance -----------------------------------------------------------------------------------------------------

NO_USER = "UTC_Time,Account,Operation,Coin,Change,Remark\n"


def history(*rows: str) -> str:
    return NO_USER + "\n".join(f"2023-05-01 10:00:00,Spot,{row}," for row in rows) + "\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            ("Transaction Sold,BTC,-0.01", "Transaction Revenue,USDT,300", "Transaction Fee,BNB,-0.001"),
            ("sell", "0.01 BTC", "300 USDT", "0.001 BNB"),
        ),
        (
            ("Buy,ETH,1", "Buy,BTC,-0.05", "Fee,ETH,-0.001"),
            ("trade", "0.05 BTC", "1 ETH", "0.001 ETH"),
        ),
        (
            ("Transaction Related,EUR,-50", "Transaction Related,BTC,0.002"),
            ("buy", "0.002 BTC", "50 EUR", ""),
        ),
        (("Binance Convert,SOL,-2", "Binance Convert,BTC,0.001"), ("trade", "2 SOL", "0.001 BTC", "")),
        (("Staking Rewards,DOT,0.5",), ("staking", "0.5 DOT", "None None", "")),
        (("Simple Earn Locked Rewards,DOT,0.5",), ("staking", "0.5 DOT", "None None", "")),
        (("Launchpool Interest,DOT,0.5",), ("interest", "0.5 DOT", "None None", "")),
        (("BNB Vault Rewards,BNB,0.5",), ("staking", "0.5 BNB", "None None", "")),
        (("Airdrop Assets,XYZ,5",), ("airdrop", "5 XYZ", "None None", "")),
        (("Withdraw,BTC,-0.2",), ("withdraw", "0.2 BTC", "None None", "")),
    ],
)
def test_binance_operations_without_a_user_column(rows: tuple[str, ...], expected: tuple[Any, ...]) -> None:
    assert drafts(history(*rows)) == [expected]


@pytest.mark.parametrize(
    "operation",
    [
        "Transfer Between Main and Funding Wallet", "Simple Earn Flexible Subscription", "Staking Purchase",
        "Simple Earn Flexible Redemption", "Staking Redemption",
    ],
)  # fmt: skip
def test_binance_moves_within_the_venue_do_not_count(operation: str) -> None:
    _, outcomes = read(history(f"{operation},BTC,-1"))
    assert [o.ignored for o in outcomes] == ["moved within Binance"]


def test_a_second_that_is_no_single_trade_is_an_error_of_each_of_its_rows() -> None:
    _, outcomes = read(history("Buy,ETH,1", "Buy,BTC,-0.05", "Buy,SOL,3"))
    assert [o.row for o in outcomes if o.error and "no single trade" in o.error] == [2, 3, 4]


# --- Coinbase ----------------------------------------------------------------------------------------------------

ADDRESSES = (
    "\nTransactions\nUser,Jane,1\nID,Timestamp,Transaction Type,Asset,Quantity Transacted,Price Currency,"
    "Price at Transaction,Subtotal,Total (inclusive of fees and/or spread),Fees and/or Spread,Notes,"
    "Sender Address,Recipient Address\n"
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Buy", ("buy", "2 ETH", "300.00 USD", "4.47 USD")),
        ("Advanced Trade Buy", ("buy", "2 ETH", "300.00 USD", "4.47 USD")),
        ("Advanced Trade Sell", ("sell", "2 ETH", "300.00 USD", "4.47 USD")),
        ("Card Spend", ("sell", "2 ETH", "300.00 USD", "4.47 USD")),
        ("Receive", ("deposit", "2 ETH", "300.00 USD", "")),
        ("Send", ("withdraw", "2 ETH", "300.00 USD", "")),
        ("Rewards Income", ("reward", "2 ETH", "300.00 USD", "")),
        ("Inflation Reward", ("staking", "2 ETH", "300.00 USD", "")),
        ("Learning Reward", ("reward", "2 ETH", "300.00 USD", "")),
        ("Coinbase Earn", ("reward", "2 ETH", "300.00 USD", "")),
        ("Interest payout", ("interest", "2 ETH", "300.00 USD", "")),
        ("Staking Income", ("staking", "2 ETH", "300.00 USD", "")),
    ],
)
def test_coinbase_types_in_files_with_addresses(kind: str, expected: tuple[Any, ...]) -> None:
    row = f"x1,2024-12-19 17:59:59 UTC,{kind},ETH,2,USD,$150.00,$300.00,$304.47,$4.47,,0xaa,0xbb\n"
    assert drafts(ADDRESSES + row) == [expected]


@pytest.mark.parametrize("kind", ["Pro Deposit", "Pro Withdrawal", "Exchange Deposit", "Exchange Withdrawal"])
def test_coinbase_moves_to_its_other_venues_do_not_count(kind: str) -> None:
    _, outcomes = read(ADDRESSES + f"x1,2024-12-19 17:59:59 UTC,{kind},ETH,2,USD,$1,$2,$2,$0,,,\n")
    assert [o.ignored for o in outcomes] == ["moved within Coinbase"]


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (
            "Spot Price Currency,Spot Price at Transaction,Subtotal,Total (inclusive of fees and/or spread),Fees and/or Spread",
            "EUR,150,300.00,304.47,4.47",
        ),
        (
            "Spot Price Currency,Spot Price at Transaction,Subtotal,Total (inclusive of fees),Fees",
            "EUR,150,300.00,304.47,4.47",
        ),
    ],
)
def test_coinbase_older_columns_after_a_preamble(columns: str, row: str) -> None:
    preamble = '"You can use this transaction report to inform your likely tax obligations."\n' + "\n" * 6
    text = f"{preamble}Timestamp,Transaction Type,Asset,Quantity Transacted,{columns},Notes\n"
    assert drafts(text + f"2021-04-20T06:11:33Z,Buy,ETH,2,{row},Bought\n") == [
        ("buy", "2 ETH", "300.00 EUR", "4.47 EUR")
    ]


def test_a_coinbase_conversion_without_its_second_leg_is_an_error() -> None:
    _, outcomes = read(ADDRESSES + "x1,2024-12-19 17:59:59 UTC,Convert,ETH,2,USD,$1,$2,$2,$0,,,\n")
    assert "converted to" in outcomes[0].error


# --- Kraken ------------------------------------------------------------------------------------------------------

KRAKEN_HEADS = (
    "txid,refid,time,type,subtype,aclass,asset,amount,fee,balance",
    "txid,refid,time,type,subtype,aclass,asset,wallet,amount,fee,balance",
    "txid,refid,time,type,subtype,aclass,subclass,asset,wallet,amount,fee,balance",
    "txid,refid,time,type,subtype,aclass,subclass,asset,wallet,amount,amountusd,fee,feeusd,balance,balanceusd,feecurrency",
)


def kraken(head: str, *rows: tuple[str, str, str, str, str, str]) -> str:
    lines = [head]
    for number, (refid, kind, subtype, asset, units, fee) in enumerate(rows):
        cells = dict.fromkeys(head.split(","), "0") | {
            "txid": f"L{number}", "refid": refid, "time": "2023-01-02 00:00:00", "type": kind, "subtype": subtype,
            "aclass": "currency", "subclass": "crypto", "wallet": "spot / main", "asset": asset, "amount": units,
            "fee": fee,
        }  # fmt: skip
        lines.append(",".join(f'"{cells[name]}"' for name in head.split(",")))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("head", KRAKEN_HEADS)
def test_kraken_columns_are_found_by_name(head: str) -> None:
    text = kraken(
        head, ("T1", "spend", "", "ZEUR", "-500", "0.8"), ("T1", "receive", "", "XXBT", "0.02", "0"),
        ("D1", "deposit", "", "XXDG", "100", "2"),
    )  # fmt: skip
    assert drafts(text) == [
        ("deposit", "98 DOGE", "None None", ""),
        ("buy", "0.02 BTC", "500 EUR", "0.8 EUR"),
    ]


@pytest.mark.parametrize(
    ("code", "asset"),
    [("XXBT", "BTC"), ("XBT.M", "BTC"), ("XETH", "ETH"), ("ETH2.S", "ETH"), ("XXDG", "DOGE"), ("DOT28.S", "DOT"),
     ("ADA.S", "ADA"), ("ZEUR", "EUR"), ("EUR.HOLD", "EUR"), ("USDC.M", "USDC"), ("SOL.F", "SOL")],
)  # fmt: skip
def test_kraken_codes(code: str, asset: str) -> None:
    assert drafts(kraken(KRAKEN_HEADS[0], ("D1", "deposit", "", code, "1", "0")))[0][1] == f"1 {asset}"


@pytest.mark.parametrize(
    ("kind", "subtype", "expected"),
    [
        ("staking", "", "staking"),
        ("earn", "reward", "staking"),
        ("dividend", "", "income"),
        ("transfer", "airdrop", "airdrop"),
        ("transfer", "", "airdrop"),
    ],
)
def test_kraken_income(kind: str, subtype: str, expected: str) -> None:
    assert drafts(kraken(KRAKEN_HEADS[1], ("I1", kind, subtype, "FLR", "5", "1"))) == [
        (expected, "4 FLR", "None None", "")
    ]


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("transfer", "spottostaking"), ("transfer", "stakingfromspot"), ("transfer", "spottofutures"),
        ("earn", "allocation"), ("earn", "autoallocation"), ("hybridearnwithdrawal", ""),
    ],
)  # fmt: skip
def test_kraken_moves_within_the_venue_do_not_count(kind: str, subtype: str) -> None:
    _, outcomes = read(kraken(KRAKEN_HEADS[1], ("I1", kind, subtype, "ADA", "-5", "0")))
    assert [o.ignored for o in outcomes] == ["moved within Kraken"]


@pytest.mark.parametrize("kind", ["margin", "rollover", "adjustment"])
def test_kraken_what_is_not_supported_is_said(kind: str) -> None:
    _, outcomes = read(kraken(KRAKEN_HEADS[0], ("M1", kind, "", "ZEUR", "-5", "0")))
    assert "is not supported" in outcomes[0].error


def test_kraken_fee_credits_are_no_asset() -> None:
    text = kraken(
        KRAKEN_HEADS[0], ("G1", "deposit", "", "KFEE", "1000", "0"), ("T1", "trade", "", "XXBT", "0.01", "0"),
        ("T1", "trade", "", "ZEUR", "-400", "0"), ("T1", "trade", "", "KFEE", "0", "64"),
    )  # fmt: skip
    assert drafts(text) == [("buy", "0.01 BTC", "400 EUR", "")]


@pytest.mark.parametrize("kind", ["earn", "transfer"])
def test_kraken_conversions_of_delisted_coins_are_trades_and_never_income(kind: str) -> None:
    pair = ("I1", kind, "delistingconversion", "LUNA2", "-50", "0"), ("I1", kind, "delistingconversion", "USDC", "21", "0")  # fmt: skip
    assert drafts(kraken(KRAKEN_HEADS[0], *pair)) == [("sell", "50 LUNA2", "21 USDC", "")]
    _, outcomes = read(kraken(KRAKEN_HEADS[0], pair[1]))
    assert "no single trade" in outcomes[0].error


def test_kraken_trades_with_slashes_and_margin() -> None:
    head = "txid,ordertxid,pair,aclass,subclass,time,type,ordertype,price,cost,fee,vol,margin,misc,ledgers,posttxid\n"
    row = 'T1,O1,{},forex,crypto,2023-01-02 00:00:00.5,buy,limit,30000,600,0.9,0.02,{},"","L1,L2",""\n'
    assert drafts(head + row.format("BTC/EUR", "0.0")) == [("buy", "0.02 BTC", "600 EUR", "0.9 EUR")]
    _, outcomes = read(head + row.format("XBTEUR", "5"))
    assert outcomes[0].error == "margin trades are not supported"


# --- trackers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "side", "expected"),
    [
        ("Deposit", "in", "deposit"), ("Mining", "in", "mining"), ("Airdrop", "in", "airdrop"),
        ("Interest Income", "in", "interest"), ("Reward / Bonus", "in", "reward"), ("Withdrawal", "out", "withdraw"),
        ("Donation", "out", "gift"), ("Stolen", "out", "lost"), ("Other Fee", "out", "fee"),
    ],
)  # fmt: skip
def test_cointracking_types(kind: str, side: str, expected: str) -> None:
    sides = '"1","ADA","-",""' if side == "in" else '"-","","1","ADA"'
    text = '"Type","Buy","Cur.","Sell","Cur.","Fee","Cur.","Exchange","Group","Comment","Date"\n'
    text += f'"{kind}",{sides},"-","","Kraken","","","31.12.2019 23:59"\n'
    assert drafts(text) == [(expected, "1 ADA", "None None", "")]


KOINLY_HISTORY = (
    "Transaction report 2025\n\nDate,Type,{},Sending Wallet,Sent Amount,Sent Currency,Sent Cost Basis,Receiving Wallet,"
    "Received Amount,Received Currency,Received Cost Basis,Fee Amount,Fee Currency,Gain (EUR),Net Value (EUR),"
    "Fee Value (EUR),TxSrc,TxDest,TxHash,Description\n"
)


@pytest.mark.parametrize("label", ["Label", "Tag"])
def test_koinly_histories_have_wallets_transfers_and_the_users_currency(label: str) -> None:
    text = KOINLY_HISTORY.format(label) + (
        "2025-01-10 09:00:00 UTC,crypto_deposit,Reward,ByBit,0,,,Ledger,5,BERA;99,5,,,,40,,,,0xa,\n"
        "2025-01-11 09:00:00 UTC,exchange,,Kraken,1,ETH,5,Kraken,0.05,BTC,5,0.001,ETH,1,2000,2,,,,swap\n"
        "2025-01-12 09:00:00 UTC,transfer,,Kraken,1.01,ETH,5,Ledger,1,ETH,5,0.01,ETH,,,,,,0xb,\n"
        "2025-01-13 09:00:00 UTC,transfer,,Kraken,1.02,ETH,5,Ledger,1,ETH,5,,,,,,,,,\n"
        "2025-01-14 09:00:00 UTC,crypto_withdrawal,Gift,Ledger,2,ETH,5,,,,,,,,4000,,,,,\n"
        "2025-01-15 09:00:00 UTC,buy,,Kraken,100,EUR,,Kraken,0.001,BTC,,,,,100,,,,,\n"
    )
    name, outcomes = read(text)
    found = [d for o in outcomes for d in o.drafts]
    assert name == "koinly"
    assert [short(d) for d in found] == [
        ("reward", "5 BERA", "40 EUR", ""),
        ("trade", "1 ETH", "0.05 BTC", "0.001 ETH"),
        ("transfer", "1 ETH", "None None", "0.01 ETH"),
        ("transfer", "1 ETH", "None None", "0.02 ETH"),
        ("gift", "2 ETH", "4000 EUR", ""),
        ("buy", "0.001 BTC", "100 EUR", ""),
    ]
    assert [(d.account, d.to_account) for d in found] == [
        ("Ledger", None), ("Kraken", None), ("Kraken", "Ledger"), ("Kraken", "Ledger"), ("Ledger", None), ("Kraken", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("transfer,,Kraken,1,ETH,,Ledger,1.5,ETH,,,,,,,,,,", "more arrives"),
        ("transfer,,Kraken,1,ETH,,Kraken,1,ETH,,,,,,,,,,", "another wallet"),
        ("transfer,,Kraken,1,ETH,,Ledger,0.5,ETH,,0.1,ETH,,,,,,,", "is not the fee"),
        ("crypto_deposit,Loan,,,,,Ledger,1,ETH,,,,,,,,,,", "label 'loan' is not known"),
        ("crypto_withdrawal,Loan,Ledger,1,ETH,,,,,,,,,,,,,,", "label 'loan' is not known"),
        ("crypto_deposit,,,,,,Ledger,,,,,,,,,,,,", "neither"),
    ],
)
def test_koinly_rows_that_do_not_add_up_are_errors(row: str, error: str) -> None:
    _, outcomes = read(KOINLY_HISTORY.format("Label") + f"2025-01-10 09:00:00 UTC,{row}\n")
    assert error in outcomes[0].error


def test_ghostfolio_fees_yahoo_symbols_and_income() -> None:
    rows = [
        '{"type":"BUY","quantity":2,"unitPrice":100,"fee":1,"currency":"EUR","symbol":"BTC-EUR","dataSource":"YAHOO","date":"2023-01-01T00:00:00.000Z"}',
        '{"type":"SELL","quantity":1,"unitPrice":120,"fee":0,"currency":"USD","symbol":"ETHUSD","dataSource":"YAHOO","date":"2023-01-02T00:00:00.000Z"}',
        '{"type":"INTEREST","quantity":1,"unitPrice":3,"fee":0,"currency":"USD","symbol":"USDC","dataSource":"MANUAL","date":"2023-01-03T00:00:00.000Z"}',
        '{"type":"FEE","quantity":0,"unitPrice":0,"fee":4,"currency":"USD","symbol":"x","dataSource":"MANUAL","date":"2023-01-04T00:00:00.000Z"}',
    ]
    assert drafts('{"activities":[' + ",".join(rows) + "]}") == [
        ("buy", "2 BTC", "100 EUR", "1 EUR"),
        ("sell", "1 ETH", "120 USD", ""),
        ("interest", "1 USDC", "3 USD", ""),
        ("fee", "4 USD", "None None", ""),
    ]
