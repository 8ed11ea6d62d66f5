"""All sockets of a venue: markets spread over them, rotated make-before-break, added and removed while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import uniform
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.ingestor.application.connection import Connection
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.pacing import connect_pace
from cryptopulse.ingestor.application.ports import Sockets, Venue

OVERLAP_SECONDS: Final = 2.0
"""So long both sockets run once the new one delivers: what the old one still had under way arrives."""
OVERLAP_CAP_SECONDS: Final = 10.0
LIFE_JITTER_SECONDS: Final = 1_800.0
STOP_SECONDS: Final = 3.0

log = get_logger(__name__)


class _Running:
    """A connection with its task, and when its life ends."""

    def __init__(self, connection: Connection, ends_at: float | None) -> None:
        self.connection = connection
        self.ends_at = ends_at
        self.task = asyncio.create_task(connection.run(), name=f"connection {connection.name}")
        self.rotating: asyncio.Task[None] | None = None


class Connections:
    """The sockets of one venue. `wanted` sets what they serve; `tick` rotates what is due."""

    def __init__(
        self,
        venue: Venue,
        ingest: Ingest,
        sockets: Sockets,
        clock: Clock,
        names: Mapping[str, str],
        *,
        on_change: Callable[[], None],
        on_heartbeat_id: Callable[[str, int], None],
    ) -> None:
        self._venue = venue
        self._ingest = ingest
        self._sockets = sockets
        self._clock = clock
        self._names = names
        self._on_change = on_change
        self._on_heartbeat_id = on_heartbeat_id
        self._pace = connect_pace(clock, venue.rules)
        self._running: list[_Running] = []
        self._number = 0

    async def wanted(self, natives: Sequence[str]) -> None:
        """Serve exactly these markets: gone ones are unsubscribed, new ones fill the sockets that have room."""
        want = list(dict.fromkeys(natives))
        for running in self._running:
            await running.connection.remove([n for n in running.connection.natives if n not in want])
        served = {native for running in self._running for native in running.connection.natives}
        fresh = [native for native in want if native not in served]
        room = self._per_connection
        for running in self._running:
            free = room - len(running.connection.natives)
            if free > 0 and fresh:
                await running.connection.add(fresh[:free])
                fresh = fresh[free:]
        for at in range(0, len(fresh), room):
            self._running.append(self._open(fresh[at : at + room]))

    def tick(self) -> None:
        """Begin to replace sockets that are near the end of their life or that the venue will cut."""
        now = self._clock.monotonic()
        for running in list(self._running):
            over = running.ends_at is not None and now >= running.ends_at
            if running.rotating is None and (over or running.connection.shutdown_announced):
                running.rotating = asyncio.create_task(
                    self._rotate(running), name=f"rotate {running.connection.name}"
                )

    def serving(self, native: str) -> Connection | None:
        """The connection that serves a market."""
        return next((r.connection for r in self._running if native in r.connection.natives), None)

    @property
    def all(self) -> list[Connection]:
        """Every connection, old and new ones during a rotation."""
        return [running.connection for running in self._running]

    async def close(self) -> None:
        """Close all sockets, bounded."""
        closing, self._running = self._running, []
        for running in closing:
            if running.rotating is not None:
                running.rotating.cancel()
            await running.connection.stop()
        if closing:
            _, late = await asyncio.wait({running.task for running in closing}, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @property
    def _per_connection(self) -> int:
        streams = len(self._venue.streams("x"))
        return max(1, self._venue.rules.streams_per_connection // streams)

    def _open(self, natives: Sequence[str]) -> _Running:
        self._number += 1
        connection = Connection(
            f"{self._venue.name}-{self._number}",
            self._venue,
            natives,
            self._names,
            ingest=self._ingest,
            sockets=self._sockets,
            connects=self._pace,
            clock=self._clock,
            on_change=lambda _: self._on_change(),
        )
        connection.on_heartbeat_id = self._on_heartbeat_id
        life = self._venue.rules.life_seconds
        jitter = min(LIFE_JITTER_SECONDS, (life or 0) / 20)
        ends = None if life is None else self._clock.monotonic() + life + uniform(-jitter, jitter)
        return _Running(connection, ends)

    async def _rotate(self, old: _Running) -> None:
        """Open the successor, run both until it delivers, then close the old one. The guard drops what comes twice."""
        log.info("rotating", venue=self._venue.name, connection=old.connection.name)
        new = self._open(old.connection.natives)
        self._running.append(new)
        await new.connection.delivering(OVERLAP_CAP_SECONDS)
        await asyncio.sleep(OVERLAP_SECONDS)
        await old.connection.stop()
        await asyncio.wait({old.task}, timeout=STOP_SECONDS)
        old.task.cancel()
        self._running = [running for running in self._running if running is not old]
        self._on_change()
