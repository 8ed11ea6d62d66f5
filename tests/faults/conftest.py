"""The stand that all cases share, healed before each; the seed; the lines at the end of the session."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.report import LINES
from tests.faults.stand import Stand, missing_programs, running_stand

SEED = int(os.environ.get("CRYPTOPULSE_FAULT_SEED") or time.time())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each case once more, with the seed that repeats the session."""
    if LINES:
        terminalreporter.section(f"faults (CRYPTOPULSE_FAULT_SEED={SEED})")
        for line in LINES:
            terminalreporter.write_line(line)


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The dice of a case: the same for the same seed and case."""
    return random.Random(f"{SEED}/{request.node.name}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def whole_stand() -> AsyncIterator[Stand]:
    """The system on servers of its own."""
    missing = missing_programs()
    if missing:
        reason = (
            f"these cases kill servers, so they need them as programs of this machine; not here: {missing}"
        )
        if os.environ.get("REQUIRE_BACKENDS", "").lower() in {"1", "true", "yes"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    async with running_stand() as stand:
        await stand.heal()
        yield stand


@pytest_asyncio.fixture(loop_scope="session")
async def stand(whole_stand: Stand) -> Stand:
    """The stand, well."""
    await whole_stand.heal()
    return whole_stand
