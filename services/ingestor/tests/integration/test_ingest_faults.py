"""What venues and networks do on ugly days: after each, every trade that the venue still serves was published once, in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tools.venue_sim.testing import Simulation, running_simulator

SYMBOLS = "BTC-USDT,ETH-USDT,BTC-USD,SOL-USD,DOGE-USDT"
MARKETS = (("binance", "BTC-USDT"), ("binance", "ETH-USDT"), ("coinbase", "BTC-USD"), ("coinbase", "SOL-USD"))

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(process=True, rate=800) as found:
        yield found


class Scene:
    """The running system of a test, and the judgement at its end."""

    def __init__(self, sim: Simulation, collector: Any, ingestor: Any, eventually: Any) -> None:
        self.sim = sim
        self.collector = collector
        self.ingestor = ingestor
        self.eventually = eventually

    async def start(self, **settings: str) -> None:
        self.ingestor.environment |= self.sim.environment()
        await self.ingestor.start(SYMBOLS=SYMBOLS, **settings)
        await self.flowing(*MARKETS)

    async def flowing(self, *markets: tuple[str, str], more: int = 5, seconds: float = 20.0) -> None:
        """So many new trades of each market came."""
        before = {market: len(self.collector.trades[market]) for market in markets}
        for market in markets:
            await self.eventually(
                lambda m=market: len(self.collector.trades[m]) >= before[m] + more,
                seconds,
                f"trades of {market}",
            )

    async def settle(self, *markets: tuple[str, str], seconds: float = 30.0) -> None:
        """Faults end, the market goes on a little and stops; then our books must equal the venue's."""
        markets = markets or MARKETS
        await self.sim.control.clear()
        await self.flowing(*markets, seconds=60.0)
        await asyncio.sleep(0.5)
        await self.sim.control.pause()
        for venue, symbol in markets:
            newest = (await self.sim.control.trades(venue, symbol, limit=1))[-1]["id"]
            await self.eventually(
                lambda v=venue, s=symbol, n=newest: self.collector.ids(v, s)[-1:] == [n],
                seconds,
                f"{venue} {symbol} up to {newest}",
            )
            await self._equal(venue, symbol, newest)
        self.collector.assert_each_once_in_order()

    async def _equal(self, venue: str, symbol: str, newest: int) -> None:
        mine = self.collector.trades[venue, symbol]
        first = mine[0].trade_id
        assert [t.trade_id for t in mine] == list(range(first, newest + 1))
        at = first
        while at <= newest:
            page = await self.sim.control.trades(venue, symbol, from_id=at, limit=1_000)
            for row, trade in zip(page, mine[at - first :], strict=False):
                assert (row["id"], Decimal(row["price"]), Decimal(row["size"]), row["taker"]) == (
                    trade.trade_id, trade.price, trade.size, trade.side,
                )  # fmt: skip
                assert row["time_us"] // 1_000 == trade.event_us // 1_000
            at = page[-1]["id"] + 1


@pytest.fixture
async def scene(sim: Simulation, collector: Any, ingestor: Any, eventually: Any) -> Scene:
    return Scene(sim, collector, ingestor, eventually)


async def test_a_quiet_day_needs_no_repair(scene: Scene) -> None:
    await scene.start()
    await scene.settle()
    assert "gap found" not in scene.ingestor.log
    offset = scene.collector.status["binance"].clock_offset_us
    assert abs(offset) < 1_000_000
    assert scene.collector.quotes["binance", "BTC-USDT"]
    assert scene.collector.batches[-1].simulated


async def test_dropped_doubled_and_shuffled_trades_come_out_once_in_order(scene: Scene) -> None:
    await scene.start()
    for venue, channel in (("binance", "trade"), ("coinbase", "trade")):
        await scene.sim.control.fault("drop", venue=venue, channel=channel, probability=0.02)
        await scene.sim.control.fault("duplicate", venue=venue, channel=channel, probability=0.1)
        await scene.sim.control.fault("reorder", venue=venue, channel=channel, probability=0.05, window=4)
    await asyncio.sleep(4)
    hits = {fault["kind"]: fault["hits"] for fault in await scene.sim.control.faults()}
    assert all(hits[kind] > 0 for kind in ("drop", "duplicate", "reorder")), hits
    await scene.settle()
    assert "gap found" in scene.ingestor.log
    assert "trades are missing" not in scene.ingestor.log


async def test_a_gap_of_thousands_is_repaired(scene: Scene) -> None:
    await scene.start()
    await scene.sim.control.fault("silent", venue="binance", symbol="BTC-USDT", seconds=6)
    await scene.sim.control.rate(6_000)
    await asyncio.sleep(6.5)
    await scene.sim.control.rate(500)
    await scene.settle()
    flagged = [t for t in scene.collector.trades["binance", "BTC-USDT"] if t.flags & 2]
    assert len(flagged) > 1_000


@pytest.mark.parametrize(
    "how", [{"kind": "cut"}, {"kind": "close", "code": 1008}, {"kind": "close", "code": 1012}]
)
async def test_a_lost_connection_comes_back_and_the_hole_is_filled(scene: Scene, how: dict[str, Any]) -> None:
    await scene.start()
    for venue in ("binance", "coinbase"):
        await scene.sim.control.fault(**how, venue=venue)
    await scene.eventually(lambda: scene.ingestor.log.count("feed lost") >= 2, 10)
    await scene.settle()
    states = scene.collector.states["binance"]
    # the pause has full jitter: it may be over before a status is sent
    assert {"backoff", "connecting", "subscribing"} & set(states[states.index("live") + 1 :])


async def test_a_half_open_connection_is_noticed_by_its_silence(scene: Scene) -> None:
    await scene.start()
    await scene.sim.control.fault("half_open", venue="coinbase")
    await scene.eventually(lambda: "no frame for" in scene.ingestor.log, 12)
    await scene.settle()


async def test_an_announced_shutdown_is_rotated_before_the_cut_without_a_gap(scene: Scene) -> None:
    await scene.start()
    await scene.sim.control.fault("server_shutdown", venue="binance")
    await scene.eventually(lambda: "rotating" in scene.ingestor.log, 10)
    await scene.settle()
    assert "gap found" not in scene.ingestor.log
    assert "feed lost" not in scene.ingestor.log


async def test_rotation_before_the_end_of_a_sockets_life_loses_and_doubles_nothing(scene: Scene) -> None:
    await scene.start(CRYPTOPULSE_INGESTOR_ROTATE_SECONDS="3")
    await scene.eventually(lambda: scene.ingestor.log.count("rotating") >= 4, 20)
    await scene.settle()
    assert "gap found" not in scene.ingestor.log


async def test_one_silent_stream_among_others_is_found_repaired_and_subscribed_anew(scene: Scene) -> None:
    await scene.start()
    await scene.flowing(*MARKETS, more=50)
    await scene.sim.control.fault("silent", venue="binance", symbol="ETH-USDT", channel="trade")
    await scene.eventually(lambda: "silent stream" in scene.ingestor.log, 40)
    await scene.settle()


async def test_garbage_of_every_kind_is_quarantined_and_costs_no_trade(scene: Scene) -> None:
    await scene.start()
    contents = [
        "html",
        "empty",
        "truncated",
        "garbage",
        "binary",
        "invalid_utf8",
        "array",
        "null",
        "number",
        "string",
    ]
    contents += [
        "object",
        "unknown_event",
        "unknown_symbol",
        "non_ascii_symbol",
        "missing_field",
        "null_field",
    ]
    contents += ["wrong_shape", "bad_number", "wrong_time", "extra_field"]
    for content in contents:
        for venue in ("binance", "coinbase"):
            await scene.sim.control.fault("corrupt", venue=venue, content=content, insert=True, count=3)
    await asyncio.sleep(3)
    await scene.settle()
    async with httpx.AsyncClient(base_url=scene.ingestor.url, headers=scene.ingestor.headers()) as http:
        for venue in ("binance", "coinbase"):
            kept = (await http.get(f"/feeds/{venue}/quarantine")).json()
            assert {"malformed", "unknown_event", "unknown_symbol", "bad_number"} <= set(kept["counts"]), (
                kept["counts"]
            )
            assert all(len(frame["frame"]) <= 2_000 for frame in kept["frames"])


async def test_frames_replaced_by_garbage_are_repaired(scene: Scene) -> None:
    await scene.start()
    for content in ("truncated", "bad_number", "wrong_time"):
        await scene.sim.control.fault(
            "corrupt", venue="binance", channel="trade", content=content, probability=0.01
        )
    await asyncio.sleep(4)
    await scene.settle()


async def test_ids_that_start_over_are_followed(scene: Scene) -> None:
    await scene.start()
    await scene.sim.control.fault("id_reset", venue="binance", symbol="BTC-USDT")
    before = len(scene.collector.trades["binance", "BTC-USDT"])
    await scene.eventually(
        lambda: (
            scene.collector.ids("binance", "BTC-USDT")[-1] < scene.collector.ids("binance", "BTC-USDT")[0]
        ),
        15,
    )
    await scene.flowing(("binance", "BTC-USDT"))
    after = scene.collector.ids("binance", "BTC-USDT")[before:]
    fresh = [n for n in after if n < after[0]] or after
    assert fresh == list(range(fresh[0], fresh[0] + len(fresh)))


async def test_a_killed_ingestor_repairs_the_time_it_was_down(scene: Scene) -> None:
    await scene.start()
    await scene.flowing(*MARKETS, more=100)
    await scene.ingestor.stop(signal.SIGKILL)
    await asyncio.sleep(3)
    await scene.ingestor.start(SYMBOLS=SYMBOLS)
    await scene.flowing(*MARKETS)
    await scene.sim.control.clear()
    await asyncio.sleep(3)
    # what was published after the last saved id comes again: consumers drop it by id, so the judgement does as well
    for trades in scene.collector.trades.values():
        unique = {trade.trade_id: trade for trade in trades}
        assert len(trades) - len(unique) < 3_000
        trades[:] = [unique[n] for n in sorted(unique)]
    await scene.settle()


async def test_a_restart_by_sigterm_neither_loses_nor_doubles(scene: Scene) -> None:
    await scene.start()
    await scene.flowing(*MARKETS, more=100)
    assert await scene.ingestor.stop() == 0
    await asyncio.sleep(2)
    await scene.ingestor.start(SYMBOLS=SYMBOLS)
    await scene.settle()
    epochs = [batch.epoch for batch in scene.collector.batches if batch.venue == "binance"]
    assert len(set(epochs)) == 2
    assert epochs == sorted(epochs)


async def test_of_two_replicas_one_stands_by_and_takes_over(
    scene: Scene, rabbit_vhost: str, redis_db: str, tmp_path: Any
) -> None:
    await scene.start()
    other = type(scene.ingestor)(dict(scene.ingestor.environment), tmp_path / "other.log")
    try:
        await other.start(SYMBOLS=SYMBOLS)
        await scene.flowing(*MARKETS, more=100)
        assert "serving" not in other.log
        assert len({batch.epoch for batch in scene.collector.batches if batch.venue == "binance"}) == 1
        await scene.ingestor.stop(signal.SIGTERM)
        await scene.eventually(lambda: "serving" in other.log, 15)
        await scene.settle()
    finally:
        await other.close()
        print(other.log[-3_000:])


async def test_the_exchange_dialect_is_as_exact(scene: Scene) -> None:
    environment = scene.sim.environment() | {"COINBASE_API_URL": scene.sim.urls.coinbase_exchange_api}
    scene.ingestor.environment |= environment
    await scene.ingestor.start(SYMBOLS=SYMBOLS, CRYPTOPULSE_INGESTOR_COINBASE_DIALECT="exchange")
    markets = (("coinbase", "BTC-USD"), ("coinbase", "SOL-USD"))
    await scene.flowing(*markets)
    await scene.sim.control.fault("drop", venue="coinbase", channel="trade", probability=0.05)
    await asyncio.sleep(4)
    await scene.settle(*markets)
    assert "gap found" in scene.ingestor.log


async def test_kraken_is_one_folder_and_as_exact(scene: Scene) -> None:
    import json

    scene.ingestor.environment |= scene.sim.environment()
    urls = {"kraken": [scene.sim.urls.kraken_api, scene.sim.urls.kraken_ws]}
    await scene.ingestor.start(
        SYMBOLS="BTC-USD,ETH-USD",
        CRYPTOPULSE_INGESTOR_VENUES="kraken",
        CRYPTOPULSE_INGESTOR_VENUE_URLS=json.dumps(urls),
    )
    markets = (("kraken", "BTC-USD"), ("kraken", "ETH-USD"))
    await scene.flowing(*markets)
    await scene.sim.control.fault("cut", venue="kraken")
    await scene.settle(*markets)
