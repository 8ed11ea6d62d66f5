"""The witness: `ta` agrees with live series, finds a wrong one, and computes what we do not write ourselves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.indicators.adapters.ta_engine import TaEngine, columns_of, compute, witness
from cryptopulse.indicators.application.update_indicators import point_of, scale_of
from cryptopulse.indicators.domain.indicator_series import IndicatorSeries
from cryptopulse.indicators.domain.registry import live_studies
from cryptopulse.indicators.domain.ta_catalogue import TA_DEFINITIONS, WITNESSED, disagreements


def a_market(count: int) -> list[Candle]:
    import random
    from decimal import Decimal

    dice, price, found = random.Random(9), Decimal(60000), []
    for index in range(count):
        close = price + Decimal(dice.randrange(-900, 901)) / 100
        high, low = max(price, close) + Decimal("0.7"), min(price, close) - Decimal("0.3")
        volume = Decimal(dice.randrange(1, 10**6)) / 10**4
        found.append(
            Candle(
                "BTC-USD",
                "consolidated",
                "1m",
                index * 60_000,
                price,
                high,
                low,
                close,
                volume,
                volume,
                5,
                volume,
            )
        )
        price = close
    return found


def live_values(bars: Sequence[Candle]) -> dict[str, float | None]:
    core = IndicatorSeries(live_studies("1m"), scale_of(bars))
    values: list[float | None] = []
    for bar in bars:
        values = core.commit(point_of(bar, "1m", core.scale))
    return dict(zip(core.names, values, strict=True))


def test_ta_vouches_for_every_witnessed_output() -> None:
    bars = a_market(700)
    theirs = witness(columns_of(bars[-600:]))
    assert set(theirs) == set(WITNESSED)
    assert all(value is not None for value in theirs.values())
    ours = live_values(bars)
    assert disagreements(ours, theirs, float(bars[-1].close)) == {}
    wrong = ours | {"rsi_14": (ours["rsi_14"] or 0) + 0.001}
    assert list(disagreements(wrong, theirs, float(bars[-1].close))) == ["rsi_14"]


@pytest.mark.parametrize("definition", TA_DEFINITIONS, ids=lambda definition: definition.name)
def test_every_indicator_of_ta_gives_values_and_no_warm_up_zeros(definition) -> None:  # type: ignore[no-untyped-def]  # parametrised
    bars = a_market(400)
    found = compute(definition.name, definition.checked({}), columns_of(bars))
    assert set(found) == set(definition.outputs)
    for values in found.values():
        assert len(values) == 400
        assert values[-1] is not None
        assert values[0] is None or definition.name in ("force", "ease", "kama")


@pytest.fixture
async def engine() -> AsyncIterator[TaEngine]:
    made = TaEngine(1)
    yield made
    made.close()


async def test_the_loop_goes_on_while_ta_computes(engine: TaEngine) -> None:
    bars = a_market(600)
    asked = asyncio.create_task(engine.series("kama", {"period": 10}, bars, ("BTC-USD",)))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0.001)
        turns += 1
    found = await asked
    assert turns > 1
    assert await engine.series("kama", {"period": 10}, bars, ("BTC-USD",)) is found
    assert found["kama"][-1] is not None


async def test_too_few_bars_are_not_given_to_ta(engine: TaEngine) -> None:
    assert await engine.series("kama", {"period": 10}, a_market(20), ()) == {"kama": [None] * 20}


SERVICE = """
import asyncio, os, time
from cryptopulse.indicators.adapters.ta_engine import TaEngine

if __name__ == "__main__":
    engine = TaEngine(1)
    print(asyncio.run(engine._run(os.getpid)), flush=True)
    time.sleep(600)
"""


def test_a_worker_ends_with_its_killed_service(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with subprocess.Popen([sys.executable, str(tmp_path / "service.py")], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        worker = int(service.stdout.readline())
        service.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(worker)
