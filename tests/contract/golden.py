"""Golden messages: one whole example of every topic. `python tests/contract/golden.py` adds files for new topics or versions only."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from cryptopulse.common.bus.codec import encode
from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.candles import Candle, CandleBatch, HistoryBatch
from cryptopulse.common.contracts.catalogue import Coin, CoinList, Instrument, InstrumentList
from cryptopulse.common.contracts.feeds import (
    BudgetStatus,
    ConnectionStatus,
    FeedStatus,
    HistoryProgress,
    TradeGap,
)
from cryptopulse.common.contracts.indicators import IndicatorBatch, IndicatorUpdate, Signal, Warmup
from cryptopulse.common.contracts.portfolio import PortfolioChanged, PortfolioValueBatch, PortfolioValued
from cryptopulse.common.contracts.prices import ExcludedSource, PriceBatch, PriceUpdate
from cryptopulse.common.contracts.ticks import Conflated, Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.topics import TOPICS, Topic

EXAMPLES = Path(__file__).parent / "examples"
AT_US = 1_700_000_000_123_456
AT_MS = AT_US // 1000
D = Decimal

CANDLE = Candle(
    "BTC-USDT", "binance", "1m", 1_699_999_980_000, D("67000.10"), D("67010"), D("66990.5"), D("67005"), D("12.345"),
    D("827100.5"), 321, D("6.1"), 100, 420, True, True, 1, False,
)  # fmt: skip

MESSAGES: dict[str, Message] = {
    "ticks": TickBatch(
        venue="binance", shard=0, epoch=3, seq=42, sent_us=AT_US, clock_offset_us=-1500, simulated=True, part="1/2",
        trades=[Trade("BTC-USDT", 3735683259, D("61840.00000000"), D("0.00013"), "sell", AT_US, AT_US + 900, 2)],
        quotes=[Quote("BTC-USDT", D("61839.99"), D("1.2"), D("61840"), D("0.7"), AT_US, AT_US)],
        references=[ReferencePrice("bitcoin", "BTC-USD", D("61838"), AT_US, AT_US, D("-12.5"), D("-0.02"), D("1e12"), D("3e10"))],
        conflated=[
            Conflated(
                "ETH-USDT", 5, 9, D("1"), D("3"), D("0.5"), D("2"), D("10"), D("20"), D("4"), 5, AT_US, AT_US + 5, AT_US + 9
            )
        ],
    ),
    "prices": PriceBatch(
        shard=0, epoch=3, sent_us=AT_US, forming=[CANDLE],
        prices=[
            PriceUpdate(
                symbol="BTC-USD", source="consolidated", price=D("61840.005"), low=D("61839"), high=D("61841"), epoch=3, seq=7,
                event_us=AT_US, received_us=AT_US + 5, status="degraded", bid=D("61839.9"), ask=D("61840.1"),
                confidence=D("0.4"), sources_used=["binance:BTC-USDT"], change_24h_pct=D("-1.25"), high_24h=D("63000"),
                low_24h=D("60000"), volume_24h=D("12345.678"), simulated=True,
                excluded=[ExcludedSource(source="coinbase:BTC-USDC", reason="rate_stale")],
            )
        ],
    ),
    "candles": CandleBatch(shard=0, epoch=3, interval="1m", candles=[CANDLE]),
    "history": HistoryBatch(
        venue="binance", symbol="BTC-USDT", interval="1m", from_ms=AT_MS, to_ms=AT_MS + 60_000, candles=[CANDLE], final=False,
        missing_before_ms=AT_MS - 1, simulated=True,
    ),
    "indicators": IndicatorBatch(
        shard=1, epoch=4, interval="1h",
        updates=[
            IndicatorUpdate(
                symbol="BTC-USD", source="consolidated", interval="1h", open_time=1_699_999_200_000, closed=True, revision=0,
                as_of_us=AT_US, seq=9, values={"rsi_14": 55.5, "macd": None}, warmup=Warmup(have=40, needed=300, converged=False),
                close=61840.0, simulated=False,
            )
        ],
    ),
    "signals": Signal(
        id="sg_1", kind="macd_cross", symbol="BTC-USD", source="consolidated", interval="1h", open_time=1_699_999_200_000,
        status="confirmed", direction="up", at_us=AT_US, values={"macd": 1.5},
    ),
    "instruments": InstrumentList(
        venue="binance", at_us=AT_US, complete=True,
        instruments=[
            Instrument(
                venue="binance", symbol="BTC-USDT", native="BTCUSDT", status="trading", price_increment=D("0.01"),
                size_increment=D("0.00001"), coin_id="bitcoin", subscribed=True,
            )
        ],
    ),
    "coins": CoinList(
        at_us=AT_US,
        coins=[
            Coin(
                id="bitcoin", symbol="btc", name="Bitcoin", image="https://example.test/btc.png", market_cap_rank=1,
                market_cap=D("1.2e12"), circulating_supply=D("19700000"), price=D("61840"), change_24h=D("-12.5"),
                change_24h_pct=D("-0.02"), volume_24h=D("3e10"), updated_us=AT_US,
            )
        ],
    ),
    "feeds": FeedStatus(
        venue="binance", at_us=AT_US, part="1/1", epoch=3, active=True, state="live", clock_offset_us=-1500, last_tick_us=AT_US,
        connections=[ConnectionStatus(connection="b1", state="live", reason="data", since_us=AT_US, symbols=10)],
        gaps=[TradeGap(symbol="BTC-USDT", first_id=5, last_id=9, from_us=AT_US, to_us=AT_US + 5)],
        budgets=[BudgetStatus(name="weight", limit=6000, left=5900, resets_us=AT_US)],
        history=HistoryProgress(series_total=10, series_done=3, candles=3000),
    ),
    "alert-events": AlertEvent(
        id="ae_1", type="alert.triggered", user_id="u1", rule_id="al_1", dedupe_key="k", at_ms=AT_MS, symbol="BTC-USD",
        source="consolidated", condition="price_above", message="BTC above 60000", price=D("61840"), threshold=D("60000"),
        late=True, data={"crossed_between": [AT_MS, AT_MS + 60_000]},
    ),
    "portfolio-events": PortfolioChanged(
        id="pe_1", user_id="u1", portfolio_id=7, version=3, at_ms=AT_MS, kind="transaction.recorded", assets=["BTC"]
    ),
    "portfolio-values": PortfolioValueBatch(
        part=3, sent_us=AT_US,
        values=[
            PortfolioValued(
                user_id="u1", portfolio_id=7, version=3, snapshot_id="ps_1", at_ms=AT_MS, base_currency="USD", value=D("100.5"),
                cost=D("90"), unrealised_pnl=D("10.5"), unrealised_pnl_pct=D("11.67"), complete=True,
                allocation_pct={"BTC": D("100")}, epoch=1, seq=5,
                holdings=[{"asset": "BTC", "quantity": "0.001", "price": "100500", "value": "100.5", "unrealised_pnl": None}],
            )
        ],
    ),
}  # fmt: skip
MESSAGES["indicators.live"] = MESSAGES["indicators"]


def folder(topic: Topic) -> Path:
    """Where a topic's examples of its version live."""
    return EXAMPLES / topic.name / f"v{topic.version}"


def as_json(message: Message) -> Any:
    """The message as plain JSON values."""
    return msgspec.to_builtins(message)


def schema_of(topic: Topic) -> dict[str, Any]:
    """The JSON Schema of a topic's message."""
    return msgspec.json.schema(topic.message)


def add_missing() -> list[Path]:
    """Write what is not there yet; an existing example is never touched."""
    added = []
    for topic in TOPICS:
        target = folder(topic)
        if target.exists():
            continue
        target.mkdir(parents=True)
        message = MESSAGES[topic.name]
        (target / "message.msgpack").write_bytes(encode(message))
        (target / "message.json").write_text(json.dumps(as_json(message), indent=1) + "\n")
        (target / "schema.json").write_text(json.dumps(schema_of(topic), indent=1) + "\n")
        added.append(target)
    return added


if __name__ == "__main__":
    for path in add_missing():
        print(path)
