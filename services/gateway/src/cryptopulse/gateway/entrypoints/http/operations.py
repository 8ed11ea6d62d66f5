"""One public endpoint as a value, and the gate that every call passes: who calls, may he, is he within his limits."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.common.errors import Conflict, Forbidden, Invalid, StoreUnavailable, Unauthenticated
from cryptopulse.common.web.problems import problem_response
from cryptopulse.gateway.application.limiting import Counted
from cryptopulse.gateway.application.ports import StoredAnswer
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.scopes import permits

BODY_BYTES: Final = 64 * 1024
IMPORT_BYTES: Final = 2 * 1024 * 1024
IDEMPOTENCY_MAX: Final = 255
MARKET_CACHE: Final = "public, max-age=1, stale-while-revalidate=5"
CACHED_TAGS: Final = frozenset({"candles", "indicators", "symbols", "coins", "market"})

Auth = Literal["optional", "scope", "login"]
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed the gate."""

    request: Request
    identity: Identity
    address: str
    body: bytes
    counted: Counted | None

    @property
    def params(self) -> dict[str, str]:
        """The path's placeholders."""
        return self.request.path_params

    @property
    def query(self) -> str:
        """The raw query string."""
        return self.request.url.query

    @property
    def user_id(self) -> str:
        """The caller's user. Raises `Unauthenticated` for a caller without one."""
        if self.identity.user_id is None:
            raise Unauthenticated("log in, or send an API key")
        return self.identity.user_id

    def header(self, name: str) -> str | None:
        """A request header."""
        return self.request.headers.get(name)

    def model(self, kind: type[ModelT]) -> ModelT:
        """The body as a model. Malformed JSON is 400, a wrong field 422 with its pointer."""
        try:
            return kind.model_validate_json(self.body)
        except ValidationError as error:
            raise _refused(error, "body") from error

    def query_model(self, kind: type[ModelT]) -> ModelT:
        """The query as a model; of a repeated parameter the last one counts."""
        try:
            return kind.model_validate(dict(parse_qsl(self.query, keep_blank_values=True)))
        except ValidationError as error:
            raise _refused(error, "query") from error


def _refused(error: ValidationError, place: str) -> RequestValidationError:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        if fault["type"] == "json_invalid":
            position = str(fault.get("ctx", {}).get("error", ""))
            return RequestValidationError(
                [{"type": "json_invalid", "loc": ("body", position.rpartition(" ")[2]), "msg": fault["msg"],
                  "ctx": {"error": position}}]
            )  # fmt: skip
        faults.append({**fault, "loc": (place, *fault["loc"])})
    return RequestValidationError(faults)


Handler = Callable[[UseCases, Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint of the public API: its spec with the public path, and who answers it.

    `auth`: `optional` (a credential is checked when given), `scope` (the spec's), `login` (a user's own session, no key).
    `aliases` are the seeds' paths for the same thing. `limit` False leaves a call uncounted.
    """

    spec: RouteSpec
    handler: Handler
    auth: Auth = "optional"
    aliases: tuple[str, ...] = ()
    limit_bucket: str = ""
    is_limited: bool = True
    is_documented: bool = True
    is_secret: bool = False
    """The answer holds what is shown once: of a call with an `Idempotency-Key` only that it was done is kept."""
    examples: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_cacheable(self) -> bool:
        """True for public market data: the same for everybody, good for a second."""
        return (
            self.spec.method == "GET"
            and self.auth == "optional"
            and not CACHED_TAGS.isdisjoint(self.spec.tags)
        )

    @property
    def bucket(self) -> str:
        """The rate-limit bucket."""
        return self.limit_bucket or self.spec.bucket


class Gate:
    """Takes a request through authentication, scope, limits and body checks to the handler of its operation."""

    def __init__(self, use_cases: UseCases, *, trusted_hops: int = 0) -> None:
        self._use = use_cases
        self._hops = trusted_hops

    async def run(self, operation: Operation, request: Request) -> Response:
        """Answer one request. Refusals are raised as errors of the house."""
        address = client_address(request.scope, self._hops)
        identity = await self._identity(request, address)
        _permit(operation, identity)
        counted: Counted | None = None
        if operation.is_limited:
            counted = await self._use.limits.count(
                identity, address, operation.bucket, max(operation.spec.cost, 0.01)
            )
        body = await _read(request, operation.spec)
        call = Call(request, identity, address, body, counted)
        key = request.headers.get("idempotency-key") if operation.spec.method == "POST" else None
        if key is not None and identity.user_id is not None:
            response = await self._once(operation, call, key)
        else:
            response = await operation.handler(self._use, call)
        if operation.is_cacheable and response.status_code == 200 and identity.user_id is None:
            response = _cacheable(response, request.headers.get("if-none-match", ""))
        _finish(response, identity, counted)
        return response

    async def _identity(self, request: Request, address: str) -> Identity:
        credential = credential_of(request.headers.get("authorization"), request.headers.get("x-api-key"))
        if credential is None:
            return ANONYMOUS
        return (await self._use.authenticator.authenticate(credential, address)).identity

    async def _once(self, operation: Operation, call: Call, key: str) -> Response:
        """Run a call once per (caller, key): the same again gets the stored answer, another body 422, a running one 409."""
        key = key.strip().strip('"')
        if not key or len(key) > IDEMPOTENCY_MAX or not key.isprintable():
            raise Invalid(f"Idempotency-Key holds 1 to {IDEMPOTENCY_MAX} printable characters")
        principal = f"user:{call.identity.user_id}"
        text = f"{operation.spec.method} {call.request.url.path}?{call.query}\n".encode()
        digest = hashlib.sha256(text + call.body).digest()
        store = self._use.idempotency
        held = await store.claim(principal, key, digest)
        if held is not None:
            return _replayed(held, digest)
        try:
            response = await operation.handler(self._use, call)
        except BaseException:
            await store.release(principal, key)
            raise
        body = bytes(response.body)
        if response.status_code >= 500:
            await store.release(principal, key)
        else:
            kept = {
                name: response.headers[name]
                for name in ("content-type", "etag", "location")
                if name in response.headers
            }
            answer = StoredAnswer(digest, response.status_code, kept, body)
            done = operation.is_secret and response.status_code < 400
            await store.finish(principal, key, _done_once(call.request, digest) if done else answer)
        return response


def _done_once(request: Request, digest: bytes) -> StoredAnswer:
    """What is kept of a call whose answer was a secret."""
    refusal = problem_response(
        409,
        request=request,
        code="answer-not-kept",
        detail="this was done by the first call; its answer held a secret, which is shown once and not kept",
    )
    return StoredAnswer(digest, 409, {"content-type": refusal.headers["content-type"]}, bytes(refusal.body))


def _replayed(held: StoredAnswer, digest: bytes) -> Response:
    if held.request_hash != digest:
        raise Invalid("this Idempotency-Key was used with another request", code="idempotency-mismatch")
    if held.status is None:
        raise Conflict(
            "the first call with this Idempotency-Key is still running", code="idempotency-in-flight"
        )
    return Response(held.body, held.status, {**held.headers, "Idempotency-Replayed": "true"})


def _permit(operation: Operation, identity: Identity) -> None:
    if operation.auth == "optional":
        return
    if identity.user_id is None:
        raise Unauthenticated("log in and send `Authorization: Bearer <token>`, or send `X-API-Key`")
    if operation.auth == "login" and identity.kind != "user":
        raise Forbidden("this needs a login, not an API key", code="login-required")
    scope = operation.spec.scope
    if scope is not None and not permits(identity, scope):
        raise Forbidden(f"this credential does not hold the scope {scope}", code="missing-scope")


async def _read(request: Request, spec: RouteSpec) -> bytes:
    """The body, bounded while it streams in; its type must be one that the endpoint takes."""
    if spec.method in {"GET", "DELETE"} and "content-length" not in request.headers:
        return b""
    limit = spec.body_limit or (IMPORT_BYTES if spec.bucket == "imports" else BODY_BYTES)
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise HTTPException(413, f"the body holds at most {limit} bytes")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"the body holds at most {limit} bytes")
        chunks.append(chunk)
    body = b"".join(chunks)
    if body:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise HTTPException(415, "send the body without Content-Encoding")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if spec.method not in {"GET", "DELETE"} and kind not in spec.media_types:
            raise HTTPException(415, f"send the body as {' or '.join(spec.media_types)}")
    return body


def _cacheable(response: Response, known: str) -> Response:
    """Let caches keep a public market answer for a second; who has the same one already gets 304."""
    headers = response.headers
    headers.setdefault("Cache-Control", MARKET_CACHE)
    if "etag" not in headers:
        headers["ETag"] = f'"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    if headers["etag"] not in [tag.strip() for tag in known.split(",")]:
        return response
    return Response(status_code=304, headers={name: headers[name] for name in ("etag", "cache-control")})


def _finish(response: Response, identity: Identity, counted: Counted | None) -> None:
    headers = response.headers
    if counted is not None:
        for name, value in limit_headers(counted).items():
            headers[name] = value
    if identity.user_id is not None or "cache-control" not in headers:
        headers["Cache-Control"] = "no-store"


def limit_headers(counted: Counted) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`; the latter is left out while the store is away."""
    headers = {"RateLimit-Policy": counted.policy.header}
    if counted.verdict is not None:
        wait = -(-counted.verdict.reset_us // 1_000_000)
        headers["RateLimit"] = f'"{counted.policy.name}";r={counted.verdict.remaining};t={wait}'
    return headers


def credential_of(authorization: str | None, api_key: str | None) -> str | None:
    """The credential of a request: a bearer token or an API key, from headers only."""
    if authorization:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("say `Authorization: Bearer <token>`", code="invalid-token")
        return token.strip()
    return api_key.strip() if api_key else None


def client_address(scope: Mapping[str, Any], trusted_hops: int) -> str:
    """The caller's address: of the socket, or the one that the outermost trusted proxy saw."""
    client = scope.get("client")
    address = str(client[0]) if client else "unknown"
    if trusted_hops <= 0:
        return address
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            hops = [part.strip() for part in value.decode("latin-1").split(",")]
            seen: str = hops[-trusted_hops] if len(hops) >= trusted_hops else hops[0]
            return seen
    return address


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def empty_response() -> Response:
    """204."""
    return Response(status_code=204)


def store_away() -> StoreUnavailable:
    """What is raised when nothing that was asked could be read."""
    return StoreUnavailable("prices cannot be read at the moment")
