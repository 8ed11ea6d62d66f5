"""The types of ASGI, and a problem answered without a framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from cryptopulse.common.web.problems import MEDIA_TYPE, problem_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer_problem(
    send: Send, scope: Scope, status: int, detail: str, *, code: str | None = None
) -> None:
    """Send a whole problem response; the connection is closed after it, since the body may be unread."""
    body = orjson.dumps(
        problem_body(
            status,
            detail=detail,
            code=code,
            request_id=str(scope.get("state", {}).get("request_id", "")),
            instance=str(scope["path"]),
        )
    )
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
