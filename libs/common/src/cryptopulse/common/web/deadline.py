"""A caller's patience travels with his call: a read that nobody waits for any more is stopped, down to the query in Postgres."""

from __future__ import annotations

import asyncio
from typing import Final

from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.common.web.asgi import App, Message, Receive, Scope, Send, answer_problem

HEADER: Final = "X-Deadline-Ms"
"""For how many milliseconds more the caller waits: relative, so that no two clocks need agree."""
_NAME: Final = HEADER.lower().encode()
_READS: Final = frozenset({"GET", "HEAD"})
_STOPPED: Final = counter(
    "cryptopulse_http_deadlines_total", "Reads that were stopped because their caller waits no longer."
)


class Deadline:
    """Ends a read with a 504 problem once the time in `X-Deadline-Ms` is over.

    The handler is cancelled, and with it what it waits for: asyncpg cancels the statement on the server. Writes run to their
    end, as their caller cannot tell how far they got. Without the header nothing is bounded.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = _seconds(scope) if scope["type"] == "http" and scope["method"] in _READS else None
        if seconds is None:
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def send_noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        patience = asyncio.timeout(seconds)
        try:
            async with patience:
                await self._app(scope, receive, send_noted)
        except TimeoutError:
            if not patience.expired():
                raise
            _STOPPED.inc()
            if not is_answered:
                await answer_problem(
                    send, scope, 504, "The caller waits no longer for this.", code="deadline"
                )


def _seconds(scope: Scope) -> float | None:
    for name, value in scope["headers"]:
        if name == _NAME:
            return int(value) / 1_000 if value.isdigit() and len(value) < 10 else None
    return None
