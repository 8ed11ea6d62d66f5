"""`python -m tools.steps [--jobs N] [--alone TASK,...] TASK ...`: run make's tasks, all of them whatever fails.

N run at a time in the order given, then those of `--alone`, one after the other. At the end it tells the time and the outcome of
each. Side by side, each one's output is shown once it has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one task ended."""

    seconds: float
    code: int

    def line(self, name: str) -> str:
        """For the summary."""
        return f"{name:<14} {self.seconds:5.0f} s  {'ok' if self.code == 0 else 'FAILED'}"


async def run_all(names: Sequence[str], jobs: int, command: Sequence[str]) -> dict[str, Outcome]:
    """Run `command NAME` for each name, `jobs` at a time; when cancelled, those that run are told to stop and waited for."""
    done: dict[str, Outcome] = {}
    free = asyncio.Semaphore(jobs)

    async def one(name: str) -> None:
        async with free:
            with tempfile.TemporaryFile() as kept:
                print(f"\n=== {name}", flush=True)
                started = time.monotonic()
                child = await asyncio.create_subprocess_exec(
                    *command,
                    name,
                    cwd=ROOT,
                    stdout=kept if jobs > 1 else None,
                    stderr=asyncio.subprocess.STDOUT if jobs > 1 else None,
                )
                try:
                    code = await child.wait()
                finally:
                    if child.returncode is None:
                        child.terminate()
                        await child.wait()
                done[name] = Outcome(time.monotonic() - started, code)
                if jobs > 1:
                    kept.seek(0)
                    print(
                        f"\n=== {done[name].line(name)}\n{kept.read().decode(errors='replace')}", flush=True
                    )

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return done


async def run_in_turn(
    names: Sequence[str], jobs: int, alone: Collection[str], command: Sequence[str]
) -> dict[str, Outcome]:
    """Those that may stand side by side, then those of `alone`, which fill the machine by themselves."""
    done = await run_all([name for name in names if name not in alone], jobs, command)
    return done | await run_all([name for name in names if name in alone], 1, command)


async def _run(names: Sequence[str], jobs: int, alone: Collection[str], command: Sequence[str]) -> int:
    """The exit code: 0 when all went well."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    started = time.monotonic()
    done = await run_in_turn(names, jobs, alone, command)
    print("\n=== summary", *(done[name].line(name) for name in names), sep="\n")
    print(f"{'total':<14} {time.monotonic() - started:5.0f} s")
    failed = [name for name in names if done[name].code != 0]
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run what is named."""
    parser = argparse.ArgumentParser(prog="python -m tools.steps", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--alone", default="", help="tasks, comma-separated, that run last and by themselves")
    parser.add_argument("task", nargs="+")
    args = parser.parse_args(arguments)
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        return asyncio.run(
            _run(args.task, max(1, args.jobs), args.alone.split(","), ("make", "--no-print-directory"))
        )
    return STOPPED


if __name__ == "__main__":
    sys.exit(main())
