"""The public app: every operation on its route, the documents, the sockets, and the layers around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from cryptopulse.common.web.asgi import App
from cryptopulse.common.web.middleware import RequestScope
from cryptopulse.common.web.problems import install_problem_handlers, problem_response
from cryptopulse.gateway.application.limiting import Counted, OverLimitError
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.entrypoints.figures import count_refusal
from cryptopulse.gateway.entrypoints.http import (
    accounts,
    api_keys,
    candles,
    coingecko,
    forward,
    pages,
    prices,
    seed_api,
    system,
    trades,
    udf,
)
from cryptopulse.gateway.entrypoints.http.edge import Edge, Origins
from cryptopulse.gateway.entrypoints.http.openapi import build_document
from cryptopulse.gateway.entrypoints.http.operations import Gate, Operation, limit_headers


def all_operations() -> list[Operation]:
    """Every operation of the public API: the one list behind routes and document."""
    return [
        *prices.OPERATIONS,
        *trades.OPERATIONS,
        *(_with_formats(operation) for operation in forward.operations()),
        *accounts.OPERATIONS,
        *api_keys.OPERATIONS,
        *system.OPERATIONS,
        *seed_api.OPERATIONS,
        *udf.OPERATIONS,
        *coingecko.OPERATIONS,
    ]


def _with_formats(operation: Operation) -> Operation:
    """Candle endpoints answer in more forms than the service's own."""
    inner = operation.spec.path.removeprefix("/v1")
    if inner not in candles.PATHS:
        return operation
    return replace(operation, spec=candles.formatted(operation.spec), handler=candles.handler(inner))


@cache
def document_of(version: str) -> dict[str, Any]:
    """The OpenAPI document of a version; making it takes a while."""
    return build_document(all_operations(), version)


def public_app(
    use_cases: UseCases,
    origins: Origins,
    *,
    sockets: Iterable[BaseRoute] = (),
    trusted_hops: int = 0,
    is_draining: Callable[[], bool] = lambda: False,
) -> App:
    """The whole public app as ASGI."""
    operations = all_operations()
    document = document_of(use_cases.version)
    app = FastAPI(
        title="CryptoPulse",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
    )
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's documented way to give a document of one's own
    install_problem_handlers(app)
    app.add_exception_handler(OverLimitError, _over_limit)
    gate = Gate(use_cases, trusted_hops=trusted_hops)
    app.router.routes.extend(routes(operations, gate))
    app.router.routes.extend(pages.routes(document))
    app.router.routes.extend(sockets)
    edge = Edge(app, use_cases, origins, trusted_hops=trusted_hops)
    return RequestScope(edge, service="gateway", is_draining=is_draining)


def routes(operations: Iterable[Operation], gate: Gate) -> list[BaseRoute]:
    """One route per path, so that a wrong method is told which ones are right."""
    table: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        for path in (operation.spec.path, *operation.aliases):
            methods = table.setdefault(path, {})
            if operation.spec.method in methods:
                raise ValueError(f"{operation.spec.method} {path} is served twice")
            methods[operation.spec.method] = operation
    ordered = sorted(table.items(), key=lambda item: ("{" in item[0], item[0].count("{"), item[0]))
    return [
        _NotedRoute(path, _endpoint(methods, gate), methods=sorted(methods), name=path)
        for path, methods in ordered
    ]


class _NotedRoute(Route):
    """Leaves word of itself in the scope, as FastAPI's own routes do: metrics and traces name requests by their template."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self}


def _endpoint(methods: dict[str, Operation], gate: Gate) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        operation = methods.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return await gate.run(operation, request)

    return endpoint


async def _over_limit(request: Request, error: Exception) -> Response:
    assert isinstance(error, OverLimitError)
    count_refusal(error.policy.name)
    return problem_response(
        429,
        request=request,
        detail=error.detail,
        code=error.code,
        title="Quota exceeded",
        headers=limit_headers(Counted(error.policy, error.verdict)),
        retry_after_seconds=error.retry_after_seconds,
    )
