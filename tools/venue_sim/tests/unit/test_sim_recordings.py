"""The reader and the market of a recording, on lines written here."""

from __future__ import annotations

import gzip
from pathlib import Path

from tools.venue_sim.market.prices import PriceModel
from tools.venue_sim.playback.market import PlaybackMarket, units
from tools.venue_sim.playback.player import PlayClock
from tools.venue_sim.playback.reader import read, split_native

TRADE = '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":%d,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
MATCH = '{"type":"%s","trade_id":%d,"side":"buy","size":"29.5","price":"0.792","product_id":"SKL-USD","time":"2021-04-17T16:43:44.481792Z"}'
ADVANCED = '{"channel":"market_trades","timestamp":"2026-08-09T21:05:48.228568804Z","sequence_num":3,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"12","price":"1","size":"2","time":"2026-08-09T21:05:48.2Z","side":"SELL"},{"product_id":"BTC-USD","trade_id":"11","price":"1","size":"2","time":"2026-08-09T21:05:48.1Z","side":"BUY"}]}]}'
KRAKEN = '[993,[["354.11","0.89594024","1618678142.557535","s","l",""]],"trade","XMR/USD"]'


def write(folder: Path, *lines: str) -> Path:
    path = folder / "recorded.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_every_line_format_is_read_and_what_is_no_frame_is_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "wss://ws.kraken.com <-> 1618678132.368463",
        '1618678132.8: {"event":"systemStatus","status":"online"}',
        "",
        f"1618678142.592855: {KRAKEN}",
        f"1618678157.1299179: {MATCH % ('match', 5)}",
        f"1723161254087896568 {TRADE % 3735683259}",
        f"1786309548228568804 {ADVANCED}",
        "not a line at all",
    )
    found = read([path])

    assert [(frame.venue, frame.native, frame.channel) for frame in found.frames] == [
        ("kraken", "XMR/USD", "trade"),
        ("coinbase", "SKL-USD", "matches"),
        ("binance", "BTCUSDT", "trade"),
        ("coinbase", "BTC-USD", "market_trades"),
    ]
    assert (found.lines, found.skipped) == (7, 3)
    binance = found.frames[2]
    assert (
        binance.payload
        == (TRADE % 3735683259).removeprefix('{"stream":"btcusdt@trade","data":')[:-1].encode()
    )
    assert (binance.at_us, binance.event_us) == (1723161254087896, 1723161255343000)
    assert [trade.trade_id for trade in found.frames[3].trades] == [11, 12]
    assert [trade.sold for frame in found.frames for trade in frame.trades] == [True, True, True, True, False]


def test_a_trade_that_comes_twice_is_booked_once(tmp_path: Path) -> None:
    lines = [f"{1618677817 + number}: {MATCH % (kind, made)}" for number, (kind, made) in enumerate(
        [("last_match", 5), ("match", 5), ("match", 6), ("match", 6)]
    )]  # fmt: skip
    recording = read([write(tmp_path, *lines)])
    market = PlaybackMarket(recording.frames, PriceModel(7), lambda: 0)

    booked = [len(market.take(frame)[1]) for frame in recording.frames]

    assert booked == [1, 0, 1, 0]
    pair = market.native("coinbase", "SKL-USD")
    assert pair is not None
    assert [trade[0] for trade in pair.tape.latest(10)] == [5, 6]
    assert (pair.price_text(pair.tape.latest(1)[0][1]), pair.size_text(pair.tape.latest(1)[0][2])) == (
        "0.792",
        "29.5",
    )


def test_a_venue_s_clock_is_ahead_by_what_its_events_are(tmp_path: Path) -> None:
    recording = read([write(tmp_path, f"1723161254087896568 {TRADE % 1}")])
    market = PlaybackMarket(recording.frames, PriceModel(7), lambda: recording.frames[0].at_us)

    assert market.venue_us("binance") == 1723161255343000


def test_the_clock_stands_then_jumps_and_then_goes_on(tmp_path: Path) -> None:
    recording = read(
        [write(tmp_path, f"1723161254000000000 {TRADE % 1}", f"1723161264000000000 {TRADE % 2}")]
    )
    clock = PlayClock(recording.frames, 0.0)

    assert clock.now_us() == 1723161254000000
    clock.start()
    clock.reached_us = recording.frames[1].at_us
    assert clock.now_us() == 1723161264000000
    clock.end()
    assert clock.now_us() >= 1723161264000000


def test_names_are_split_by_known_quotes() -> None:
    assert split_native("binance", "BLZETH") == ("BLZ", "ETH")
    assert split_native("binance", "RUNEEUR") == ("RUNE", "EUR")
    assert split_native("binance", "BTCFDUSD") == ("BTC", "FDUSD")
    assert split_native("kraken", "XBT/USD") == ("BTC", "USD")
    assert split_native("coinbase", "SKL-GBP") == ("SKL", "GBP")


def test_decimals_become_integers_without_a_float() -> None:
    assert units("0.1", 10**8) == 10_000_000
    assert units("61837.63000000", 100) == 6_183_763
    assert units("5", 1) == 5
