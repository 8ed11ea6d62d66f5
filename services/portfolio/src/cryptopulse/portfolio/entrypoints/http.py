"""The internal HTTP: one route per endpoint of the contract, each bound to the handler of its operation id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from cryptopulse.common.contracts.http.portfolio import ROUTES
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.entrypoints.requests import Asked, asked

Handler = Callable[[Asked], Awaitable[Response]]


def routes(handlers: Sequence[object], specs: Sequence[RouteSpec] = ROUTES) -> APIRouter:
    """A router over all endpoints. Raises `LookupError` when one has no handler, so a forgotten one shows at start."""
    router = APIRouter()
    for spec in specs:
        handler: Handler | None = next(
            (found for one in handlers if (found := getattr(one, spec.operation_id, None)) is not None), None
        )
        if handler is None:
            raise LookupError(f"{spec.operation_id} has no handler")
        router.add_api_route(
            spec.path,
            _endpoint(spec, handler),
            methods=[spec.method],
            name=spec.operation_id,
            response_model=None,
        )
    return router


def _endpoint(spec: RouteSpec, handler: Handler) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> Response:
        use_money_context()
        return await handler(await asked(request, spec))

    return endpoint
