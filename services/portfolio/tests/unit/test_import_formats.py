"""Files as exchanges write them, with their oddities, read to the exact drafts that they mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import Options, RowError, amount, decoded, time_us

D = Decimal


def read(text: str, options: Options | None = None, wanted: str | None = None) -> tuple[str, list[Any]]:
    name, outcomes = read_file(text, wanted, options or Options())
    return name, list(outcomes)


def told(text: str, options: Options | None = None) -> tuple[str, list[tuple[Any, ...]]]:
    name, outcomes = read(text, options)
    assert not [o.error for o in outcomes if o.error], [o.error for o in outcomes if o.error]
    return name, [short(d) for o in outcomes for d in o.drafts]


def short(draft: Any) -> tuple[Any, ...]:
    money = str(draft.total if draft.total is not None else draft.price)
    other = (
        f"{draft.counter_quantity} {draft.counter_asset}"
        if draft.kind == "trade"
        else f"{money} {draft.currency}"
    )
    fee = f"{draft.fee} {draft.fee_asset}" if draft.fee else ""
    return (draft.kind, f"{draft.quantity} {draft.asset}", other, fee)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def test_binance_trades_with_glued_assets_thousands_commas_and_a_byte_order_mark() -> None:
    text = (
        "\ufeffDate(UTC),Pair,Side,Price,Executed,Amount,Fee\n"
        "2023-01-02 03:04:05,DOGEEUR,BUY,0.31031,500DOGE,155.15500000EUR,0.5DOGE\n"
        "2023-01-02 03:05:05,1INCHBTC,SELL,0.00002,101INCH,0.0002BTC,0.00001BNB\n"
        '2023-01-02 03:06:05,BTCUSDT,BUY,"20,000","1.5BTC","30,000USDT",0.0015BTC\n'
    )
    name, drafts = told(text)
    assert name == "binance_trades"
    assert drafts == [
        ("buy", "500 DOGE", "155.15500000 EUR", "0.5 DOGE"),
        ("trade", "10 1INCH", "0.0002 BTC", "0.00001 BNB"),
        ("buy", "1.5 BTC", "30000 USDT", "0.0015 BTC"),
    ]


def test_older_binance_trades_split_the_market_by_known_quotes() -> None:
    name, drafts = told(
        "Date(UTC),Market,Type,Price,Amount,Total,Fee,Fee Coin\n2019-01-02 03:04:05,BNBETH,SELL,0.05,10,0.5,0.01,BNB\n"
    )
    assert (name, drafts) == ("binance_trades_old", [("trade", "10 BNB", "0.5 ETH", "0.01 BNB")])


HISTORY = """User_ID,UTC_Time,Account,Operation,Coin,Change,Remark
1,2022-05-01 10:00:00,Spot,Deposit,EUR,500,
1,2022-05-01 10:05:00,Spot,Transaction Buy,BTC,0.01,
1,2022-05-01 10:05:00,Spot,Transaction Spend,EUR,-300,
1,2022-05-01 10:05:00,Spot,Transaction Fee,BNB,-0.001,
1,2022-05-01 10:05:00,Spot,Transaction Buy,BTC,0.005,
1,2022-05-01 10:05:00,Spot,Transaction Spend,EUR,-150,
1,2022-05-02 00:00:00,Earn,Simple Earn Flexible Interest,BTC,0.00001,
1,2022-05-02 00:00:00,Earn,Simple Earn Flexible Interest,BTC,0.00001,
1,2022-05-02 01:00:00,Spot,Simple Earn Flexible Subscription,BTC,-0.005,
1,2022-05-03 00:00:00,Spot,Small Assets Exchange BNB,XLM,-2,
1,2022-05-03 00:00:00,Spot,Small Assets Exchange BNB,BNB,0.002,
1,2022-05-04 00:00:00,Spot,Some New Thing,BTC,1,
"""


def test_binance_history_groups_fills_of_a_second_and_tells_identical_rows_apart() -> None:
    name, outcomes = read(HISTORY)
    assert name == "binance_history"
    drafts = [short(d) for o in outcomes for d in o.drafts]
    assert ("buy", "0.015 BTC", "450 EUR", "0.001 BNB") in drafts
    assert ("trade", "2 XLM", "0.002 BNB", "") in drafts
    interest = [d for o in outcomes for d in o.drafts if d.kind == "interest"]
    assert len({d.fingerprint for d in interest}) == 2
    assert [o.row for o in outcomes if o.error] == [13]
    assert sum(o.ignored is not None for o in outcomes) == 6


def test_a_zone_that_only_the_file_name_states_is_applied_to_two_digit_years() -> None:
    text = "User ID,Time,Account,Operation,Coin,Change,Remark\n1,23-12-22 18:26:26,Spot,Deposit,BTC,1,\n"
    _, outcomes = read(text, Options(filename="Binance-history-(UTC--6).csv"))
    assert outcomes[0].drafts[0].at_us == at("2023-12-23T00:26:26")


def test_binance_deposits_and_withdrawals_skip_what_failed() -> None:
    name, outcomes = read(
        "Date(UTC+0),Coin,Network,Amount,Fee,Address,TXID,Status\n"
        "2023-01-01 00:00:00,BTC,BTC,0.5,0.0005,bc1,tx1,Completed\n2023-01-01 00:00:00,BTC,BTC,0.5,0.0005,bc1,tx2,Failed\n"
    )
    assert name == "binance_withdrawals"
    assert [short(d) for o in outcomes for d in o.drafts] == [
        ("withdraw", "0.5 BTC", "None None", "0.0005 BTC")
    ]
    assert outcomes[1].ignored == "status failed"
    name, drafts = told(
        "Date(UTC+0),Coin,Network,Amount,Address,TXID,Status\n2023-01-01 00:00:00,BTC,BTC,0.5,bc1,tx1,Completed\n"
    )
    assert (name, drafts[0][0]) == ("binance_deposits", "deposit")


COINBASE = """
Transactions
User,Jane Doe,6d5c3a0e
ID,Timestamp,Transaction Type,Asset,Quantity Transacted,Price Currency,Price at Transaction,Subtotal,Total (inclusive of fees and/or spread),Fees and/or Spread,Notes
a1,2024-12-19 17:59:59 UTC,Sell,BTC,-0.5,USD,"$100,000.00","$50,000.00","$49,900.00",$100.00,Sold
a2,2024-12-18 17:59:59 UTC,Convert,BTC,0.00363125,USD,"$100,000.00",$363.13,$360.00,$3.13,Converted 0.00363125 BTC to 156.145683 XRP
a3,2024-12-17 17:59:59 UTC,Staking Income,ETH,0.001,USD,"$4,000",$4.00,$4.00,$0.00,
a4,2024-12-16 17:59:59 UTC,Exchange Deposit,BTC,0.1,USD,$1,$1,$1,$0.00,
a5,2024-12-15 17:59:59 UTC,Send,BTC,-0.01,USD,"$100,000.00",$1000.00,$1000.00,$0.00,To Bob
a6,2024-12-14 17:59:59 UTC,Mystery,BTC,1,USD,$1,$1,$1,$0,
"""


def test_current_coinbase_files_have_a_preamble_symbols_and_conversions_in_notes() -> None:
    name, outcomes = read(COINBASE)
    assert name == "coinbase"
    assert [short(d) for o in outcomes for d in o.drafts] == [
        ("sell", "0.5 BTC", "50000.00 USD", "100.00 USD"),
        ("trade", "0.00363125 BTC", "156.145683 XRP", "3.13 USD"),
        ("staking", "0.001 ETH", "4.00 USD", ""),
        ("withdraw", "0.01 BTC", "1000.00 USD", ""),
    ]
    assert outcomes[0].drafts[0].external_id == "coinbase:a1"
    assert [o.row for o in outcomes if o.error] == [10]


def test_older_coinbase_files_name_the_currency_in_their_columns() -> None:
    text = (
        '"You can use this transaction report to inform your likely tax obligations."\n\n\n'
        "Timestamp,Transaction Type,Asset,Quantity Transacted,USD Spot Price at Transaction,USD Subtotal,USD Total (inclusive of fees),USD Fees,Notes\n"
        "2019-04-20T06:11:33Z,Buy,ETH,2,150,300.00,304.47,4.47,Bought\n"
    )
    assert told(text) == ("coinbase_old", [("buy", "2 ETH", "300.00 USD", "4.47 USD")])


KRAKEN = """"txid","refid","time","type","subtype","aclass","asset","amount","fee","balance"
"L1","R1","2021-01-01 00:00:00","deposit","","currency","ZEUR","1000.0000","0.0000","1000"
"","R2","2021-01-01 00:00:01","deposit","","currency","ZEUR","5","0",""
"L2","T1","2021-01-02 00:00:00","trade","","currency","ZEUR","-500.0000","0.8000","499.2"
"L3","T1","2021-01-02 00:00:00","trade","","currency","XXBT","0.0200000000","0.0000","0.02"
"L4","S1","2021-01-03 00:00:00","staking","","currency","DOT.S","0.5000","0.0000","0.5"
"L5","S2","2021-01-03 00:00:00","transfer","spottostaking","currency","DOT","-1","0","0"
"L6","W1","2021-01-04 00:00:00","withdrawal","","currency","XXBT","-0.0100","0.0005","0.0095"
"L7","M1","2021-01-04 00:00:00","margin","","currency","ZEUR","-1","0","0"
"""


def test_kraken_ledgers_pair_rows_by_refid_and_map_codes() -> None:
    name, outcomes = read(KRAKEN)
    assert name == "kraken_ledgers"
    drafts = {d.external_id: short(d) for o in outcomes for d in o.drafts}
    assert drafts == {
        "kraken:L1": ("deposit", "1000.0000 EUR", "None None", ""),
        "kraken:T1": ("buy", "0.0200000000 BTC", "500.0000 EUR", "0.8000 EUR"),
        "kraken:L4": ("staking", "0.5000 DOT", "None None", ""),
        "kraken:L6": ("withdraw", "0.0100 BTC", "None None", "0.0005 BTC"),
    }
    assert [o.row for o in outcomes if o.error] == [9]


def test_kraken_trades() -> None:
    name, drafts = told(
        '"txid","ordertxid","pair","time","type","ordertype","price","cost","fee","vol","margin","misc","ledgers"\n'
        '"T1","O1","XXBTZUSD","2021-01-02 00:00:00.1234","sell","limit","30000","600","0.9","0.02","0.00000","","L1,L2"\n'
    )
    assert (name, drafts) == ("kraken_trades", [("sell", "0.02 BTC", "600 USD", "0.9 USD")])


def test_cointracking_has_three_columns_of_one_name_and_day_first_times() -> None:
    name, outcomes = read(
        '"Type","Buy","Cur.","Sell","Cur.","Fee","Cur.","Exchange","Group","Comment","Date"\n'
        '"Trade","1.0","BTC","9000.00","EUR","5.0","EUR","Kraken","","note","31.12.2019 23:59:58"\n'
        '"Staking","0.1","ADA","-","","-","","Binance","","","01.02.2020 00:00:00"\n'
        '"Lost","-","","2","ADA","-","","Binance","","","02.02.2020 00:00:00"\n'
    )
    assert name == "cointracking"
    assert [short(d) for o in outcomes for d in o.drafts] == [
        ("buy", "1.0 BTC", "9000.00 EUR", "5.0 EUR"),
        ("staking", "0.1 ADA", "None None", ""),
        ("lost", "2 ADA", "None None", ""),
    ]
    assert outcomes[0].drafts[0].at_us == at("2019-12-31T23:59:58")


def test_koinly_currencies_may_carry_an_id() -> None:
    name, drafts = told(
        "Date,Sent Amount,Sent Currency,Received Amount,Received Currency,Fee Amount,Fee Currency,Net Worth Amount,Net Worth Currency,Label,Description,TxHash\n"
        "2023-01-01 00:00:00 UTC,1,WFLR;9546698,0.5,ETH,0.01,ETH,100,USD,,swap,0xabc\n"
        "2023-01-02 00:00:00 UTC,,,2,ADA,,,1.5,USD,reward,,\n"
    )
    assert (name, drafts) == (
        "koinly",
        [("trade", "1 WFLR", "0.5 ETH", "0.01 ETH"), ("reward", "2 ADA", "1.5 USD", "")],
    )


def test_ghostfolio_numbers_keep_every_digit() -> None:
    body = {
        "meta": {"date": "2023-01-01T00:00:00.000Z", "version": "2"},
        "activities": [
            {"type": "BUY", "quantity": 1, "unitPrice": 2, "fee": 0.5, "currency": "USD", "symbol": "bitcoin",
             "dataSource": "COINGECKO", "date": "2021-12-12T00:00:00.000Z", "accountId": "a", "comment": None},
            {"type": "LIABILITY", "quantity": 1, "unitPrice": 2, "currency": "USD", "date": "2021-12-12T00:00:00Z"},
        ],
    }  # fmt: skip
    text = json.dumps(body).replace('"quantity": 1', '"quantity": 0.1234567890123456789012', 1)
    name, outcomes = read(text)
    assert name == "ghostfolio"
    assert outcomes[0].drafts[0].quantity == D("0.1234567890123456789012")
    assert outcomes[0].drafts[0].coin.coin_id == "bitcoin"
    assert outcomes[1].error is not None


@pytest.mark.parametrize("body", [b"", b"  \n ", b"\x89PNG\x00\x01", b"\xff\xfe\x00"])
def test_what_is_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        decoded(body)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_spreadsheets_are_read(encoding: str) -> None:
    text, _ = decoded("type,note\nKauf,für Zoë — größer\n".encode(encoding))
    assert "für Zoë" in text


@pytest.mark.parametrize("text", ["a,b,c\n1,2,3\n", "{", "no header at all"])
def test_an_unknown_format_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read(text)


def test_a_truncated_file_gives_a_verdict_on_its_last_row() -> None:
    _, outcomes = read(KRAKEN + '"L8","R8","2021-01-0')
    assert [o.row for o in outcomes if o.error] == [9, 10]


def test_another_format_than_the_wanted_one_is_said() -> None:
    with pytest.raises(Invalid, match="kraken_trades"):
        read(KRAKEN, wanted="kraken_trades")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,234.56", "1234.56"),
        ("(5.00)", "-5.00"),
        ("12,5", "12.5"),
        ("1e-8", "1e-8"),
        ("€ 3", "3"),
        ("1,000", "1000"),
    ],
)
def test_amounts_as_files_print_them(text: str, value: str) -> None:
    assert amount(text) == D(value)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_at_the_edge_of_all_times_is_an_error_of_its_row(text: str) -> None:
    with pytest.raises(RowError):
        time_us(text)


def test_a_time_without_a_zone_takes_the_given_offset() -> None:
    assert time_us("2023-06-01 12:00:00", timedelta(hours=2)) == at("2023-06-01T10:00:00")
    assert time_us("2023-06-01T12:00:00+02:00") == at("2023-06-01T10:00:00")
