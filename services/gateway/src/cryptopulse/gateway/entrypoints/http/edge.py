"""The outer edge of the public API in pure ASGI: CORS, security headers, and the hot read of a price without any framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import orjson

from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.common.web.asgi import App, Message, Receive, Scope, Send
from cryptopulse.gateway.application.limiting import Counted
from cryptopulse.gateway.application.market import Quoted
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import price_body
from cryptopulse.gateway.entrypoints.http.operations import client_address, credential_of, limit_headers
from cryptopulse.gateway.entrypoints.http.prices import CACHE_CONTROL, GET_PRICE, VARY

SECURITY: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"x-frame-options", b"DENY"),
)
API_CSP: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
EXPOSED: Final = b"RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, ETag, Idempotency-Replayed"
METHODS: Final = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
HEADERS: Final = (
    b"Authorization, Content-Type, X-API-Key, X-Request-Id, Idempotency-Key, If-Match, If-None-Match"
)
_PREFIXES: Final = ("/v1/prices/", "/prices/")


class Origins:
    """The origins that browsers may call from. `*` allows every origin, without credentials."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = {item.strip().rstrip("/") for item in allowed if item.strip()}
        self.is_open = "*" in names
        self.differ = bool(names - {"*"})
        """Answers tell origins apart: a cache must, too."""
        self._names = frozenset(name.encode() for name in names - {"*"})

    def allows(self, origin: bytes) -> bool:
        """True when this origin may read answers; `null` never may."""
        return origin != b"null" and (self.is_open or origin in self._names)

    def headers(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """The CORS headers of an answer to an allowed origin."""
        if origin in self._names:
            found = [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]
        else:
            found = [(b"access-control-allow-origin", b"*")]
        return [*found, (b"access-control-expose-headers", EXPOSED)]


@dataclass(frozen=True, slots=True)
class _Route:
    """What metrics call the hot read."""

    path: str


_HOT: Final = {prefix: _Route(f"{prefix}{{symbol}}") for prefix in _PREFIXES}


class Edge:
    """Wraps the public app. Every answer leaves with the security headers; the seed's problems get their `error`."""

    def __init__(self, app: App, use_cases: UseCases, origins: Origins, *, trusted_hops: int = 0) -> None:
        self._app = app
        self._use = use_cases
        self._origins = origins
        self._hops = trusted_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        origin = authorization = key = match = None
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"origin":
                origin = value
            elif name == b"x-api-key":
                key = value
            elif name == b"if-none-match":
                match = value
        added = [*SECURITY, API_CSP]
        if origin is not None and self._origins.allows(origin):
            added += self._origins.headers(origin)
            if scope["method"] == "OPTIONS":
                await _preflight(send, added)
                return
        if scope["method"] == "GET" and not scope["query_string"]:
            hot = self._hot(scope, authorization, key)
            if hot is not None:
                await self._answer(send, hot, match, added)
                return
        _join_encoded_slashes(scope)
        is_seed = scope["path"].startswith("/api/")
        await self._app(scope, receive, _Dressed(send, added, is_seed=is_seed, varies=self._origins.differ))

    def _hot(
        self, scope: Scope, authorization: bytes | None, key: bytes | None
    ) -> tuple[Quoted, Counted, Identity] | None:
        """The price, when everything that is needed to answer is in memory; None sends the request the long way."""
        path: str = scope["path"]
        for prefix in _PREFIXES:
            if path.startswith(prefix):
                break
        else:
            return None
        name = path[len(prefix) :]
        if not name or "/" in name:
            return None
        address = client_address(scope, self._hops)
        try:
            credential = credential_of(
                authorization.decode("latin-1") if authorization else None,
                key.decode("latin-1") if key else None,
            )
            identity = ANONYMOUS
            if credential is not None:
                caller = self._use.authenticator.remembered(credential, address)
                if caller is None:
                    return None
                identity = caller.identity
            quoted = self._use.market.ready(self._use.market.resolve(name).symbol)
            if quoted is None:
                return None
            counted = self._use.limits.local(identity, address, GET_PRICE.bucket, GET_PRICE.spec.cost)
        except CryptoPulseError:
            # The long way says the same again, as a proper problem.
            return None
        if counted is None:
            return None
        scope["route"] = _HOT[prefix]
        return quoted, counted, identity

    async def _answer(
        self,
        send: Send,
        hot: tuple[Quoted, Counted, Identity],
        match: bytes | None,
        added: list[tuple[bytes, bytes]],
    ) -> None:
        quoted, counted, identity = hot
        now = self._use.clock.now_us()
        tag = price_body.etag(quoted.update, now)
        cache = b"no-store" if identity.user_id is not None else CACHE_CONTROL.encode()
        headers = [(b"etag", tag), (b"cache-control", cache), (b"vary", VARY.encode()), *added]
        headers += [(name.lower().encode(), value.encode()) for name, value in limit_headers(counted).items()]
        if match == tag:
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        body = quoted.body(now)
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Dressed:
    """Adds headers to an answer on its way out, and `error` to problems on the second seed's paths."""

    def __init__(self, send: Send, added: list[tuple[bytes, bytes]], *, is_seed: bool, varies: bool) -> None:
        self._send = send
        self._added = added
        self._is_seed = is_seed
        self._varies = varies
        self._held: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            own = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in self._added if name not in own]
            if self._varies and b"vary" not in own:
                headers.append((b"vary", b"Origin"))
            message = {**message, "headers": headers}
            if self._is_seed and any(
                name.lower() == b"content-type" and value.startswith(b"application/problem+json")
                for name, value in headers
            ):
                self._held = message
                return
        elif self._held is not None:
            start, self._held = self._held, None
            body = with_error(message.get("body", b""))
            headers = [(n, v) for n, v in start["headers"] if n.lower() != b"content-length"]
            headers.append((b"content-length", b"%d" % len(body)))
            await self._send({**start, "headers": headers})
            message = {**message, "body": body}
        await self._send(message)


def with_error(body: bytes) -> bytes:
    """A problem with the member `error` that the second seed's front end shows."""
    problem: dict[str, Any] = orjson.loads(body)
    problem["error"] = problem.get("detail") or problem.get("title") or "error"
    return orjson.dumps(problem)


def _join_encoded_slashes(scope: Scope) -> None:
    """`BTC%2FUSDT` is one segment that means BTC-USDT; the server has decoded it to two."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2F" in raw or b"%2f" in raw:
        joined = raw.replace(b"%2F", b"-").replace(b"%2f", b"-")
        scope["path"] = unquote(joined.decode("latin-1"))


async def _preflight(send: Send, added: list[tuple[bytes, bytes]]) -> None:
    headers = [
        *added,
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", HEADERS),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def header_of(scope: Mapping[str, Any], name: bytes) -> str | None:
    """A request header as text."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
