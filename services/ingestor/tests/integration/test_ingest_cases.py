"""The uglier of the cases that an ingest must survive, against the simulator; docs/ingest-cases.md maps all of them to tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.ingestor.adapters.sockets import PicowsSockets
from tools.venue_sim.testing import Simulation, running_simulator

pytestmark = pytest.mark.timeout(120)
MARKETS = (("binance", "BTC-USDT"), ("coinbase", "BTC-USD"))
SYMBOLS = "BTC-USDT,BTC-USD"


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(process=True, rate=300) as found:
        yield found


class Scene:
    """The ingestor before the simulator, and the judgement at its end."""

    def __init__(self, sim: Simulation, collector: Any, ingestor: Any, eventually: Any) -> None:
        self.sim, self.collector, self.ingestor, self.eventually = sim, collector, ingestor, eventually

    async def start(self, *markets: tuple[str, str], **settings: str) -> None:
        self.ingestor.environment |= self.sim.environment()
        await self.ingestor.start(**{"SYMBOLS": SYMBOLS} | settings)
        for market in markets:
            await self.eventually(
                lambda m=market: len(self.collector.trades[m]) > 5, 25, f"trades of {market}"
            )

    async def settle(self, *markets: tuple[str, str]) -> None:
        """Every trade from our first one on was published once, in order, with the venue's own figures."""
        await self.sim.control.clear()
        await asyncio.sleep(1)
        await self.sim.control.pause()
        for venue, symbol in markets:
            newest = (await self.sim.control.trades(venue, symbol, limit=1))[-1]["id"]
            await self.eventually(
                lambda v=venue, s=symbol, n=newest: self.collector.ids(v, s)[-1:] == [n],
                40,
                f"{symbol} {newest}",
            )
            mine = self.collector.trades[venue, symbol]
            first = mine[0].trade_id
            assert [trade.trade_id for trade in mine] == list(range(first, newest + 1))
            for at in range(first, newest + 1, 1_000):
                rows = await self.sim.control.trades(venue, symbol, from_id=at, limit=1_000)
                for row, trade in zip(rows, mine[at - first :], strict=False):
                    told = Decimal(row["price"]), Decimal(row["size"]), row["taker"]
                    assert told == (trade.price, trade.size, trade.side)


@pytest.fixture
async def scene(sim: Simulation, collector: Any, ingestor: Any, eventually: Any) -> Scene:
    return Scene(sim, collector, ingestor, eventually)


async def test_a_failing_tls_handshake_and_an_unknown_name_are_told_and_tried_again() -> None:
    sockets = PicowsSockets(SystemClock(), open_seconds=3)
    plain = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    for url in (f"wss://127.0.0.1:{port}", "ws://no-such-venue.invalid", "wss://no-such-venue.invalid"):
        with pytest.raises(UpstreamUnavailable, match="cannot open"):
            await sockets.open(url, lambda _: None, lambda _: None, lambda: 0.0)
    plain.close()


async def test_a_venue_that_cannot_be_reached_harms_no_other(scene: Scene) -> None:
    with socket.socket() as mute:  # accepts nothing, refuses nothing: the handshake hangs
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        scene.ingestor.environment |= scene.sim.environment()
        url = f"wss://127.0.0.1:{mute.getsockname()[1]}"
        await scene.ingestor.start(SYMBOLS=SYMBOLS, BINANCE_WS_URL=url)
        await scene.eventually(lambda: len(scene.collector.trades["coinbase", "BTC-USD"]) > 50, 25)
        await scene.eventually(lambda: "backoff" in scene.collector.states["binance"], 25)
    assert "cannot open" in scene.ingestor.log
    await scene.settle(("coinbase", "BTC-USD"))
    assert await scene.ingestor.stop() == 0


@pytest.mark.parametrize("skew_ms", [2_000, -2_000])
async def test_a_venue_whose_clock_is_off_or_stepped_loses_nothing(scene: Scene, skew_ms: int) -> None:
    await scene.start(*MARKETS)
    await scene.sim.control.fault("clock_skew", venue="binance", ms=skew_ms)
    await scene.eventually(
        lambda: abs(scene.collector.status["binance"].clock_offset_us - skew_ms * 1_000) < 700_000,
        30,
        "the offset follows the step",
    )
    assert abs(scene.collector.status["coinbase"].clock_offset_us) < 700_000
    await scene.settle(*MARKETS)


async def test_a_late_trade_passes_once_with_its_own_time(scene: Scene) -> None:
    await scene.start(*MARKETS)
    sent = [
        await scene.sim.control.trade("binance", "BTC-USDT", "70000", shift_ms=-late)
        for late in (200, 5_000, 300_000)
    ]
    await scene.settle(*MARKETS)
    mine = {trade.trade_id: trade for trade in scene.collector.trades["binance", "BTC-USDT"]}
    for row in sent:
        assert mine[row["id"]].event_us // 1_000 == row["time_us"] // 1_000


async def test_the_first_trade_ever_of_a_market_is_published(scene: Scene) -> None:
    await scene.sim.control.list_new("binance", "X9001-USDT")
    await scene.start(("binance", "BTC-USDT"), SYMBOLS="X9001-USDT,BTC-USDT")
    have = len(scene.collector.trades["binance", "X9001-USDT"])
    await scene.sim.control.trade("binance", "X9001-USDT", "1.5", size="2", side="sell")
    await scene.eventually(lambda: len(scene.collector.trades["binance", "X9001-USDT"]) > have)
    await scene.settle(("binance", "X9001-USDT"), ("binance", "BTC-USDT"))
    assert scene.collector.ids("binance", "X9001-USDT")[0] == 1


async def test_fifty_times_the_normal_rate_for_ten_seconds(scene: Scene) -> None:
    await scene.sim.control.rate(60)
    await scene.start(*MARKETS)
    await scene.sim.control.fault("burst", factor=50, seconds=10)
    await asyncio.sleep(10.5)
    await scene.settle(*MARKETS)
    assert sum(len(trades) for trades in scene.collector.trades.values()) > 2_000
    assert scene.collector.conflated == []


async def test_one_refused_symbol_among_two_hundred_costs_only_itself(
    collector: Any, ingestor: Any, eventually: Any
) -> None:
    async with running_simulator(process=True, arguments=("--symbols-extra", "180"), rate=600) as sim:
        scene = Scene(sim, collector, ingestor, eventually)
        await sim.control.fault("subscribe_error", venue="coinbase", symbol="ETH-USD")
        await scene.start(SYMBOLS="all:USD", CRYPTOPULSE_INGESTOR_VENUES="coinbase")
        await eventually(lambda: "ETH-USD" in getattr(collector.status.get("coinbase"), "detail", ""), 40)
        await eventually(lambda: len(collector.trades["coinbase", "BTC-USD"]) > 5, 30)
        followed = sum(connection.symbols for connection in collector.status["coinbase"].connections)
        assert followed >= 180
        assert collector.trades["coinbase", "ETH-USD"] == []
        await eventually(lambda: len(collector.trades) > 50, 30, "the others flow")


async def test_429_without_a_time_to_wait_is_obeyed_all_the_same(scene: Scene) -> None:
    await scene.sim.control.fault("rest_status", venue="binance", status=429, count=1)
    await scene.start(("binance", "BTC-USDT"), CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS="5")
    await scene.eventually(lambda: "HTTP 429" in scene.ingestor.log, 10)
    await scene.eventually(lambda: scene.collector.candles["binance", "BTC-USDT", "1d"], 90)


GECKO = {
    "CRYPTOPULSE_INGESTOR_VENUES": "coingecko",
    "CRYPTOPULSE_INGESTOR_COINGECKO_GUARD_SECONDS": "0.2",
    "CRYPTOPULSE_INGESTOR_COINGECKO_POLL_SECONDS": "0.5",
    "CRYPTOPULSE_INGESTOR_COINGECKO_PER_MONTH": "10000000",
    "CRYPTOPULSE_INGESTOR_COINGECKO_PER_MINUTE": "1000",
}


@pytest.mark.parametrize(
    ("fault", "fails"),
    [
        ({"kind": "coin_absent", "ids": ["bitcoin"]}, False),
        ({"kind": "rest_body", "content": "object"}, True),
        ({"kind": "coin_null"}, False),
        ({"kind": "rest_body", "content": "html_1020", "status": 403}, True),
        ({"kind": "rest_body", "content": "html_1020"}, True),
        ({"kind": "coin_quota"}, True),
    ],
    ids=["absent", "empty", "null", "html 403", "html 200", "quota"],
)
async def test_coingecko_says_nothing_useful_and_what_was_known_stays(
    scene: Scene, fault: dict[str, Any], fails: bool
) -> None:
    await scene.start(**GECKO)
    await scene.eventually(lambda: "bitcoin" in scene.collector.references)
    await scene.sim.control.fault(**fault, venue="coingecko")
    await asyncio.sleep(2)
    known = scene.collector.references["bitcoin"]
    await asyncio.sleep(2)
    assert scene.collector.references["bitcoin"] == known
    assert all(reference.price > 0 for reference in scene.collector.references.values())
    assert all(coin.price is None or coin.price > 0 for coin in scene.collector.coins.values())
    status = scene.collector.status["coingecko"]
    assert status.last_tick_us is not None
    assert status.state == ("backoff" if fails else "live"), status.connections
    assert await scene.ingestor.stop() == 0
