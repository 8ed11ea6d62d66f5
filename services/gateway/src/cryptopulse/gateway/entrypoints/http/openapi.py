"""The OpenAPI 3.1 document, built from the same list of operations as the routes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.gateway.entrypoints.http.operations import Operation

REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = "application/problem+json"
_MEANING: Final = {
    400: "Malformed request",
    401: "No credential, or a bad one",
    403: "The credential does not allow this",
    404: "Not there, or not yours",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict with the present state",
    412: "`If-Match` names an old version",
    413: "Body too large",
    415: "Media type or encoding not taken",
    422: "Invalid field; `errors` names it and the fix",
    429: "Limit used up; `Retry-After` says when to come back",
    500: "A fault on our side",
    503: "A part of the system is away; `Retry-After` says when to come back",
}
_TAGS: Final = {
    "prices": "Newest prices, consolidated and per venue.",
    "candles": "OHLCV history.",
    "indicators": "Technical indicators: newest values, history, catalogue, signals.",
    "symbols": "What can be asked for.",
    "coins": "Coins by CoinGecko id.",
    "market": "Trends of the whole market.",
    "alerts": "Rules, events, webhooks.",
    "portfolio": "Portfolios, transactions, holdings, performance.",
    "auth": "Sign-up, login, sessions, passwords.",
    "api-keys": "Keys for programs.",
    "admin": "For operators, on the internal port: users, feeds, limits, dead letters.",
    "system": "Health, status, documents.",
    "seed": "The paths of an older backend, unchanged.",
    "udf": "TradingView's UDF datafeed.",
    "coingecko": "A CoinGecko-compatible read API: change the base URL.",
}


class ProblemField(BaseModel):
    """One fault: `pointer` into the body or `parameter` by name, a stable code, and the fix."""

    model_config = ConfigDict(extra="allow")

    pointer: str | None = None
    parameter: str | None = None
    code: str
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable and for programs, `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/unknown-symbol"])
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(examples=["unknown-symbol"])
    request_id: str
    errors: list[ProblemField]


def build_document(
    operations: Iterable[Operation], version: str, *, title: str = "CryptoPulse"
) -> dict[str, Any]:
    """The whole document; every path of every operation is in it, aliases too."""
    listed = [operation for operation in operations if operation.is_documented]
    names, components = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        for position, path in enumerate((operation.spec.path, *operation.aliases)):
            entry = _operation(operation, names, is_alias=position > 0)
            paths.setdefault(path, {})[operation.spec.method.lower()] = entry
    used = {tag for operation in listed for tag in operation.spec.tags}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "summary": "Real-time crypto prices, indicators, alerts and portfolios",
            "description": "Decimals are strings, times integer milliseconds UTC unless a name says otherwise. "
            "Errors are problem documents (RFC 9457) with stable codes. Streams: `/v1/asyncapi.json`.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
        "paths": dict(sorted(paths.items())),
        "webhooks": _webhooks(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _schemas(operations: list[Operation]) -> tuple[dict[tuple[Any, str], str], dict[str, Any]]:
    wanted: list[tuple[Any, Any]] = [(Problem, "serialization")]
    for operation in operations:
        for kind, mode in (
            (operation.spec.request, "validation"),
            (operation.spec.response, "serialization"),
            *((model, "serialization") for _, model in operation.spec.more_responses),
        ):
            if kind is not None and (kind, mode) not in wanted:
                wanted.append((kind, mode))
    models = [(kind, mode) for kind, mode in wanted if isinstance(kind, type) and issubclass(kind, BaseModel)]
    others = [(kind, mode) for kind, mode in wanted if (kind, mode) not in models]
    mapping, definitions = models_json_schema(models, ref_template=REF)
    names: dict[tuple[Any, str], str] = {key: str(value["$ref"]) for key, value in mapping.items()}
    components: dict[str, Any] = dict(definitions.get("$defs", {}))
    for kind, mode in others:
        schema = TypeAdapter(kind).json_schema(
            mode=mode, ref_template=REF, schema_generator=GenerateJsonSchema
        )
        components.update(schema.pop("$defs", {}))
        name = getattr(kind, "__name__", None) or f"Union{len(components)}"
        components[name] = schema
        names[kind, mode] = f"#/components/schemas/{name}"
    return names, dict(sorted(components.items()))


def _operation(
    operation: Operation, names: Mapping[tuple[Any, str], str], *, is_alias: bool
) -> dict[str, Any]:
    spec = operation.spec
    entry: dict[str, Any] = {
        "operationId": f"{spec.operation_id}_alias" if is_alias else spec.operation_id,
        "summary": spec.summary,
        "tags": list(spec.tags),
        "parameters": [*_path_parameters(spec), *_query_parameters(spec), *_header_parameters(spec)],
        "responses": _responses(operation, names),
        "security": _security(operation),
        "x-cost": spec.cost,
        "x-rate-limit-bucket": operation.bucket,
    }
    if spec.description or is_alias:
        note = f"Another path of `{spec.method} {spec.path}`." if is_alias else ""
        if is_alias and spec.path.startswith("/v1/") and spec.request is not None:
            note += " Unknown fields are ignored here."
        entry["description"] = " ".join(filter(None, (spec.description, note)))
    if spec.request is not None:
        schema = {"$ref": names[spec.request, "validation"]}
        entry["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": schema} for kind in spec.media_types},
        }
    elif spec.media_types != ("application/json",):
        entry["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": {"type": "string"}} for kind in spec.media_types},
        }
    return entry


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.auth == "optional":
        return [{}, {"bearer": []}, {"apiKey": []}]
    if operation.auth == "login":
        return [{"bearer": []}]
    return [{"bearer": []}, {"apiKey": []}]


def _path_parameters(spec: RouteSpec) -> list[dict[str, Any]]:
    found = []
    for name in spec.parameters:
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        example = None
        if name in {"portfolio_id", "transaction_id"}:
            schema = {"type": "integer", "minimum": 1, "maximum": 9_223_372_036_854_775_807}
        elif name == "symbol":
            example = "BTC-USD"
        row: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": schema}
        if example is not None:
            row["example"] = example
        found.append(row)
    return found


def _query_parameters(spec: RouteSpec) -> list[dict[str, Any]]:
    if spec.query is None or not issubclass(spec.query, BaseModel):
        return []
    schema = spec.query.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    found = []
    for name, given in schema.get("properties", {}).items():
        item = _inlined(given, definitions)
        row: dict[str, Any] = {"name": name, "in": "query", "required": name in required, "schema": item}
        if "description" in item:
            row["description"] = item.pop("description")
        item.pop("title", None)
        found.append(row)
    return found


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(copy.deepcopy(definitions[schema["$ref"].rpartition("/")[2]]), definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    return schema


def _takes_idempotency_key(spec: RouteSpec) -> bool:
    return spec.method == "POST" and spec.scope is not None


def _header_parameters(spec: RouteSpec) -> list[dict[str, Any]]:
    if not _takes_idempotency_key(spec):
        return []
    text = "The same key with the same request gets the first answer again, for 24 h."
    schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9_-]+$"}
    return [
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema, "description": text}
    ]


def _responses(operation: Operation, names: Mapping[tuple[Any, str], str]) -> dict[str, Any]:
    spec = operation.spec
    answer: dict[str, Any] = {"description": "Done"}
    if spec.response is not None:
        schema = {"$ref": names[spec.response, "serialization"]}
        answer["content"] = {
            kind: {"schema": schema if kind == "application/json" else {"type": "string"}}
            for kind in spec.response_media_types
        }
    found: dict[str, Any] = {str(spec.status): answer}
    for status, model in spec.more_responses:
        content = {"application/json": {"schema": {"$ref": names[model, "serialization"]}}}
        found[str(status)] = {"description": "Taken in" if status == 202 else "Done", "content": content}
    if spec.path == "/v1/prices/{symbol}" or operation.is_cacheable:
        found["304"] = {"description": "Not changed since the version of `If-None-Match`"}
    problem = {_PROBLEM: {"schema": {"$ref": REF.format(model="Problem")}}}
    once = {409, 422} if _takes_idempotency_key(spec) else set()
    for status in sorted({400, 401, 429, 500, 503, *once, *spec.errors}):
        found.setdefault(str(status), {"description": _MEANING.get(status, "Error"), "content": problem})
    if spec.path == "/health/":
        found["503"] = {**answer, "description": "Prices cannot be served"}
    return found


def _webhooks() -> dict[str, Any]:
    kinds = (
        "alert.triggered", "alert.resolved", "alert.expired", "alert.error",
        "portfolio.threshold", "webhook.test", "endpoint.disabled",
    )  # fmt: skip
    headers = [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("webhook-id", "Stable over retries: use it to drop repeats."),
            ("webhook-timestamp", "Unix seconds of this attempt."),
            ("webhook-signature", "Space-separated `v1,<base64 HMAC-SHA256 of id.timestamp.body>`."),
        )
    ]
    schema = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": list(kinds)},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"type": "object"},
        },
    }
    return {
        "event": {
            "post": {
                "operationId": "receive_event",
                "summary": "What we send to your endpoint (Standard Webhooks 1.0)",
                "parameters": headers,
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "responses": {"2XX": {"description": "Taken; anything else is tried again"}},
            }
        }
    }
