"""A process of WebSocket clients that only read, started and asked from a benchmark."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Readers:
    """The clients of one process."""

    process: asyncio.subprocess.Process

    async def counted(self) -> dict[str, float]:
        """What was seen since the last call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        found: dict[str, float] = json.loads(await self.process.stdout.readline())
        return found


@asynccontextmanager
async def readers(
    port: int, path: str, clients: int, *, subscribe: str = "", mark: str, token: str = ""
) -> AsyncIterator[Readers]:
    """Clients that are connected and subscribed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.bench.socket_readers", str(port), path, str(clients),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
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
