"""`python -m tools.bench [CASE ...] [--page]`: run cases, print the table, write JSON, and the page when asked."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import pkgutil
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

import tools.bench.cases
from tools.bench import report
from tools.bench.measure import QUICK, Row

KINDS = ("full", "quick")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `run` returns its rows, ours first."""

    name: str
    title: str
    run: Callable[[], Awaitable[list[Row]]]
    not_in: tuple[str, ...] = ()
    """The runs without names, `full` and `quick`, that it takes too long to be part of."""


def all_cases() -> dict[str, Case]:
    """Every case by name: each module of `tools.bench.cases` with a `CASE`."""
    found = {}
    for module in pkgutil.iter_modules(tools.bench.cases.__path__):
        loaded = importlib.import_module(f"tools.bench.cases.{module.name}")
        if hasattr(loaded, "TITLE"):
            name = module.name.replace("_", "-")
            found[name] = Case(name, loaded.TITLE, loaded.run, getattr(loaded, "NOT_IN", ()))
    return found


async def _rows(case: Case) -> list[Row]:
    try:
        return await case.run()
    except Exception as error:
        if not QUICK:
            raise
        # As in the tests on real servers: a machine may be busy, a defect fails twice.
        print(f"{case.name} is run once more: {type(error).__name__}: {error}", flush=True)
        return await case.run()


async def _run(chosen: list[Case]) -> tuple[list[Row], list[str]]:
    """The rows, and the cases that failed: the others are worth their minutes all the same."""
    rows: list[Row] = []
    failed = []
    for case in chosen:
        print(f"# {case.title}", flush=True)
        started = time.perf_counter()
        try:
            got = await _rows(case)
        except Exception:
            traceback.print_exc()
            failed.append(case.name)
            continue
        print(f"{report.table(got)}\n{case.name}: {time.perf_counter() - started:.0f} s\n", flush=True)
        rows += got
    return rows, failed


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 2 for an unknown case."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    known = all_cases()
    apart = {kind: ", ".join(name for name, case in known.items() if kind in case.not_in) for kind in KINDS}
    parser.add_argument(
        "case",
        nargs="*",
        help=f"when none is named: all but {apart['full']}; of a quick run: all but {apart['quick']}",
    )
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md too")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.case if name not in known]:
        print(f"unknown case {', '.join(unknown)}: one of {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in args.case] or [
        case for case in known.values() if KINDS[QUICK] not in case.not_in
    ]
    # What is printed is the table; a whole system in this process's hands would write its log between the rows.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    started = time.perf_counter()
    rows, failed = uvloop.run(_run(chosen)) if sys.platform != "win32" else asyncio.run(_run(chosen))
    seconds = time.perf_counter() - started
    print(
        f"{report.machine()}; {seconds:.0f} s; {report.write(rows, ROOT / '.run' / 'bench', seconds=seconds)}"
    )
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr)
        return 1
    if args.page:
        titles = {case.name: case.title for case in known.values()}
        (ROOT / "docs" / "benchmarks.md").write_text(report.page(rows, titles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
