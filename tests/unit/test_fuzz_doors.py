"""What clients and other services send, nearly right: commands, files, rules, cursors, bus messages. Read, or refused by name."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.common.bus.codec import decode, encode
from cryptopulse.common.contracts.http.alerts import AlertCreate
from cryptopulse.common.contracts.topics import TOPICS, Topic
from cryptopulse.common.errors import Invalid
from cryptopulse.common.testing.mutations import POISONS, fuzz, mutated, mutated_text
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.gateway.domain.protocol import CommandRefusedError, parse_command
from cryptopulse.gateway.domain.protocol import encode as encode_answer
from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import Options, decoded
from tests.contract import golden

COMMANDS: list[Any] = [
    {"op": "subscribe", "id": 1, "channels": [{"ch": "prices", "symbols": ["BTC-USD"], "every_ms": 100}]},
    {"op": "subscribe", "channels": [{"ch": "candles.1m", "symbols": ["BTC"], "resume": {"BTC": {"epoch": "e", "offset": 4}}}]},
    {"op": "unsubscribe", "id": "x", "channels": [{"ch": "trades", "symbols": ["BTC-USD"], "source": "binance"}]},
    {"op": "list", "id": 2},
    {"op": "ping", "ts": 17},
    {"op": "auth", "token": "t"},
    {"op": "ack", "alert_event": "ae_1"},
]  # fmt: skip
RULES: list[Any] = [
    {"symbol": "BTC", "condition": "above", "price": "70000", "for_seconds": 60},
    {"symbol": "BTC-USDT", "source": "binance", "condition": {"type": "price_cross", "value": 7e4}, "trigger": "recurring", "cooldown_seconds": 600},
    {"symbol": "BTC", "condition": {"type": "price_enter_range", "low": "1", "high": "2"}, "expires_at": "2030-01-01T00:00:00Z"},
    {"symbol": "BTC", "condition": {"type": "price_above", "value": "1"}, "message": "{symbol} {price}", "hysteresis": {"pct": "1"}},
    {"symbol": "BTC", "condition": {"type": "all", "conditions": [
        {"type": "price_above", "value": "1"}, {"type": "not", "conditions": [{"type": "price_below", "value": "2", "symbol": "ETH"}]},
    ]}},
]  # fmt: skip
FILES = [
    "Date(UTC),Pair,Side,Price,Executed,Amount,Fee\n2023-01-02 03:04:05,DOGEEUR,BUY,0.31031,500DOGE,155.155EUR,0.5DOGE\n",
    ("timestamp,type,asset,quantity,price,currency,total,counter_asset,counter_quantity,fee,fee_asset,account,note\n"
    "2023-01-02T03:04:05Z,buy,BTC,0.5,20000,USD,,,,1,USD,main,\n2023-01-03T03:04:05Z,sell,BTC,0.1,21000,USD,,,,,,main,n\n"),
    ('"txid","refid","time","type","subtype","aclass","asset","amount","fee","balance"\n'
    '"L1","R1","2023-01-02 03:04:05","trade","","currency","XXBT",0.5,0,0.5\n'
    '"L2","R1","2023-01-02 03:04:05","trade","","currency","ZEUR",-1000,1,5\n'),
    ("txid,ordertxid,pair,time,type,ordertype,price,cost,fee,vol,margin,misc,ledgers\n"
    "T1,O1,XXBTZEUR,2023-01-02 03:04:05.1234,buy,limit,20000,10000,16,0.5,0,,L1\n"),
    ("User_ID,UTC_Time,Account,Operation,Coin,Change,Remark\n1,2023-01-02 03:04:05,Spot,Buy,BTC,0.5,\n"
    "1,2023-01-02 03:04:05,Spot,Transaction Related,EUR,-100,\n1,2023-01-02 03:04:05,Spot,Fee,BNB,-0.1,\n"),
    ("Timestamp,Transaction Type,Asset,Quantity Transacted,Spot Price Currency,Spot Price at Transaction,Subtotal,Total,Fees,Notes\n"
    "2023-01-02T03:04:05Z,Buy,BTC,0.5,EUR,20000,10000,10010,10,Bought 0.5 BTC for 10010 EUR\n"
    "2023-01-02T03:04:06Z,Convert,BTC,0.1,EUR,20000,2000,2000,0,Converted 0.1 BTC to 1.5 ETH\n"),
    ("Date,Sent Amount,Sent Currency,Received Amount,Received Currency,Fee Amount,Fee Currency,Net Worth Amount,Net Worth Currency,"
    "Label,Description,TxHash\n2023-01-02 03:04:05 UTC,100,EUR,0.005,BTC,1,EUR,,,,,\n"),
    "Type,Buy,Cur.,Sell,Cur.,Fee,Cur.,Exchange,Group,Comment,Date\nTrade,0.5,BTC,100,EUR,1,EUR,Kraken,,,2023-01-02 03:04:05\n",
]  # fmt: skip
GHOSTFOLIO: list[Any] = [
    {"activities": [{"type": "BUY", "symbol": "bitcoin", "date": "2023-01-02T03:04:05Z", "quantity": 0.5, "unitPrice": 20000, "fee": 1, "currency": "EUR", "dataSource": "COINGECKO", "comment": None}]},
]  # fmt: skip
CURSOR = Cursor("s" * 32)
PATIENCE_SECONDS = 5.0


@fuzz
@given(mutated(COMMANDS))
def test_a_command_is_read_or_refused_and_its_id_can_be_written_back(frame: bytes) -> None:
    try:
        ident = parse_command(frame).id
    except CommandRefusedError as error:
        ident = error.ident
        encode_answer({"detail": error.detail})
    encode_answer({"id": ident})


@fuzz
@given(mutated_text(FILES) | mutated(GHOSTFOLIO))
def test_a_file_is_read_row_by_row_or_refused(body: bytes) -> None:
    began = time.monotonic()
    try:
        text, _ = decoded(body)
        _, outcomes = read_file(text, None, Options())
        read = list(outcomes)
    except Invalid:
        return
    finally:
        assert time.monotonic() - began < PATIENCE_SECONDS
    for outcome in read:
        assert outcome.drafts or outcome.ignored or outcome.error
        for draft in outcome.drafts:
            numbers = [draft.quantity, draft.price, draft.total, draft.fee]
            assert all(number is None or number.is_finite() for number in numbers)


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_a_whole_file_has_rows_that_are_read(text: str) -> None:
    _, outcomes = read_file(text, None, Options())
    assert any(outcome.drafts for outcome in outcomes)


@pytest.mark.parametrize("rule", RULES)
def test_a_whole_rule_is_understood(rule: dict[str, Any]) -> None:
    AlertCreate.model_validate(rule)


@fuzz
@given(mutated(RULES))
def test_a_rule_is_understood_or_refused(body: bytes) -> None:
    try:
        rule = AlertCreate.model_validate_json(body)
    except pydantic.ValidationError:
        return
    again = AlertCreate.model_validate_json(rule.model_dump_json(exclude_unset=True))
    assert again == rule


@fuzz
@given(
    st.binary(max_size=200)
    | st.sampled_from(POISONS).map(lambda key: CURSOR.encode((str(key),), "x").encode()),
    st.randoms(),
)
def test_a_cursor_is_ours_or_refused(raw: bytes, random: Any) -> None:
    made = raw.decode("latin-1")
    for text in (
        made,
        base64.urlsafe_b64encode(raw).decode(),
        made[: random.randint(0, len(made))],
        made * 50,
    ):
        with pytest.raises(Invalid) as refused:
            CURSOR.decode(text, "alerts")
        assert refused.value.code == "invalid-cursor"


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.type_name)
def test_a_message_is_decoded_or_undecodable(topic: Topic, data: st.DataObject) -> None:
    seeds = [
        msgspec.msgpack.decode(encode(example))
        for example in golden.MESSAGES.values()
        if type(example) is topic.message
    ]
    body = data.draw(mutated(seeds))
    try:
        raw = msgspec.msgpack.encode(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        raw = body
    try:
        _, message = decode(raw, topic.type_name)
    except Invalid:
        return
    again = encode(message)
    assert encode(decode(again, topic.type_name)[1]) == again
