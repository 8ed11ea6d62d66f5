"""What the simulator sends has the shape of what the venues sent: keys, their order and kinds, against recordings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.instruments import BINANCE, COINBASE, KRAKEN, default_instruments
from tools.venue_sim.market.market import SyntheticMarket
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.net.messages import Request
from tools.venue_sim.playback.reader import understand
from tools.venue_sim.venues.binance import wire as binance
from tools.venue_sim.venues.coinbase import wire as coinbase
from tools.venue_sim.venues.coingecko.catalogue import CoinCatalogue
from tools.venue_sim.venues.coingecko.rest import CoinGeckoRest
from tools.venue_sim.venues.kraken import wire as kraken

NOW_US = (20_000 * 1440 + 615) * 60_000_000 + 33_000_000


@pytest.fixture
def recordings(shared_data: Path) -> Path:
    folder = shared_data / "recordings"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    return folder


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    chosen = [one for venue in (BINANCE, COINBASE, KRAKEN) for one in default_instruments(venue)[:3]]
    return SyntheticMarket(7, chosen, history_days=30, live_rate=50, now_us=lambda: NOW_US)


def lines(path: Path) -> Iterator[Any]:
    """The JSON values of a recorded file."""
    with gzip.open(path, "rt") as stream:
        for line in stream:
            _, _, text = line.strip().partition(" ")
            try:
                yield json.loads(text)
            except ValueError:
                continue


def first(path: Path, wanted: Any) -> Any:
    return next(value for value in lines(path) if wanted(value))


def shape(value: Any) -> Any:
    """Kinds in place of values; of a list, its first element stands for all."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return (
        "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    )


def assert_same_shape(made: Any, recorded: Any) -> None:
    """The same keys in the same order, with the same kinds of values."""
    assert json.dumps(shape(made)) == json.dumps(shape(recorded))


def pair(market: SyntheticMarket, venue: str) -> Pair:
    return next(iter(market.of(venue)))


def test_binance_trade_and_book_ticker(market: SyntheticMarket, recordings: Path) -> None:
    file = recordings / "binance_spot_ws" / "btcusdt_20240808.gz"
    one = pair(market, BINANCE)
    forms = binance.hot_formats(one).combined(one.instrument.native)
    made = binance.trade_payload(
        one, forms.trade, (3735683259, 6183763, 2000, NOW_US, True), NOW_US // 1000, 1000
    )
    book = binance.book_ticker_payload(
        (one, 50093239212, 6183763, 378826, 6183764, 154698), forms.book_ticker
    )

    recorded = first(file, lambda value: value.get("stream") == "btcusdt@trade")
    assert_same_shape(orjson.loads(made), recorded)
    recorded = first(file, lambda value: value.get("stream") == "btcusdt@bookTicker")
    assert orjson.loads(book) == recorded


def test_binance_trade_bytes_are_the_venue_s(market: SyntheticMarket, recordings: Path) -> None:
    file = recordings / "binance_spot_ws" / "btcusdt_20240808.gz"
    recorded = first(file, lambda value: value.get("stream") == "btcusdt@trade")
    text = json.dumps(recorded, separators=(",", ":")).encode()
    frame = understand(0, text, recorded)
    assert frame is not None
    trade = frame.trades[0]
    one = pair(market, BINANCE)
    price, size = round(float(trade.price) * one.price_scale), round(float(trade.size) * one.size_scale)
    form = binance.hot_formats(one).combined("BTCUSDT").trade

    made = binance.trade_payload(
        one, form, (trade.trade_id or 0, price, size, trade.time_us, trade.sold), recorded["data"]["E"], 1000
    )

    assert made == text


def test_binance_agg_trade_and_kline(market: SyntheticMarket, recordings: Path) -> None:
    file = recordings / "cryptofeed_v2" / "BINANCE.ws.1.0.gz"
    one = pair(market, BINANCE)
    form = binance.hot_formats(one).combined(one.instrument.native).agg_trade
    agg = binance.agg_trade_payload(one, form, (5, 6183763, 2000, NOW_US, False), NOW_US // 1000, 1000)
    row = one.tape.live_minutes()[-1]
    kline = binance.kline_event(one, row, "1m", NOW_US // 1000, 1, closed=False)

    recorded = first(file, lambda value: str(value.get("stream", "")).endswith("@aggTrade"))
    assert_same_shape(orjson.loads(agg), recorded)
    recorded = first(file, lambda value: str(value.get("stream", "")).endswith("@kline_1m"))
    assert_same_shape(kline, recorded["data"])
    assert kline["k"]["T"] == kline["k"]["t"] + 59_999


def test_coinbase_exchange_match_and_ticker(market: SyntheticMarket, recordings: Path) -> None:
    file = recordings / "coinbase_exchange_ws" / "products_a.txt.gz"
    one = pair(market, COINBASE)
    trade = one.tape.latest(1)[0]
    match = orjson.loads(coinbase.match_payload(one, trade))
    ticker = coinbase.exchange_ticker(one, trade, one.day_stats(NOW_US // 1000))

    assert_same_shape(match, first(file, lambda value: value.get("type") == "match"))
    recorded = first(file, lambda value: value.get("type") == "ticker")
    assert_same_shape({key: ticker[key] for key in recorded}, recorded)
    assert set(ticker) - set(recorded) == {"best_bid_size", "best_ask_size"}
    assert {match["side"], ticker["side"]} == {"buy", "sell"}
    assert match["sequence"] == ticker["sequence"]


def test_kraken_v1_trade_and_ticker(market: SyntheticMarket, recordings: Path) -> None:
    one = pair(market, KRAKEN)
    made: list[Any] = [336, [kraken.v1_trade(one, one.tape.latest(1)[0])], "trade", one.instrument.native]
    ticker: list[Any] = [
        337,
        kraken.v1_ticker(one, one.day_stats(NOW_US // 1000)),
        "ticker",
        one.instrument.native,
    ]

    folder = recordings / "cryptofeed_v2"
    recorded = first(folder / "KRAKEN.ws.48.0.gz", lambda value: isinstance(value, list))
    assert [shape(cell) for cell in made] == [shape(cell) for cell in recorded]
    recorded = first(folder / "KRAKEN.ws.49.0.gz", lambda value: isinstance(value, list))
    assert sorted(ticker[1]) == sorted(recorded[1])
    for key, cells in recorded[1].items():
        assert [shape(cell) for cell in ticker[1][key]] == [shape(cell) for cell in cells]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("ping", "ping"),
        (
            "simple/price?ids=bitcoin&vs_currencies=usd&include_market_cap=true&include_24hr_vol=true&include_24hr_change=true&include_last_updated_at=true",
            "simple_price",
        ),
        ("coins/bitcoin/ohlc?vs_currency=usd&days=1", "coins_id_ohlc"),
        ("coins/bitcoin/market_chart?vs_currency=usd&days=1", "coins_id_market_chart"),
        ("coins/list?include_platform=true", "coins_list"),
        ("search?query=ethereum", "search"),
        ("search/trending", "search_trending"),
        ("global", "global"),
        ("coins/markets?vs_currency=usd&sparkline=true&price_change_percentage=1h,24h,7d,14d,30d,200d,1y", "coins_markets"),
        ("coins/bitcoin", "coins_id"),
    ],
)  # fmt: skip
async def test_coingecko_answers(market: SyntheticMarket, recordings: Path, path: str, file: str) -> None:
    recorded = json.loads((recordings / "coingecko_examples" / f"{file}.json").read_text())
    catalogue = CoinCatalogue(market.model, market.usd, 60.0, [])
    request = Request("GET", "/api/v3/" + path, {})
    made = await CoinGeckoRest(market, catalogue, Faults(1).of("coingecko")).answer(
        path.partition("?")[0], request
    )

    assert_known_keys(made, recorded, whole=file not in {"coins_id", "search", "search_trending", "global"})


def assert_known_keys(made: Any, recorded: Any, *, whole: bool) -> None:
    """Every key is one of the venue's, with its kind; `whole` asks that none is missing."""
    if isinstance(recorded, list):
        assert isinstance(made, list)
        if made and recorded:
            assert_known_keys(made[0], recorded[0], whole=whole)
        return
    if not isinstance(recorded, dict):
        assert made is None or recorded is None or shape(made) == shape(recorded)
        return
    free = {"platforms", "detail_platforms", "total_market_cap", "total_volume", "market_cap_percentage"}
    unknown = set(made) - set(recorded)
    assert not unknown
    if whole:
        assert set(made) == set(recorded)
    for key in made:
        if key not in free:
            assert_known_keys(made[key], recorded[key], whole=whole)
