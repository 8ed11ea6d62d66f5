"""`python -m tools.bench [CASE ...] [--page]`: run cases, print the table, write JSON, and the page when asked."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import pkgutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

import tools.bench.cases
from tools.bench import report
from tools.bench.measure import Row

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `run` returns its rows, ours first."""

    name: str
    title: str
    run: Callable[[], Awaitable[list[Row]]]


def all_cases() -> dict[str, Case]:
    """Every case by name: each module of `tools.bench.cases` with a `CASE`."""
    found = {}
    for module in pkgutil.iter_modules(tools.bench.cases.__path__):
        loaded = importlib.import_module(f"tools.bench.cases.{module.name}")
        if hasattr(loaded, "TITLE"):
            name = module.name.replace("_", "-")
            found[name] = Case(name, loaded.TITLE, loaded.run)
    return found


async def _run(chosen: list[Case]) -> list[Row]:
    rows: list[Row] = []
    for case in chosen:
        print(f"# {case.title}", flush=True)
        got = await case.run()
        print(report.table(got), flush=True)
        rows += got
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 2 for an unknown case."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("case", nargs="*", help="all when none is named")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md too")
    args = parser.parse_args(arguments)
    known = all_cases()
    if unknown := [name for name in args.case if name not in known]:
        print(f"unknown case {', '.join(unknown)}: one of {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in args.case] or list(known.values())
    started = time.perf_counter()
    rows = uvloop.run(_run(chosen)) if sys.platform != "win32" else asyncio.run(_run(chosen))
    seconds = time.perf_counter() - started
    print(
        f"{report.machine()}; {seconds:.0f} s; {report.write(rows, ROOT / '.run' / 'bench', seconds=seconds)}"
    )
    if args.page:
        titles = {case.name: case.title for case in known.values()}
        (ROOT / "docs" / "benchmarks.md").write_text(report.page(rows, titles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
