"""Every refusal and failure is a problem that names the field and the fix, and tells nothing about the inside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cryptopulse.common import errors
from cryptopulse.common.errors import FieldError
from cryptopulse.common.web.body_limit import BodyLimit
from cryptopulse.common.web.middleware import RequestScope
from cryptopulse.common.web.problems import install_problem_handlers, status_of


class Leg(BaseModel):
    model_config = ConfigDict(extra="forbid")
    price: Decimal = Field(gt=0)

    @field_validator("price")
    @classmethod
    def _not_silly(cls, price: Decimal) -> Decimal:
        if price > 10**9:
            raise ValueError("Must be below a billion")
        return price


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    legs: list[Leg]
    note: str = ""


RAISED: dict[str, Exception] = {
    "not-found": errors.NotFound("There is no alert al_1."),
    "forbidden": errors.Forbidden("The scope alerts:write is needed.", code="missing-scope"),
    "unauthenticated": errors.Unauthenticated("The token has expired.", code="token-expired"),
    "conflict": errors.Conflict("The name is taken."),
    "precondition": errors.PreconditionFailed("Version 3 is newer."),
    "limit": errors.LimitExceeded("60 a minute.", retry_after_seconds=2.2),
    "invalid": errors.Invalid(
        "Bad name.", code="bad-name", errors=(FieldError("/name", "bad-name", "give another"),)
    ),
    "cursor": errors.InvalidCursor("Bad cursor."),
    "store": errors.StoreUnavailable("Postgres at 10.0.0.7 does not answer"),
    "bus": errors.BusUnavailable("amqp://u:p@10.0.0.8 is away"),
    "upstream": errors.UpstreamUnavailable("alerts says 503", retry_after_seconds=7),
    "teapot": HTTPException(418),
    "plain": HTTPException(400, "The import is empty."),
    "bug": ZeroDivisionError("secret detail"),
}


def make_app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    install_problem_handlers(app)

    @app.get("/raise/{name}")
    async def raises(name: str) -> None:
        raise RAISED[name]

    @app.post("/orders")
    async def order(
        order: Order, limit: Annotated[int, Query(ge=1)] = 50, if_match: Annotated[int, Header()] = 0
    ) -> Any:
        return {"legs": len(order.legs), "limit": limit, "if_match": if_match}

    app.add_middleware(BodyLimit, limit=1_000)
    app.add_middleware(RequestScope, service="test")
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("not-found", 404, "not-found"),
        ("forbidden", 403, "missing-scope"),
        ("unauthenticated", 401, "token-expired"),
        ("conflict", 409, "conflict"),
        ("precondition", 412, "precondition-failed"),
        ("limit", 429, "limit-exceeded"),
        ("invalid", 422, "bad-name"),
        ("cursor", 400, "invalid-cursor"),
        ("store", 503, "store-unavailable"),
        ("bus", 503, "bus-unavailable"),
        ("upstream", 503, "upstream-unavailable"),
        ("teapot", 418, "http-418"),
        ("plain", 400, "bad-request"),
        ("bug", 500, "internal-error"),
    ],
)
async def test_each_error_has_its_status_and_code(
    client: httpx.AsyncClient, name: str, status: int, code: str
) -> None:
    response = await client.get(f"/raise/{name}", headers={"X-Request-Id": "abcd1234"})

    body = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"/problems/{code}"
    assert body["instance"] == f"/raise/{name}"
    assert body["request_id"] == response.headers["x-request-id"] == "abcd1234"
    assert body["detail"]


@pytest.mark.parametrize("name", ["store", "bus", "bug"])
async def test_nothing_of_the_inside_is_told(client: httpx.AsyncClient, name: str) -> None:
    text = (await client.get(f"/raise/{name}")).text

    assert "10.0.0" not in text
    assert "secret detail" not in text
    assert "ZeroDivision" not in text


@pytest.mark.parametrize(("name", "seconds"), [("limit", "3"), ("store", "2"), ("upstream", "7")])
async def test_waiting_helps_and_how_long_is_said(client: httpx.AsyncClient, name: str, seconds: str) -> None:
    assert (await client.get(f"/raise/{name}")).headers["retry-after"] == seconds


async def test_a_missing_credential_is_asked_for(client: httpx.AsyncClient) -> None:
    assert (await client.get("/raise/unauthenticated")).headers["www-authenticate"] == "Bearer"


async def test_fields_are_named_by_pointer_and_parameters_by_name(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/orders?limit=0",
        json={"legs": [{"price": "1"}, {"price": "-1", "size": 2}, {}], "not/e": 1},
        headers={"If-Match": "x"},
    )

    faults = {fault.get("pointer") or fault.get("parameter"): fault for fault in response.json()["errors"]}
    assert response.status_code == 422
    assert response.json()["code"] == "invalid"
    assert faults["/legs/1/price"]["detail"] == "should be greater than 0"
    assert faults["/legs/1/size"]["code"] == "unknown-field"
    assert faults["/legs/2/price"] == {
        "pointer": "/legs/2/price",
        "code": "required",
        "detail": "is required",
    }
    assert faults["/not~1e"]["detail"] == "is not known here: remove it, or check its spelling"
    assert faults["limit"]["parameter"] == "limit"
    assert faults["if-match"]["code"] == "int-parsing"


async def test_our_own_checks_speak_without_pydantic_s_prefix(client: httpx.AsyncClient) -> None:
    response = await client.post("/orders", json={"legs": [{"price": "9999999999"}]})

    assert response.json()["errors"][0]["detail"] == "must be below a billion"


async def test_a_missing_body_is_required(client: httpx.AsyncClient) -> None:
    assert (await client.post("/orders")).json()["errors"] == [
        {"pointer": "/", "code": "required", "detail": "is required"}
    ]


async def test_malformed_json_is_400_and_says_where(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/orders", content=b'{"legs": [}', headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400
    assert response.json()["code"] == "malformed-json"
    assert "position 10" in response.json()["detail"]


async def test_a_body_of_another_kind_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/orders", content=b'{"legs": []}', headers={"Content-Type": "text/plain"})

    assert response.status_code == 422


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nowhere")
    wrong = await client.delete("/orders")

    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    assert missing.json()["detail"] == "There is nothing at /nowhere."
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "POST"


async def test_a_body_over_the_limit_is_413_by_its_declared_length(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/orders", content=b"x" * 1_001, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 413
    assert response.json()["code"] == "body-too-large"
    assert "1000 bytes" in response.json()["detail"]
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_body_over_the_limit_is_413_also_without_a_length(client: httpx.AsyncClient) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 1
            yield b"x" * 100

    response = await client.post("/orders", content=chunks(), headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert response.json()["code"] == "body-too-large"


async def test_a_body_at_the_limit_is_taken(client: httpx.AsyncClient) -> None:
    body = b'{"legs": [], "note": "' + b"x" * (1_000 - 24) + b'"}'
    assert len(body) == 1_000

    response = await client.post("/orders", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 200, response.text


async def test_at_most_fifty_faults_are_listed(client: httpx.AsyncClient) -> None:
    response = await client.post("/orders", json={f"f{i}": 1 for i in range(80)})

    assert len(response.json()["errors"]) == 50


def test_every_error_of_the_house_has_a_status_of_its_own_or_its_parent() -> None:
    def leaves(kind: type[errors.CryptoPulseError]) -> list[type[errors.CryptoPulseError]]:
        children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
        return [kind, *(leaf for child in children for leaf in leaves(child))]

    for kind in leaves(errors.Refused):
        assert 400 <= status_of(kind("x")) < 500
    for kind in leaves(errors.Retryable):
        assert status_of(kind("x")) == 503
