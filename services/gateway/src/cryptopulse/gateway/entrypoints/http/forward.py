"""Endpoints of the other services, published from their own tables: the gateway adds door, limits and identity, no logic."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from cryptopulse.common.contracts.http import alerts, market, portfolio
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.gateway.application.ports import Answer
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, Operation

OWN: Final = frozenset({"/prices/{symbol}"})
"""Answered from memory; the service's route is the cold fallback."""
ROOT_ALIASES: Final = frozenset(
    {
        ("GET", "/prices/{symbol}/history"),
        ("GET", "/indicators/{symbol}"),
        ("POST", "/alerts"),
        ("GET", "/alerts"),
        ("POST", "/portfolio"),
        ("GET", "/portfolio"),
    }
)
"""The first seed's paths, served at the root as well."""
PASSED: Final = ("content-type", "if-match", "if-none-match", "idempotency-key", "accept")


def operations() -> list[Operation]:
    """All forwarded endpoints."""
    tables = (("indicators", market.ROUTES), ("alerts", alerts.ROUTES), ("portfolio", portfolio.ROUTES))
    return [
        _operation(service, spec)
        for service, routes in tables
        for spec in routes
        if spec.public and spec.path not in OWN
    ]


def _operation(service: str, spec: RouteSpec) -> Operation:
    alias = (spec.path,) if (spec.method, spec.path) in ROOT_ALIASES else ()
    return Operation(
        replace(spec, path=f"/v1{spec.path}"),
        _forwarder(service, spec),
        auth="optional" if spec.scope is None else "scope",
        aliases=alias,
    )


def _forwarder(service: str, spec: RouteSpec) -> Handler:
    is_market = service == "indicators"

    async def forward(use: UseCases, call: Call) -> Response:
        params = dict(call.params)
        if is_market and "symbol" in params:
            params["symbol"] = use.market.resolve(params["symbol"]).symbol
        path = "/".join(
            quote(params[part[1:-1]], safe="") if part.startswith("{") else part
            for part in spec.path.split("/")
        )
        headers = {name: value for name in PASSED if (value := call.header(name)) is not None}
        answer = await use.services.call(
            service,
            spec.method,
            path,
            identity=call.identity,
            query=call.query,
            content=_content(spec, call) or None,
            headers=headers,
        )
        return respond(answer, call)

    return forward


def _content(spec: RouteSpec, call: Call) -> bytes:
    """The body as it came; on the first seed's paths without the fields that nobody knows, which `/v1` refuses."""
    model = spec.request
    if not call.body or call.request.url.path != spec.path:
        return call.body
    if model is None or not issubclass(model, BaseModel):
        return call.body
    try:
        # Fractions stay text: a float between would change digits, and every amount may be given as a string.
        given = json.loads(call.body, parse_float=str)
    except ValueError:
        return call.body
    fields = model.model_fields
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    if not isinstance(given, dict) or given.keys() <= known:
        return call.body
    return orjson.dumps({name: value for name, value in given.items() if name in known})


def respond(answer: Answer, call: Call) -> Response:
    """The service's answer as ours; a problem gets our request id and path."""
    body = answer.body
    kind = answer.headers.get("content-type", "")
    if kind.startswith("application/problem+json"):
        problem = orjson.loads(body)
        problem["instance"] = call.request.url.path
        problem["request_id"] = call.request.scope.get("state", {}).get("request_id", "")
        body = orjson.dumps(problem)
    headers = dict(answer.headers)
    if answer.status in {204, 304}:
        headers.pop("content-type", None)
        body = b""
    return Response(body, answer.status, headers)
