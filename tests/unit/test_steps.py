"""All tasks are run, so many at a time, and whoever stops them stops what runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tools import steps

SCRIPT = """
import pathlib, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / name).touch()
print("said by", name)
if name.startswith("waits"):
    while not (folder / name.replace("waits", "goes")).exists():
        time.sleep(0.01)
sys.exit(name.startswith("fails"))
"""


def command(folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-c", SCRIPT, str(folder))


async def test_all_run_and_what_fails_holds_up_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = await steps.run_all(["fails", "a", "b"], 1, command(tmp_path))
    assert {name: outcome.code for name, outcome in done.items()} == {"fails": 1, "a": 0, "b": 0}
    assert done["fails"].line("fails").endswith("FAILED")
    said = capfd.readouterr().out
    assert said.index("said by fails") < said.index("said by a") < said.index("said by b")


async def test_two_at_a_time_each_told_in_one_piece(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with asyncio.timeout(20):
        done = await steps.run_all(["waits1", "goes1", "third"], 2, command(tmp_path))
    assert [outcome.code for outcome in done.values()] == [0, 0, 0]
    said = capfd.readouterr().out
    for name in done:
        told = said.index(f"=== {done[name].line(name)}")
        assert said[told:].splitlines()[1] == f"said by {name}"


async def test_what_runs_is_stopped_with_us(tmp_path: Path) -> None:
    running = asyncio.create_task(steps.run_all(["waits1", "waits2", "later"], 2, command(tmp_path)))
    async with asyncio.timeout(20):
        while len(list(tmp_path.iterdir())) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert {path.name for path in tmp_path.iterdir()} == {"waits1", "waits2"}


def test_the_outcome_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"a": 0, "b": 1}

    async def run_all(names: list[str], jobs: int, _command: object) -> dict[str, steps.Outcome]:
        assert jobs == (2 if names else 1)
        return {name: steps.Outcome(1.0, codes[name]) for name in names}

    monkeypatch.setattr(steps, "run_all", run_all)
    assert steps.main(["--jobs", "2", "a"]) == 0
    assert steps.main(["--jobs", "2", "a", "b"]) == 1
    assert "failed: b" in capsys.readouterr().out


async def test_those_that_run_alone_come_last_one_after_the_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = await steps.run_in_turn(["x", "a", "y", "b"], 1, ["x", "y"], command(tmp_path))
    assert list(done) == ["a", "b", "x", "y"]
    said = capfd.readouterr().out
    assert [line.removeprefix("said by ") for line in said.splitlines() if line.startswith("said")] == list(
        done
    )
