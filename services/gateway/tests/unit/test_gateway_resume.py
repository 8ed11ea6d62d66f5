"""Resume: whole on any replica, or it says no; nothing is told twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from cryptopulse.common.contracts.candles import CandleBatch
from cryptopulse.common.contracts.indicators import IndicatorBatch, IndicatorUpdate, Signal, Warmup
from cryptopulse.common.contracts.intervals import MINUTE_MS
from cryptopulse.common.contracts.ticks import Conflated, TickBatch
from cryptopulse.common.testing.builders import a_candle, a_trade
from cryptopulse.gateway.domain.conflation import Ring
from cryptopulse.gateway.entrypoints.bus import BusConsumers
from cryptopulse.gateway.entrypoints.http.trades import Trades, _newest


async def say(ws: Any, **message: Any) -> None:
    await ws.send(json.dumps(message))


def a_batch(first: int, last: int, *, venue: str = "binance", epoch: int = 7) -> TickBatch:
    """Trades of BTC-USDT by id, numbered by the same ids."""
    trades = [a_trade(symbol="BTC-USDT", trade_id=number) for number in range(first, last + 1)]
    return TickBatch(
        venue=venue, shard=0, epoch=epoch, seq=first, sent_us=0, trades=trades, offsets={"BTC-USDT": first}
    )


async def test_trades_resume_whole_or_say_no(gateway: Any, listen: Any) -> None:
    def trade(number: int) -> None:
        gateway.distributor.ticks(a_batch(number, number))

    channel = {"ch": "trades", "symbols": ["BTC-USDT"]}
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[channel])
        entry = (await listen(ws, "ack"))["subscribed"][0]
        assert gateway.ticks.followed == {"BTC-USDT"}
        trade(1)
        trade(2)
        first, second = await listen(ws), await listen(ws)
        assert [first["data"]["id"], second["data"]["id"]] == [1, 2]
        assert (first["type"], first["epoch"], second["type"]) == ("snapshot", "7", "update")
    for number in range(3, 6):
        trade(number)
    assert (entry["source"], second["offset"]) == ("binance", 2)
    where = {"epoch": first["epoch"], "offset": second["offset"]}
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{**channel, "resume": {"BTC-USDT": where}}])
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
        assert [(await listen(ws, "update"))["data"]["id"] for _ in range(3)] == [3, 4, 5]
        trade(6)
        assert (await listen(ws, "update"))["data"]["id"] == 6
    for number in range(7, 2_010):
        trade(number)
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{**channel, "resume": {"BTC-USDT": where}}])
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is False
        assert (await listen(ws))["type"] == "snapshot"


async def test_what_an_overload_has_conflated_is_told_resumed_and_read(gateway: Any, listen: Any) -> None:
    bar = Conflated(
        symbol="BTC-USDT", first_id=3, last_id=9, open=Decimal(5), high=Decimal(8), low=Decimal(4), close=Decimal(6),
        volume=Decimal(7), quote_volume=Decimal(40), taker_buy_volume=Decimal(2), trades=7, first_event_us=1_000,
        last_event_us=5_000, received_us=6_000,
    )  # fmt: skip
    folded = TickBatch(
        venue="binance", shard=0, epoch=7, seq=2, sent_us=0, conflated=[bar], offsets={"BTC-USDT": 2}
    )
    channel = {"ch": "trades", "symbols": ["BTC-USDT"]}
    expected = {
        "s": "BTC-USDT", "src": "binance", "id": 9, "p": "6", "q": "7", "side": "unknown", "ts": 5, "rx": 6, "n": 7,
        "first_id": 3, "first_ts": 1, "o": "5", "h": "8", "l": "4", "qv": "40", "tbv": "2",
    }  # fmt: skip
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[channel])
        await listen(ws, "ack")
        for batch in (a_batch(1, 1), folded, folded, a_batch(3, 3)):
            gateway.distributor.ticks(batch)
        told = [await listen(ws) for _ in range(3)]
    assert [row["offset"] for row in told] == [1, 2, 3]
    assert told[1]["data"] == expected
    async with gateway.ws() as ws:
        resume = {"BTC-USDT": {"epoch": "7", "offset": 1}}
        await say(ws, op="subscribe", channels=[{**channel, "resume": resume}])
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
        assert [(await listen(ws, "update"))["data"]["id"] for _ in range(2)] == [9, 3]
    ring = gateway.hub.ring(("trades", "BTC-USDT@binance"))
    rows = [json.loads(row) for row in _newest([ring], 0, 10)]
    assert expected in rows
    assert Trades.model_validate({"symbol": "BTC-USDT", "data": rows}).data[-1].model_dump() == expected


async def test_a_batch_that_comes_again_is_told_once(gateway: Any, listen: Any) -> None:
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{"ch": "trades", "symbols": ["BTC-USDT"]}])
        await listen(ws, "ack")
        gateway.distributor.ticks(a_batch(1, 3))
        gateway.distributor.ticks(a_batch(1, 3))
        gateway.distributor.ticks(a_batch(4, 4))
        assert [(await listen(ws))["data"]["id"] for _ in range(4)] == [1, 2, 3, 4]


async def test_trades_come_from_each_venue_in_a_sequence_of_its_own(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USDT", "100", source="kraken")
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{"ch": "trades", "symbols": ["BTC-USDT"]}])
        rows = (await listen(ws, "ack"))["subscribed"]
        assert [row["source"] for row in rows] == ["binance", "kraken"]
        sids = {row["source"]: row["sid"] for row in rows}
        gateway.distributor.ticks(a_batch(1, 1))
        gateway.distributor.ticks(a_batch(1, 1, venue="kraken"))
        told = [await listen(ws) for _ in range(2)]
        assert [(row["sid"], row["offset"], row["data"]["src"]) for row in told] == [
            (sids["binance"], 1, "binance"),
            (sids["kraken"], 1, "kraken"),
        ]
        await say(
            ws, op="subscribe", channels=[{"ch": "trades", "symbols": ["BTC-USDT"], "source": "nowhere"}]
        )
        assert (await listen(ws, "ack"))["rejected"][0]["code"] == "unknown_source"


async def test_a_crowd_is_cut_and_comes_back_without_gap_or_double(gateway: Any, listen: Any) -> None:
    """500 sockets, cut while trades go on, back within the ring: everybody has every trade once."""
    from cryptopulse.gateway.domain import limits

    crowd, total = 500, 60
    gateway.limits._table["anonymous", "sockets"] = gateway.limits.of("enterprise", "sockets")
    many = limits.SOCKETS["anonymous"]
    limits.SOCKETS["anonymous"] = limits.SocketLimits(2 * crowd, 200)
    seen: list[list[int]] = [[] for _ in range(crowd)]
    places: list[dict[str, Any]] = [{} for _ in range(crowd)]

    async def listen_from(number: int, until: int) -> None:
        async with gateway.ws() as ws:
            resume = {"BTC-USDT": places[number]} if places[number] else {}
            await say(
                ws, op="subscribe", channels=[{"ch": "trades", "symbols": ["BTC-USDT"], "resume": resume}]
            )
            (entry,) = (await listen(ws, "ack"))["subscribed"]
            if places[number]:
                assert entry["recovered"] is True
            places[number] = {
                "epoch": entry["epoch"],
                "offset": places[number].get("offset", entry["offset"]),
            }
            ready.append(number)
            while not seen[number] or seen[number][-1] < until:
                message = await listen(ws)
                seen[number].append(message["data"]["id"])
                places[number] = {
                    "epoch": message.get("epoch", places[number]["epoch"]),
                    "offset": message["offset"],
                }

    def send(first: int, last: int) -> None:
        gateway.distributor.ticks(a_batch(first, last))

    try:
        ready: list[int] = []
        listening = [asyncio.create_task(listen_from(number, total // 3)) for number in range(crowd)]
        while len(ready) < crowd:
            await asyncio.sleep(0.05)
        send(1, total // 3)
        await asyncio.gather(*listening)
        send(total // 3 + 1, 2 * total // 3)
        ready.clear()
        listening = [asyncio.create_task(listen_from(number, total)) for number in range(crowd)]
        while len(ready) < crowd:
            await asyncio.sleep(0.05)
        send(2 * total // 3 + 1, total)
        await asyncio.gather(*listening)
    finally:
        limits.SOCKETS["anonymous"] = many
    assert all(ids == list(range(1, total + 1)) for ids in seen)


def closed_bars(first: int, last: int) -> CandleBatch:
    """Closed minutes, numbered from 1 by their number since the epoch."""
    bars = [
        a_candle("BTC-USD", open_time=number * MINUTE_MS, open=100 + number)
        for number in range(first, last + 1)
    ]
    return CandleBatch(shard=0, epoch=7, interval="1m", candles=bars, offsets=list(range(first, last + 1)))


def closed_seconds(first: int, last: int) -> CandleBatch:
    """Closed seconds, numbered from 1 by their number since the epoch."""
    numbers = range(first, last + 1)
    bars = [
        a_candle("BTC-USD", interval="1s", open_time=number * 1_000, open=100 + number) for number in numbers
    ]
    return CandleBatch(shard=0, epoch=7, interval="1s", candles=bars, offsets=list(numbers))


def closed_values(first: int, last: int) -> IndicatorBatch:
    """Values of closed minutes, numbered like their bars."""
    updates = [values_of(number) for number in range(first, last + 1)]
    return IndicatorBatch(
        shard=0, epoch=7, interval="1m", updates=updates, offsets=list(range(first, last + 1))
    )


def values_of(number: int, *, closed: bool = True) -> IndicatorUpdate:
    return IndicatorUpdate(
        symbol="BTC-USD", source="consolidated", interval="1m", open_time=number * MINUTE_MS, closed=closed, revision=0,
        as_of_us=0, seq=number, values={"rsi_14": float(number)}, warmup=Warmup(have=90, needed=15, converged=True),
    )  # fmt: skip


def a_signal(number: int) -> Signal:
    return Signal(
        id=f"sg_{number}", kind="ema_cross", symbol="BTC-USD", source="consolidated", interval="1m",
        open_time=number * MINUTE_MS, status="confirmed", direction="up", at_us=0, epoch=7, offset=number,
    )  # fmt: skip


def publish(gateway: Any, channel: str, first: int, last: int) -> None:
    """As the shard's owner and the ingestor do: every replica hears it."""
    distributor = gateway.distributor
    if channel == "trades":
        distributor.ticks(a_batch(first, last))
    elif channel == "candles:1m":
        distributor.candles(closed_bars(first, last))
    elif channel == "candles:1s":
        distributor.candles(closed_seconds(first, last))
    elif channel == "signals":
        for number in range(first, last + 1):
            distributor.signal(a_signal(number))
    else:
        distributor.indicators(closed_values(first, last))


NUMBER: dict[str, Callable[[Any], int]] = {
    "trades": lambda data: data["id"],
    "candles:1m": lambda data: data["t"] // MINUTE_MS,
    "candles:1s": lambda data: data["t"] // 1_000,
    "indicators:1m": lambda data: data["t"] // MINUTE_MS,
    "indicators:rsi_14:1m": lambda data: data["t"] // MINUTE_MS,
    "signals": lambda data: int(data["id"][3:]),
}


@pytest_asyncio.fixture
async def other(gateway: Any) -> AsyncIterator[Any]:
    """A second replica, on which nobody has listened."""
    found = type(gateway)()
    found.knows("BTC-USD", "BTC-USDT", "ETH-USD", "USDT-USD")
    await found.start()
    yield found
    await found.stop()


@pytest.mark.parametrize("channel", NUMBER)
async def test_who_is_cut_off_resumes_on_another_replica(
    gateway: Any, other: Any, listen: Any, channel: str
) -> None:
    symbol = "BTC-USDT" if channel == "trades" else "BTC-USD"
    asked = {"ch": channel, "symbols": [symbol], "every_ms": 0}
    other.hub.followed.add(symbol)
    number = NUMBER[channel]
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[asked])
        await listen(ws, "ack")
        for replica in (gateway, other):
            publish(replica, channel, 1, 3)
        told = [await listen(ws) for _ in range(3)]
        assert [number(message["data"]) for message in told] == [1, 2, 3]
    for replica in (gateway, other):
        publish(replica, channel, 4, 6)
    where = {"epoch": told[0]["epoch"], "offset": told[-1]["offset"]}
    async with other.ws() as ws:
        await say(ws, op="subscribe", channels=[{**asked, "resume": {symbol: where}}])
        entry = (await listen(ws, "ack"))["subscribed"][0]
        assert (entry["recovered"], entry["epoch"], entry["offset"]) == (True, where["epoch"], 6)
        publish(other, channel, 7, 7)
        missed = [await listen(ws, "update") for _ in range(4)]
    assert [number(message["data"]) for message in missed] == [4, 5, 6, 7]
    assert [message["offset"] for message in missed] == [4, 5, 6, 7]


async def test_a_replica_that_heard_nothing_yet_asks_where_the_series_stands(
    gateway: Any, listen: Any
) -> None:
    """A day's bar closes once a day: that nothing was missed is known from where its producer stands."""
    gateway.prices.positions["candles", "BTC-USD", "consolidated", "1d"] = (7, 12)
    gateway.prices.bars.append(a_candle("BTC-USD", interval="1d", closed=False))
    asked = {"ch": "candles:1d", "symbols": ["BTC-USD"]}
    for offset, whole in ((12, True), (11, False), (13, False)):
        async with gateway.ws() as ws:
            resume = {"BTC-USD": {"epoch": "7", "offset": offset}}
            await say(ws, op="subscribe", channels=[{**asked, "resume": resume}])
            assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is whole
            forming = await listen(ws)
            assert (forming["type"], forming["offset"], forming["data"]["closed"]) == (
                "update" if whole else "snapshot",
                12,
                False,
            )


async def test_nobody_resumes_over_a_time_in_which_the_bus_was_away(gateway: Any, listen: Any) -> None:
    asked = {"ch": "candles:1m", "symbols": ["BTC-USD"]}
    publish(gateway, "candles:1m", 1, 3)
    gateway.hub.tear()
    for torn in (True, False):
        async with gateway.ws() as ws:
            resume = {"BTC-USD": {"epoch": "7", "offset": 3 if torn else 5}}
            await say(ws, op="subscribe", channels=[{**asked, "resume": resume}])
            assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is not torn
        publish(gateway, "candles:1m", 5, 6)


async def test_forming_values_repeat_the_offset_and_a_final_one_waits_for_nobody(
    gateway: Any, listen: Any
) -> None:
    async with gateway.ws() as ws:
        await say(
            ws, op="subscribe", channels=[{"ch": "indicators:1m", "symbols": ["BTC-USD"], "every_ms": 5_000}]
        )
        await listen(ws, "ack")
        publish(gateway, "indicators:1m", 1, 1)
        gateway.distributor.indicators(
            IndicatorBatch(shard=0, epoch=7, interval="1m", updates=[values_of(2, closed=False)])
        )
        publish(gateway, "indicators:1m", 2, 2)
        gateway.distributor.indicators(
            IndicatorBatch(shard=0, epoch=7, interval="1m", updates=[values_of(3, closed=False)])
        )
        gateway.hub.tick(5_000)
        told = [await listen(ws) for _ in range(3)]
        assert [(row["offset"], row["data"]["closed"]) for row in told] == [(1, True), (2, True), (2, False)]
        assert not any("skipped" in row for row in told)


async def test_who_joins_sees_the_newest_bar_and_not_the_correction_of_an_older_one(
    gateway: Any, listen: Any
) -> None:
    publish(gateway, "candles:1m", 1, 3)
    gateway.prices.bars.append(a_candle("BTC-USD", open_time=9 * MINUTE_MS, closed=False))
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[{"ch": "candles:1m", "symbols": ["BTC-USD"]}])
        first = await listen(ws, "snapshot")
        assert (first["data"]["t"], first["offset"]) == (9 * MINUTE_MS, 3)


async def test_signals_of_before_this_replica_are_loaded_behind_those_it_heard(
    gateway: Any, listen: Any
) -> None:
    gateway.distributor.signal(a_signal(4))
    gateway.hub.load_signals([a_signal(number) for number in (1, 2, 3, 4)])
    async with gateway.ws() as ws:
        resume = {"BTC-USD": {"epoch": "7", "offset": 1}}
        await say(ws, op="subscribe", channels=[{"ch": "signals", "symbols": ["BTC-USD"], "resume": resume}])
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
        assert [(await listen(ws, "update"))["data"]["id"] for _ in range(3)] == ["sg_2", "sg_3", "sg_4"]


async def test_what_nobody_wants_is_forgotten(gateway: Any, listen: Any) -> None:
    """Names are free in `indicators:<output>:<interval>`: streams of a client that is gone must not stay."""
    async with gateway.ws() as ws:
        channels = [{"ch": f"indicators:x{number}:1m", "symbols": ["BTC-USD"]} for number in range(20)]
        await say(ws, op="subscribe", channels=channels)
        await listen(ws, "ack")
        gateway.hub.forget()
        assert len(list(gateway.hub.streams())) == 20
    while gateway.hub.connections:
        await asyncio.sleep(0.01)
    gateway.clock.advance(61)
    gateway.hub.forget()
    assert list(gateway.hub.streams()) == []
    assert gateway.hub.singles == {}


async def test_a_closed_bar_that_a_cold_replica_reads_is_not_told_again(gateway: Any, listen: Any) -> None:
    gateway.prices.positions["candles", "BTC-USD", "consolidated", "1m"] = (7, 12)
    gateway.prices.bars.append(a_candle("BTC-USD", open_time=12 * MINUTE_MS))
    asked = {"ch": "candles:1m", "symbols": ["BTC-USD"]}
    async with gateway.ws() as ws:
        resume = {"BTC-USD": {"epoch": "7", "offset": 12}}
        await say(ws, op="subscribe", channels=[{**asked, "resume": resume}])
        assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
        publish(gateway, "candles:1m", 13, 13)
        assert (await listen(ws))["offset"] == 13


@pytest.mark.parametrize("channel", [name for name in NUMBER if name != "trades"])
async def test_a_series_that_never_spoke_is_resumed_from_its_beginning(
    gateway: Any, other: Any, listen: Any, channel: str
) -> None:
    """Nothing was heard yet: on every replica that is the same place."""
    asked = {"ch": channel, "symbols": ["BTC-USD"], "every_ms": 0}
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[asked])
        entry = (await listen(ws, "ack"))["subscribed"][0]
    where = {"BTC-USD": {"epoch": entry["epoch"], "offset": entry["offset"]}}
    for replica in (other, gateway):
        async with replica.ws() as ws:
            await say(ws, op="subscribe", channels=[{**asked, "resume": where}])
            assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
        publish(replica, channel, 1, 2)
        async with replica.ws() as ws:
            await say(ws, op="subscribe", channels=[{**asked, "resume": where}])
            assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is True
            assert [(await listen(ws, "update"))["offset"] for _ in range(2)] == [1, 2]


async def test_a_place_learned_later_moves_the_stream_with_its_ring(gateway: Any, listen: Any) -> None:
    asked = {"ch": "candles:1d", "symbols": ["BTC-USD"]}
    async with gateway.ws() as ws:
        await say(ws, op="subscribe", channels=[asked])
        await listen(ws, "ack")
    while gateway.hub.connections:
        await asyncio.sleep(0.01)
    gateway.prices.positions["candles", "BTC-USD", "consolidated", "1d"] = (7, 12)
    async with gateway.ws() as ws:
        resume = {"BTC-USD": {"epoch": "7", "offset": 12}}
        await say(ws, op="subscribe", channels=[{**asked, "resume": resume}])
        entry = (await listen(ws, "ack"))["subscribed"][0]
        assert (entry["recovered"], entry["epoch"], entry["offset"]) == (True, "7", 12)


async def test_a_place_ahead_of_the_bus_hides_no_message_from_who_listens(gateway: Any, listen: Any) -> None:
    """The producer writes its place when the message is confirmed: it may still be on its way to this replica."""
    asked = {"ch": "candles:1m", "symbols": ["BTC-USD"]}
    async with gateway.ws() as first:
        await say(first, op="subscribe", channels=[asked])
        await listen(first, "ack")
        gateway.prices.positions["candles", "BTC-USD", "consolidated", "1m"] = (7, 1)
        async with gateway.ws() as second:
            await say(second, op="subscribe", channels=[asked])
            await listen(second, "ack")
            publish(gateway, "candles:1m", 1, 1)
            assert [(await listen(ws))["offset"] for ws in (first, second)] == [1, 1]


async def test_nobody_resumes_over_a_time_in_which_trades_were_not_followed(
    gateway: Any, listen: Any
) -> None:
    asked = {"ch": "trades", "symbols": ["BTC-USDT"]}
    where = {"BTC-USDT": {"epoch": "7", "offset": 3}}
    for told in (None, True, False):
        async with gateway.ws() as ws:
            await say(ws, op="subscribe", channels=[{**asked, "resume": where if told is not None else {}}])
            entry = (await listen(ws, "ack"))["subscribed"][0]
            if told is None:
                gateway.distributor.ticks(a_batch(1, 3))
            else:
                assert entry["recovered"] is told
        if told:
            gateway.hub.tear({"BTC-USDT"})


def test_a_ring_is_whole_or_says_no() -> None:
    ring = Ring()
    for offset in range(1, 11):
        assert ring.record(3, offset, offset * 1_000, offset)
    assert ring.since("3", 7) == [(8, 8), (9, 9), (10, 10)]
    assert ring.since("3", 10) == []
    assert ring.since("3", 11) is None
    assert ring.since("2", 10) is None
    assert ring.since("0", 0) == [(number, number) for number in range(1, 11)]
    assert not ring.record(3, 10, 11_000, 10)
    assert not ring.record(2, 99, 11_000, 99)
    assert ring.record(3, 11, 75_000, 11)
    assert ring.since("3", 7) is None
    assert ring.record(3, 13, 76_000, 13)
    assert ring.since("3", 11) is None
    assert ring.record(4, 1, 77_000, 1)
    assert ring.since("4", 0) == [(1, 1)]
    assert ring.since("0", 0) is None, "what the epoch before said is not here"


def test_a_ring_keeps_a_minute_of_a_slow_series_and_seconds_of_a_fast_one() -> None:
    slow, fast, flood = Ring(), Ring(), Ring()
    for offset in range(1, 121):
        slow.record(1, offset, offset * 1_000, offset)
    for offset in range(1, 6_001):
        fast.record(1, offset, offset * 15, offset)
        flood.record(1, offset, offset, offset)
    assert [len(ring.items) for ring in (slow, fast, flood)] == [61, 1_334, 2_000]


async def test_a_minute_of_seconds_is_kept_whoever_listens_and_no_more(gateway: Any, listen: Any) -> None:
    for second in range(1, 201):
        publish(gateway, "candles:1s", second, second)
        gateway.clock.advance(1)
    assert len(gateway.hub.ring(("candles:1s", "BTC-USD@consolidated")).items) in (60, 61)
    for offset, whole in ((145, True), (130, False)):
        async with gateway.ws() as ws:
            asked = {
                "ch": "candles:1s", "symbols": ["BTC-USD"], "resume": {"BTC-USD": {"epoch": "7", "offset": offset}},
            }  # fmt: skip
            await say(ws, op="subscribe", channels=[asked])
            assert (await listen(ws, "ack"))["subscribed"][0]["recovered"] is whole
            told = await listen(ws)
            assert (told["type"], told["data"]["t"]) == (
                ("update", 146_000) if whole else ("snapshot", 200_000)
            )


async def test_what_is_followed_no_longer_is_torn_before_it_is_let_go(gateway: Any) -> None:
    class Quiet:
        """A bus that lets bindings go, and nobody elsewhere who wants anything."""

        gone: ClassVar[list[str]] = []

        async def subscribe(self, *_: Any, **__: Any) -> Any:
            return object()

        async def bind(self, *_: Any) -> None: ...

        async def unbind(self, _subscription: Any, _topic: Any, key: str) -> None:
            self.gone.append(key)

        async def want(self, _symbols: Any) -> None: ...

        async def wanted(self) -> set[str]:
            return set()

    quiet: Any = Quiet()
    consumers = BusConsumers(quiet, gateway.hub, quiet, gateway.clock)
    await consumers.start(gateway.distributor)
    await consumers.follow("BTC-USDT")
    publish(gateway, "trades", 1, 3)
    ring = gateway.hub.ring(("trades", "BTC-USDT@binance"))
    assert ring.since("7", 3) == []
    await consumers.sweep()
    assert quiet.gone == ["tick.*.BTC-USDT"]
    assert ring.since("7", 3) is None
