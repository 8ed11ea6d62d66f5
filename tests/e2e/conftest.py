"""One running system per test module, on a vhost, Redis db and database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tools.harness.system import Backends, System


@pytest.fixture
async def system(
    rabbit_vhost: str, redis_db: str, make_postgres_db: Callable[[], str], tmp_path: Path
) -> AsyncIterator[System]:
    """The whole system on the simulator, stopped at the end."""
    backends = Backends(rabbit_vhost, redis_db, make_postgres_db())
    async with System(backends, tmp_path / "system") as running:
        yield running
