"""What hostile callers try at the public door, from the OWASP API list: all of it is refused, plainly."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import websockets

from cryptopulse.gateway.domain import seed


@pytest.mark.parametrize(
    "path", ["/metrics", "/livez", "/readyz", "/version", "/v1/admin/users", "/admin/users"]
)
async def test_what_is_internal_is_not_at_the_public_door(gateway: Any, path: str) -> None:
    answer = await gateway.http.get(path, headers=gateway.token())
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


async def test_a_method_is_what_the_request_line_says(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        answer = await gateway.http.get("/v1/prices/BTC", headers={name: "DELETE"})
        assert answer.status_code == 200
    for method in ("TRACE", "TRACK", "CONNECT"):
        answer = await gateway.http.request(method, "/v1/prices/BTC")
        assert answer.status_code in {400, 405}
        assert "BTC" not in answer.headers.get("content-type", "")


async def test_a_foreign_host_is_shown_as_text_only(gateway: Any) -> None:
    page = await gateway.http.get("/", headers={"Host": 'evil.example"><script>x</script>'})
    assert "<script>x" not in page.text
    problem = await gateway.http.get("/nowhere", headers={"Host": "evil.example"})
    assert "evil.example" not in problem.text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
async def test_a_foreign_page_opens_no_socket_in_its_visitors_name(gateway: Any, origin: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with gateway.ws(additional_headers={"Origin": origin, **gateway.token()}):
            pass
    assert refused.value.response.status_code == 403


async def test_credentials_in_an_address_are_refused(gateway: Any) -> None:
    token = gateway.token()["Authorization"].removeprefix("Bearer ")
    for name in ("access_token", "token", "api_key"):
        answer = await gateway.http.get("/v1/portfolios", params={name: token})
        assert answer.status_code == 401


async def test_a_line_break_in_a_request_id_reaches_no_log(gateway: Any) -> None:
    for bad in ("abcdefgh%0d%0aforged", "a" * 65, "abcdefgh ijkl", "<script>alert</script>"):
        answer = await gateway.http.get("/v1/time", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"] != bad


@pytest.mark.parametrize(
    "member", [f'"ts":{10**30}', f'"id":{-(10**30)}', f'"id":"{"x" * 37}"'], ids=["ts", "id", "long id"]
)
async def test_what_cannot_be_written_back_is_refused_and_the_socket_lives(
    gateway: Any, listen: Any, member: str
) -> None:
    async with gateway.ws() as ws:
        await ws.send(f'{{"op":"ping",{member}}}')
        assert (await listen(ws, "error"))["code"]
        await ws.send('{"op":"ping","ts":1}')
        assert (await listen(ws, "pong"))["ts"] == 1


async def test_a_seeds_ping_that_is_too_deep_is_answered_without_it(gateway: Any) -> None:
    async with gateway.ws("/ws/crypto/") as ws:
        await ws.send('{"type":"ping","timestamp":' + "[" * 400 + "]" * 400 + "}")
        while (answer := orjson.loads(await ws.recv()))["type"] != "pong":
            pass
        assert answer["timestamp"] is None


def test_a_number_beyond_all_bounds_is_bad_json_on_the_seeds_paths() -> None:
    with pytest.raises(seed.SeedRefusedError):
        seed.read_body(b'{"amount": 1e99999999999999999999}')
