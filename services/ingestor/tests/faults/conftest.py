"""The figures of these cases, printed again at the session's end."""

from __future__ import annotations

import pytest

LINES: list[str] = []


@pytest.fixture
def figures() -> list[str]:
    """A case adds its line."""
    return LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each line once more."""
    if LINES:
        terminalreporter.section("faults of ingest")
        for line in LINES:
            terminalreporter.write_line(line)
