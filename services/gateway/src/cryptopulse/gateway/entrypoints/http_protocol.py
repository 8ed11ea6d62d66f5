"""uvicorn's HTTP protocol with a bound on how long a request's head may take, and with problem documents for what is no HTTP."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 10.0
"""A client that trickles its head in (slowloris), or connects and says nothing, is cut after this."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. The timer runs only while a head is incomplete: a request that comes in one piece costs two flags."""

    head_seconds: float = HEAD_SECONDS
    _in_head = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Connected: the head is due from now on."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came; what they leave incomplete is due in time."""
        super().data_received(data)
        if self._in_head and self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What is no HTTP (or an address over 64 KiB) is told so in the form of every other refusal."""
        self._refuse(
            400,
            "Bad Request",
            "malformed-request",
            "This is not a valid HTTP request, or its address is too long.",
        )

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(
                408,
                "Request Timeout",
                "request-timeout",
                f"The head of the request took over {self.head_seconds:g} s.",
            )

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, title: str, code: str, detail: str) -> None:
        body = orjson.dumps(
            {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "instance": "",
             "code": code, "request_id": secrets.token_urlsafe(16), "errors": []}
        )  # fmt: skip
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
