"""The figures as a table for the terminal, JSON for machines, and the page `docs/benchmarks.md`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tools.bench.measure import Row

HEADER = (
    "case",
    "what",
    "per CPU second",
    "min .. max",
    "CPU us each",
    "per second",
    "ours / it",
    "to hold",
    "more",
)


def machine() -> str:
    """One line about where the figures were taken."""
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {platform.system()} {platform.release()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def number(value: float) -> str:
    """A figure with three significant digits, thousands apart."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    return (
        row.case,
        row.name,
        f"{number(row.per_cpu_second)} {row.unit}",
        f"{number(row.low)} .. {number(row.high)}",
        number(row.cpu_us_per_item),
        number(row.per_wall_second),
        "" if row.ratio is None else f"{row.ratio:.2f}x",
        row.hold,
        ", ".join(
            [*(f"{name} {number(value)}" for name, value in row.extra.items()), *filter(None, [row.note])]
        ),
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned for the terminal too."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADER))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [text[0], rule, *text[1:]])


def write(rows: Sequence[Row], folder: Path, *, seconds: float) -> Path:
    """Write `latest.json`; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "latest.json"
    payload = {
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(),
        "seconds": seconds,
        "rows": [asdict(r) for r in rows],
    }
    target.write_text(json.dumps(payload, indent=1) + "\n")
    return target


def page(rows: Sequence[Row], titles: dict[str, str]) -> str:
    """The page of all cases."""
    parts = [
        "# Benchmarks\n",
        "Made by `make bench`; ours is the first line of each case, its yardsticks follow, run in turn on one machine. Figures are",
        "medians over rounds; `per CPU second` counts the CPU time of the measured process. `ours / it` is the median of the ratio,",
        "round by round.\n",
        f"Machine: {machine()}, {datetime.now(UTC):%Y-%m-%d}.\n",
    ]
    for case, title in titles.items():
        chosen = [row for row in rows if row.case == case or row.case.startswith(f"{case}-")]
        if chosen:
            parts += [f"## {title}\n", table(chosen) + "\n"]
    return "\n".join(parts)
