"""200 seeds of loss, doubling, delay and death: every trade is in the candles exactly once. A failing seed reproduces."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SEEDS, PART = 200, 25


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "route_simulation", Path(__file__).with_name("simulation.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


simulation = _load()


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
async def test_every_trade_is_in_the_candles_once(first: int) -> None:
    deaths = 0
    for seed in range(first, first + PART):
        world = simulation.World(seed, simulation.Chances())
        await world.run()
        await world.bus.close()
        deaths += world.deaths
        assert world.stored() == simulation.minutes_of(world.book), f"seed {seed}"
        final = {candle.open_time: candle for candle in world.tables.published}
        told = {at: candle.trades for at, candle in final.items() if candle.trades}
        assert told == {at: row[5] for at, row in simulation.minutes_of(world.book).items()}, f"seed {seed}"
        assert world.tables.seconds_told
        assert world.tables.contradictions() == [], f"seed {seed}"
    assert deaths > PART


async def test_a_seed_gives_the_same_run_again() -> None:
    runs = []
    for _ in range(2):
        world = simulation.World(7, simulation.Chances())
        await world.run()
        await world.bus.close()
        runs.append((world.deaths, world.seq, world.stored()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "planted", [{"ack_before_work": True}, {"repairs": False}], ids=lambda bug: next(iter(bug))
)
async def test_a_planted_bug_is_found(planted: dict[str, bool]) -> None:
    found = 0
    for seed in range(PART):
        world = simulation.World(seed, simulation.Chances(), **planted)
        await world.run()
        await world.bus.close()
        found += world.stored() != simulation.minutes_of(world.book)
    assert found > 0
