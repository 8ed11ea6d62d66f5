"""`python -m tools.venue_sim`: options from the command line, one line that says what runs, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import uvloop

from tools.venue_sim.cli import parse, started_line
from tools.venue_sim.report import Reporter
from tools.venue_sim.simulator import Simulator


async def _run(arguments: list[str]) -> None:
    options = parse(arguments)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        simulator = Simulator(options)
        gc.collect()
        gc.freeze()  # what is made once is never looked at again
        gc.set_threshold(50_000, 20, 50)
        async with simulator.running():
            print(started_line(simulator), flush=True)
            async with Reporter(simulator, options.report_seconds).running():
                await _until(stop, simulator)
    except OSError as error:
        sys.exit(f"venue_sim cannot listen: {error}")


async def _until(stop: asyncio.Event, simulator: Simulator) -> None:
    """Wait for the signal, or for the failure of what drives the venues."""
    assert simulator.task is not None
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, simulator.task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1:]))
