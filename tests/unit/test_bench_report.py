"""The page of benchmarks shows every row, under its case."""

from __future__ import annotations

from tools.bench.measure import Row
from tools.bench.report import page


def row(case: str) -> Row:
    return Row(
        case=case, name=f"row of {case}", unit="items/s", rounds=1, per_cpu_second=1.0, low=1.0, high=1.0,
        per_wall_second=1.0, cpu_us_per_item=1.0,
    )  # fmt: skip


def test_rows_of_the_parts_of_a_case_stand_under_its_title() -> None:
    text = page([row("alerts"), row("ingest-parse"), row("ingest-bus")], {"alerts": "A", "ingest": "I"})
    first, second = text.partition("## I")[::2]
    assert "row of alerts" in first
    assert "row of ingest-parse" in second
    assert "row of ingest-bus" in second
