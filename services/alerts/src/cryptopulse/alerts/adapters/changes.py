"""NOTIFY of Postgres: wakes whoever waits for changes, and says when some may have been missed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)
PING_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 1.0


async def listen(
    db: Database,
    channels: Mapping[str, Callable[[str], None]],
    connected: Callable[[], None],
    beat: Callable[[], None],
) -> None:
    """For ever: hand each payload to its channel's function. `connected` is called at every (re)connection: look at everything."""
    while True:
        beat()
        try:
            async with db.dedicated() as connection:
                for channel, handle in channels.items():
                    await connection.add_listener(channel, _adapted(handle))
                connected()
                while not connection.is_closed():
                    beat()
                    await asyncio.sleep(PING_SECONDS)
                    await connection.fetchval("SELECT 1")
        except StoreUnavailable as error:
            log.warning("changes are polled until postgres is back", error=str(error))
        except OSError as error:
            log.warning("the line for changes broke", error=str(error))
        await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.5, 1.0))


def _adapted(handle: Callable[[str], None]) -> Callable[[Any, int, str, str], None]:
    def on_notify(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
        handle(payload)

    return on_notify
