"""A limit on request bodies that answers with a problem; pure ASGI, so that nothing is read that will be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException

from cryptopulse.common.web.asgi import App, Message, Receive, Scope, Send, answer_problem

DEFAULT_BODY_BYTES: Final = 64 * 1024


class BodyLimit:
    """Refuses bodies over `limit` bytes with 413: at once by Content-Length, else as soon as too much has come.

    `limit_for` may give single requests (an import, say) another limit.
    """

    def __init__(
        self, app: App, *, limit: int = DEFAULT_BODY_BYTES, limit_for: Callable[[Scope], int] | None = None
    ) -> None:
        self._app = app
        self._limit = limit
        self._limit_for = limit_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit if self._limit_for is None else self._limit_for(scope)
        detail = f"The body is larger than the {limit} bytes that this endpoint takes."
        declared = _content_length(scope)
        if declared is not None and declared > limit:
            await answer_problem(send, scope, 413, detail)
            return
        if declared is not None:
            # The server holds the client to what it declared.
            await self._app(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise HTTPException(413, detail)
            return message

        await self._app(scope, receive_limited, send)


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
