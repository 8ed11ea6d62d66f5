"""A process of WebSocket clients that only read, started and asked from a benchmark."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

LINE_BYTES: Final = 1 << 20
"""Of the report of a client process, whose times are counted one by one."""
ANSWER_SECONDS: Final = 60


@dataclass
class Readers:
    """The clients of one process."""

    process: asyncio.subprocess.Process

    async def counted(self) -> dict[str, float]:
        """What was seen since the last call."""
        found, _ = await self.timed()
        return found

    async def timed(self) -> tuple[dict[str, float], Counter[int]]:
        """What was seen since the last call, and how many messages took how many tenths of a millisecond."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        found = json.loads(await asyncio.wait_for(self.process.stdout.readline(), ANSWER_SECONDS))
        return found, Counter({int(tenths): count for tenths, count in found.pop("tenths_ms").items()})


@asynccontextmanager
async def readers(
    port: int, path: str, clients: int, *, subscribe: str = "", mark: str, token: str = ""
) -> AsyncIterator[Readers]:
    """Clients that are connected and subscribed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.bench.socket_readers", str(port), path, str(clients),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{subscribe}\n{mark}\n{token}\n".encode())
        said = await asyncio.wait_for(process.stdout.readline(), 60)
        if said.strip() != b"ready":
            raise RuntimeError(f"the clients did not connect: {said.decode()}")
        yield Readers(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
