"""The outermost layer of every HTTP app: request id, trace, metrics, and an answer for what nobody caught. Pure ASGI."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import ClientDisconnect

from cryptopulse.common.telemetry.context import REQUEST_ID, accepted_request_id
from cryptopulse.common.telemetry.logging import bind_contextvars, get_logger, unbind_contextvars
from cryptopulse.common.telemetry.metrics import counter, gauge, histogram
from cryptopulse.common.telemetry.tracing import server_span
from cryptopulse.common.web.asgi import App, Message, Receive, Scope, Send, answer_problem
from cryptopulse.common.web.problems import UNEXPECTED

_REQUESTS: Final = counter(
    "cryptopulse_http_requests_total", "HTTP requests answered.", ("service", "method", "route", "status")
)
_DURATION: Final = histogram(
    "cryptopulse_http_request_duration_seconds",
    "Time from request to the last byte of its answer.",
    ("service", "route"),
)
_IN_PROGRESS: Final = gauge("cryptopulse_http_requests_in_progress", "HTTP requests in hand.", ("service",))
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = get_logger(__name__)


class RequestScope:
    """Gives each request its id (`scope["state"]["request_id"]`, header, logs), its span and its metrics.

    An exception that escapes the app is logged and answered with a 500 problem that says nothing about the inside.
    """

    def __init__(self, app: App, *, service: str, is_draining: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._service = service
        self._is_draining = is_draining
        self._in_progress = _IN_PROGRESS.labels(service)
        self._durations: dict[str, Any] = {}
        self._counts: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        given, parent = _headers(scope)
        request_id = accepted_request_id(given)
        scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        bind_contextvars(request_id=request_id)
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send, request_id.encode(), parent)
            else:
                await self._app(scope, receive, send)
        finally:
            unbind_contextvars("request_id")
            REQUEST_ID.reset(token)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, parent: str | None
    ) -> None:
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                headers.append((b"x-request-id", request_id))
                if self._is_draining():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        started = time.perf_counter()
        self._in_progress.inc()
        try:
            with server_span(str(scope["method"]), parent) as span:
                try:
                    await self._app(scope, receive, send_marked)
                except ClientDisconnect:
                    status = status or 499
                except Exception:
                    log.exception("request failed", path=scope["path"])
                    if status:
                        raise
                    await answer_problem(send_marked, scope, 500, UNEXPECTED)
                finally:
                    route = _route(scope)
                    span.describe(str(scope["method"]), route, status or 500)
        finally:
            self._in_progress.dec()
            self._observe(str(scope["method"]), _route(scope), status or 500, time.perf_counter() - started)

    def _observe(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "other"
        count = self._counts.get((method, route, status))
        if count is None:
            count = _REQUESTS.labels(self._service, method, route, str(status))
            self._counts[method, route, status] = count
        count.inc()
        duration = self._durations.get(route)
        if duration is None:
            duration = self._durations[route] = _DURATION.labels(self._service, route)
        duration.observe(seconds)


def _headers(scope: Scope) -> tuple[str | None, str | None]:
    """The request id and the trace parent that the caller sent."""
    request_id = parent = None
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name == b"traceparent":
            parent = value.decode("latin-1")
    return request_id, parent


def _route(scope: Scope) -> str:
    """The template of the route that matched, with the prefixes of its routers: a closed set, unlike the path."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context, "path_format", None) or getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) and template else "unmatched"
