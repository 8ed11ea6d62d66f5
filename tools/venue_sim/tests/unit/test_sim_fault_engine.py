"""Faults as values: what they match, when they strike, what they make of contents."""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import pytest

from tools.venue_sim.faults import contents
from tools.venue_sim.faults.engine import FaultError, Faults
from tools.venue_sim.market.instruments import BINANCE, default_instruments
from tools.venue_sim.market.pair import Pair, VenueClock
from tools.venue_sim.market.tape import Tape

TRADE = b'{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":5,"p":"61837.63","q":"0.02","T":1723161255342,"m":true}'
KRAKEN = b'[1921,[["0.042990","15979.7","1618678145.920708","s","l",""]],"trade","SC/EUR"]'


def a_pair(index: int = 0) -> Pair:
    instrument = default_instruments(BINANCE)[index]
    return Pair(instrument, Tape(instrument, None, own_ids=True), VenueClock())


def unused(_: list[Any]) -> None:
    raise AssertionError("nothing is sent later")


def test_a_fault_strikes_as_often_as_it_may() -> None:
    faults = Faults(1)
    faults.add({"kind": "drop", "venue": "binance", "count": 2})

    assert faults.of("binance").stream(a_pair(), "trade", [1, 2, 3, 4], unused) == [3, 4]


def test_a_fault_leaves_other_symbols_channels_and_venues_alone() -> None:
    faults = Faults(1)
    faults.add({"kind": "drop", "venue": "binance", "symbol": "BTC-USDT", "channel": "trade"})
    mine = faults.of("binance")

    assert mine.stream(a_pair(), "trade", [1], unused) == []
    assert mine.stream(a_pair(), "bookTicker", [1], unused) == [1]
    assert mine.stream(a_pair(5), "trade", [1], unused) == [1]
    assert faults.of("coinbase").stream(a_pair(), "trade", [1], unused) == [1]


def test_probability_is_seeded() -> None:
    def struck(seed: int) -> list[int]:
        faults = Faults(seed)
        faults.add({"kind": "drop", "probability": 0.3})
        return faults.of("kraken").stream(a_pair(), "trade", list(range(200)), unused)

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 100 < len(struck(1)) < 180


def test_duplicates_and_shuffled_windows_lose_nothing() -> None:
    faults = Faults(1)
    faults.add({"kind": "duplicate", "count": 1})
    assert faults.of("binance").stream(a_pair(), "trade", [1, 2], unused) == [1, 1, 2]
    faults.clear()

    number = faults.add({"kind": "reorder", "window": 4}).number
    pair = a_pair()
    released: list[Any] = []
    faults.on_release = lambda _venue, _pair, items: released.extend(items)
    sent = faults.of("binance").stream(pair, "trade", list(range(10)), unused)
    assert sorted(sent) == list(range(8))
    assert sent != sorted(sent)
    faults.remove(number)
    assert sorted(sent + released) == list(range(10))


def test_delayed_items_are_published_later() -> None:
    faults = Faults(1)
    faults.add({"kind": "delay", "ms": 250, "count": 1})
    mine = faults.of("binance")
    later: list[tuple[float, Any]] = []
    sent: list[Any] = []
    mine.later = lambda seconds, action: later.append((seconds, action))

    assert mine.stream(a_pair(), "trade", [1, 2], sent.extend) == [2]
    assert later[0][0] == 0.25
    later[0][1]()
    assert sent == [1]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"kind": "nonsense"}, "unknown kind"),
        ({"kind": "drop", "venue": "nowhere"}, "unknown venue"),
        ({"kind": "drop", "probability": "often"}, "are numbers"),
        ({"kind": "corrupt"}, "needs content"),
        ({"kind": "rest_status"}, "needs status"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(FaultError, match=text):
        Faults(1).add(spec)


def test_a_fault_that_cannot_start_later_is_said_and_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    faults = Faults(1)

    def refuse(_: Any) -> Any:
        raise FaultError("no pair")

    faults.on_market = refuse
    with pytest.raises(FaultError):
        faults.add({"kind": "freeze"})
    faults.add({"kind": "freeze", "after": 0.001})
    time.sleep(0.002)
    faults.tick()

    assert faults.live == {}
    assert "no pair" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "-1", "0", "", "1." + "0" * 30])
def test_bad_numbers_replace_the_price_only(value: str) -> None:
    found = json.loads(contents.edited("bad_number", TRADE, {"value": value}))

    assert found["p"] == value
    assert {key: found[key] for key in found if key != "p"} == {
        key: cell for key, cell in json.loads(TRADE).items() if key != "p"
    }
    assert json.loads(contents.edited("bad_number", KRAKEN, {"value": value}))[1][0][0] == value


def test_a_raw_token_is_written_without_quotes() -> None:
    assert b'"p":NaN,' in contents.edited("bad_number", TRADE, {"value": "NaN", "raw": True})


def test_times_can_be_wrong_in_every_way() -> None:
    def at(shift: str) -> Any:
        return json.loads(contents.edited("wrong_time", TRADE, {"shift": shift})).get("T")

    assert at("future_day") == 1723161255342 + 86_400_000
    assert at("microseconds") == 1723161255342000
    assert at("before_2010") == 1_230_768_000_000
    assert at("missing") is None


@pytest.mark.parametrize(
    ("content", "check"),
    [
        ("unknown_event", lambda found: found["e"] == "unheardOf"),
        ("unknown_symbol", lambda found: found["s"] == "NOSUCHUSDT"),
        ("non_ascii_symbol", lambda found: not found["s"].isascii()),
        ("extra_field", lambda found: "extraField" in found),
        ("missing_field", lambda found: "p" not in found),
        ("null_field", lambda found: found["p"] is None),
        ("wrong_shape", lambda found: found["p"] == ["61837.63"]),
    ],
)
def test_frames_are_wrong_in_one_thing(content: str, check: Any) -> None:
    assert check(json.loads(contents.edited(content, TRADE, {})))


@pytest.mark.parametrize("content", contents.PLAIN)
def test_whole_frames_are_something_else(content: str) -> None:
    _, made = contents.plain(content, TRADE, Random(1))

    assert made != TRADE
    if content == "garbage":
        assert len(made) == contents.GARBAGE_BYTES
    if content == "invalid_utf8":
        with pytest.raises(UnicodeDecodeError):
            made.decode()
