"""The door: credentials, scopes, limits, headers, CORS, bodies, problems."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from prometheus_client import REGISTRY

SECRET = "a-secret-of-at-least-thirty-two-bytes"


async def test_problems_everywhere_with_stable_codes(gateway: Any) -> None:
    missing = await gateway.http.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    wrong = await gateway.http.post("/prices/BTC")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
    assert "GET" in wrong.headers["allow"]
    seed = await gateway.http.get("/api/portfolios/")
    assert seed.status_code == 401
    assert seed.json()["error"]


async def test_request_ids_are_kept_or_replaced(gateway: Any) -> None:
    kept = await gateway.http.get("/v1/time", headers={"X-Request-Id": "abcdefgh-123"})
    assert kept.headers["x-request-id"] == "abcdefgh-123"
    bad = await gateway.http.get("/v1/time", headers={"X-Request-Id": "short"})
    assert bad.headers["x-request-id"] != "short"


async def test_security_headers_on_every_answer(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    for path in ("/prices/BTC", "/v1/prices/BTC?source=x", "/nowhere", "/docs", "/", "/health/"):
        headers = (await gateway.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "max-age" in headers["strict-transport-security"], path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "server" not in headers, path


async def test_only_listed_origins_may_read(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    good = await gateway.http.get("/prices/BTC", headers={"Origin": "https://app.example.org"})
    assert good.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "RateLimit" in good.headers["access-control-expose-headers"]
    for origin in ("https://evil.example", "null"):
        bad = await gateway.http.get("/prices/BTC", headers={"Origin": origin})
        assert "access-control-allow-origin" not in bad.headers
    ask = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "POST"}
    preflight = await gateway.http.options("/v1/alerts", headers=ask)
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


async def test_a_token_minted_elsewhere_with_sub_and_exp_is_valid(gateway: Any) -> None:
    gateway.services.says("alerts", "GET", "/alerts", {"data": [], "next_cursor": None})
    token = jwt.encode({"sub": "someone", "exp": gateway.clock.now_ms() // 1000 + 60}, SECRET, "HS256")
    answer = await gateway.http.get("/alerts", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    call = gateway.services.calls[-1]
    assert (call["service"], call["path"], call["identity"].user_id) == ("alerts", "/alerts", "someone")


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "x"},
        {"sub": "x", "exp": 1},
        {"exp": 9e9},
        {"sub": 7, "exp": 9e9},
        {"sub": "x", "exp": 9e9, "iss": "https://evil.example"},
        {"sub": "x", "exp": 9e9, "aud": "another"},
        {"sub": "x", "exp": 9e9, "iat": 9e9},
    ],
)
async def test_bad_tokens_are_refused_also_on_public_reads(gateway: Any, claims: dict[str, Any]) -> None:
    gateway.price("BTC-USD", "1")
    bad = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    for path in ("/prices/BTC", "/v1/alerts"):
        answer = await gateway.http.get(path, headers=bad)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_unsigned_and_foreign_tokens_are_refused(gateway: Any) -> None:
    none = jwt.encode({"sub": "x", "exp": 9e9}, "", "none")
    foreign = jwt.encode({"sub": "x", "exp": 9e9}, "another-secret-of-thirty-two-bytes!!", "HS256")
    other = jwt.encode({"sub": "x", "exp": 9e9}, SECRET, "HS256", headers={"kid": "../../etc/passwd"})
    for token in (none, foreign, other, "x", "a.b.c", "cp_live_nonsense"):
        answer = await gateway.http.get("/v1/alerts", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, token


async def test_scopes_decide(gateway: Any) -> None:
    gateway.services.says("alerts", "GET", "/alerts", {"data": [], "next_cursor": None})
    narrow = gateway.token(scopes=frozenset({"portfolio"}))
    refused = await gateway.http.get("/v1/alerts", headers=narrow)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")
    wide = gateway.token(scopes=frozenset({"alerts"}))
    assert (await gateway.http.get("/v1/alerts", headers=wide)).status_code == 200


async def test_limits_are_counted_and_told(gateway: Any) -> None:
    gateway.limits._table["anonymous", "reads"] = type(gateway.limits.of("anonymous", "reads"))(
        "anonymous-reads", 60, 60, 3
    )
    gateway.price("BTC-USD", "1")
    answers = [await gateway.http.get("/prices/BTC") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit"].startswith('"anonymous-reads";r=2;t=')
    assert answers[0].headers["ratelimit-policy"] == '"anonymous-reads";q=60;w=60'
    refused = answers[-1]
    assert refused.json()["code"] == "quota-exceeded"
    assert int(refused.headers["retry-after"]) >= 1
    gateway.clock.advance(3)
    assert (await gateway.http.get("/prices/BTC")).status_code == 200


async def test_without_the_store_reads_pass_and_writes_do_not(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    gateway.limiter.is_away = True
    read = await gateway.http.get("/prices/BTC")
    assert read.status_code == 200
    assert "ratelimit" not in read.headers
    write = await gateway.http.post("/v1/auth/login", json={"email": "a@b.cd", "password": "x"})
    assert write.status_code == 503
    assert "retry-after" in write.headers


async def test_bodies_are_bounded_typed_and_parsed(gateway: Any) -> None:
    post = gateway.http.post
    big = await post("/v1/auth/login", content=b"x" * 70_000, headers={"content-type": "application/json"})
    assert big.status_code == 413

    async def chunks() -> Any:
        for _ in range(80):
            yield b"x" * 1_000

    streamed = await post("/v1/auth/login", content=chunks(), headers={"content-type": "application/json"})
    assert streamed.status_code == 413
    form = await post("/v1/auth/login", content=b"a=b", headers={"content-type": "text/plain"})
    assert form.status_code == 415
    json_type = {"content-type": "application/json"}
    zipped = await post("/v1/auth/login", content=b"x", headers={**json_type, "content-encoding": "gzip"})
    assert zipped.status_code == 415
    broken = await post("/v1/auth/login", content=b'{"email":', headers=json_type)
    assert (broken.status_code, broken.json()["code"]) == (400, "malformed-json")
    deep = await post("/v1/auth/login", content=b"[" * 30_000, headers=json_type)
    assert deep.status_code in {400, 422}
    extra = await post("/v1/auth/register", json={"email": "a@b.cd", "password": "x" * 9, "tier": "pro"})
    assert extra.status_code == 422
    assert extra.json()["errors"][0]["pointer"] == "/tier"


async def test_a_service_that_is_away_is_a_503_of_its_routes_only(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    away = await gateway.http.get("/v1/alerts", headers=gateway.token())
    assert (away.status_code, away.json()["code"]) == (503, "upstream-unavailable")
    assert int(away.headers["retry-after"]) >= 1
    assert (await gateway.http.get("/prices/BTC")).status_code == 200


async def test_the_same_idempotency_key_runs_once(gateway: Any) -> None:
    gateway.services.says("alerts", "POST", "/alerts", {"id": "al_1"}, 201)
    headers = {**gateway.token(), "Idempotency-Key": '"k-1"'}
    body = {"symbol": "BTC", "condition": "above", "price": "70000"}
    first = await gateway.http.post("/v1/alerts", json=body, headers=headers)
    again = await gateway.http.post("/v1/alerts", json=body, headers=headers)
    assert first.status_code == again.status_code == 201
    assert again.json() == {"id": "al_1"}
    assert again.headers["idempotency-replayed"] == "true"
    assert len([call for call in gateway.services.calls if call["method"] == "POST"]) == 1
    other = await gateway.http.post("/v1/alerts", json={**body, "price": "1"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")


async def test_a_secret_is_shown_once_and_not_kept_with_an_idempotency_key(gateway: Any) -> None:
    user = await gateway.use.accounts.register("ada@example.org", "a long enough password")
    headers = {**gateway.token(user.id), "Idempotency-Key": "k-1"}
    made = await gateway.http.post(
        "/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=headers
    )
    assert made.status_code == 201, made.text
    (kept,) = gateway.idempotency.held.values()
    assert made.json()["key"].encode() not in kept.body
    again = await gateway.http.post(
        "/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=headers
    )
    assert (again.status_code, again.json()["code"]) == (409, "answer-not-kept")
    assert again.headers["content-type"] == "application/problem+json"
    assert len(gateway.keys.records) == 1


async def test_a_cache_keeps_the_answers_to_different_origins_apart(gateway: Any) -> None:
    gateway.price("BTC-USD", "1")
    for path in (
        "/v1/prices/BTC",
        "/v1/prices/BTC?source=consolidated",
        "/v1/status",
        "/udf/config",
        "/nowhere",
    ):
        for headers in ({}, {"Origin": "https://app.example.org"}, {"Origin": "https://evil.example"}):
            answer = await gateway.http.get(path, headers=headers)
            assert "Origin" in answer.headers["vary"], path


async def test_problems_of_services_carry_our_request_id_and_path(gateway: Any) -> None:
    problem = {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "no", "instance": "/alerts/al_9",
               "code": "not-found", "request_id": "inner", "errors": []}  # fmt: skip
    gateway.services.says("alerts", "GET", "/alerts/al_9", problem, 404)
    answer = await gateway.http.get("/v1/alerts/al_9", headers=gateway.token())
    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.json()["instance"] == "/v1/alerts/al_9"


async def test_health_sums_up(gateway: Any) -> None:
    empty = (await gateway.http.get("/health/")).json()
    assert empty["status"] == "degraded"
    gateway.price("BTC-USD", "1")
    full = await gateway.http.get("/health/")
    assert (full.status_code, full.json()["status"]) == (200, "ok")
    gateway.use.peers["alerts"] = {"ok": False, "detail": "gone"}
    assert (await gateway.http.get("/health")).json()["status"] == "degraded"


async def test_metrics_know_a_request_by_its_template(gateway: Any) -> None:
    def count(route: str) -> float:
        labels = {"service": "gateway", "method": "GET", "route": route, "status": "401"}
        return REGISTRY.get_sample_value("cryptopulse_http_requests_total", labels) or 0.0

    before = count("/v1/alerts/{alert_id}"), count("unmatched")
    assert (await gateway.http.get("/v1/alerts/one")).status_code == 401
    assert (count("/v1/alerts/{alert_id}"), count("unmatched")) == (before[0] + 1, before[1])
