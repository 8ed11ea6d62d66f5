"""The documents: every route is in OpenAPI and the other way round; the two-user test and the scopes are derived from it."""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import Route

from cryptopulse.gateway.entrypoints.http.app import all_operations, routes
from cryptopulse.gateway.entrypoints.http.openapi import build_document

OPERATIONS = all_operations()
DOCUMENT = build_document(OPERATIONS, "0.1.0")
METHODS = ("get", "post", "put", "patch", "delete")
PRIVATE = [
    (path, method)
    for path, entries in DOCUMENT["paths"].items()
    for method in METHODS
    if method in entries and {} not in entries[method]["security"]
]


def test_routes_and_document_are_the_same_list() -> None:
    served = {
        (route.path, method)
        for route in routes(OPERATIONS, None)  # type: ignore[arg-type]  # no request is made
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    written = {(path, method.upper()) for path, entries in DOCUMENT["paths"].items() for method in entries}
    assert served == written


def test_operation_ids_are_unique_and_verb_resource() -> None:
    found = [entry["operationId"] for entries in DOCUMENT["paths"].values() for entry in entries.values()]
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name) for name in found)


def test_every_reference_resolves() -> None:
    names = set(DOCUMENT["components"]["schemas"])

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].rpartition("/")[2] in names, node
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(DOCUMENT["paths"])
    walk(DOCUMENT["components"])


async def test_the_documents_are_served(gateway: Any) -> None:
    served = (await gateway.http.get("/v1/openapi.json")).json()
    assert served["openapi"] == "3.1.0"
    assert served["paths"].keys() == DOCUMENT["paths"].keys()
    assert "webhooks" in served
    page = await gateway.http.get("/docs")
    assert "/v1/prices/{symbol}" in page.text
    assert "http" not in re.sub(r"https?://(localhost|127)", "", page.text.split("<body>")[0])
    front = await gateway.http.get("/")
    assert "CryptoPulse" in front.text
    for asset in ("/assets/style.css", "/assets/front.js", "/problems/no-price"):
        assert (await gateway.http.get(asset)).status_code == 200


def filled(path: str) -> str:
    return re.sub(
        r"\{(\w+)\}", lambda found: "1" if found[1] in {"portfolio_id", "transaction_id"} else "x1", path
    )


async def test_private_operations_refuse_strangers_and_narrow_credentials(gateway: Any) -> None:
    wrong = []
    narrow = gateway.token(scopes=frozenset({"nothing"}))
    for path, method in PRIVATE:
        anonymous = await gateway.http.request(method.upper(), filled(path))
        refused = await gateway.http.request(method.upper(), filled(path), headers=narrow)
        takes_keys = {"apiKey": []} in DOCUMENT["paths"][path][method]["security"]
        if anonymous.status_code != 401 or (takes_keys and refused.status_code != 403):
            wrong.append((method, path, anonymous.status_code, refused.status_code))
    assert not wrong
    assert not gateway.services.calls
    assert len(PRIVATE) > 60


async def test_each_private_call_carries_its_own_caller_whatever_headers_say(gateway: Any) -> None:
    """What another user owns is refused by its owner service; the gateway's part is to say truthfully who asks."""
    wrong = []
    for path, method in PRIVATE:
        if not path.startswith("/v1/") or "{" not in path:
            continue
        gateway.services.calls.clear()
        body: dict[str, Any] = {} if method in {"get", "delete"} else {"json": {}}
        answers = []
        for user in ("ada", "bob"):
            spoofed = {
                **gateway.token(user, tier="enterprise"),
                "X-User-Id": "ada",
                "X-HTTP-Method-Override": "GET",
            }
            answers.append(await gateway.http.request(method.upper(), filled(path), headers=spoofed, **body))
        callers = [call["identity"].user_id for call in gateway.services.calls]
        statuses = {answer.status_code for answer in answers}
        if callers not in (["ada", "bob"], []) or (not callers and not statuses <= {404, 415, 422}):
            wrong.append((method, path, callers, statuses))
    assert not wrong


async def test_the_stream_is_described_as_it_speaks(gateway: Any, listen: Any) -> None:
    document = (await gateway.http.get("/v1/asyncapi.json")).json()
    assert document["asyncapi"] == "3.0.0"
    messages = document["components"]["messages"]
    gateway.price("BTC-USD", "1")
    async with gateway.ws() as ws:
        await ws.send('{"op":"subscribe","id":1,"channels":[{"ch":"ticker","symbols":["BTC"]}]}')
        await ws.send('{"op":"ping"}')
        await ws.send("nonsense")
        gateway.hub.heartbeat()
        heard = [await listen(ws) for _ in range(5)]
    for message in heard:
        schema = messages[message["type"]]["payload"]
        assert set(schema["required"]) <= message.keys(), message
    for row in messages.values():
        for example in row.get("examples", ()):
            assert set(row["payload"]["required"]) <= example["payload"].keys(), row["name"]
