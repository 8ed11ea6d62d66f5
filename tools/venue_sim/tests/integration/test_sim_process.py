"""The simulator as a program of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx

from tools.venue_sim.testing import ROOT, running_simulator, tapped


async def run(*words: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.venue_sim", *words, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(child.communicate(), 30)
    return child.returncode or 0, output.decode()


async def test_a_process_tells_its_urls_serves_and_ends_on_terminate() -> None:
    async with running_simulator(process=True, rate=500, seed=11, arguments=("--report-seconds", "1")) as sim:
        assert set(sim.environment()) >= {
            "BINANCE_API_URL",
            "BINANCE_WS_URL",
            "COINBASE_WS_URL",
            "COINGECKO_API_URL",
        }
        async with tapped(sim.urls.binance_ws + "/ws/btcusdt@trade") as tap:
            await tap.until(lambda message: message["e"] == "trade")
        assert (await sim.control.index())["seed"] == 11
        stats = await sim.control.stats()
        assert stats["counters"]["trades"] > 0


async def test_two_processes_with_one_seed_have_one_history() -> None:
    async def klines(seed: int) -> Any:
        async with (
            running_simulator(process=True, seed=seed, rate=1) as sim,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            url = f"{sim.urls.binance_api}/klines?symbol=BTCUSDT&interval=1h&startTime=1795000000000&limit=24"
            return (await client.get(url)).json()

    one, two, other = await asyncio.gather(klines(5), klines(5), klines(6))
    assert one == two
    assert len(one) == 24
    assert one != other


async def test_wrong_options_say_what_is_wrong() -> None:
    code, text = await run()
    assert (code, "no venue is served" in text) == (2, True)
    code, text = await run("--binance-port", "0", "--play", "/no/such/file")
    assert (code, "there is no /no/such/file" in text) == (2, True)


async def test_a_taken_port_is_told() -> None:
    async with running_simulator(rate=1.0) as sim:
        code, text = await run("--binance-port", sim.urls.binance_ws.rpartition(":")[2])
    assert code == 1
    assert "cannot listen" in text
