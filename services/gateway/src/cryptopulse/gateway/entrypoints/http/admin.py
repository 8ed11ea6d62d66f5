"""`/v1/admin`: what operators ask. On the internal port alone (ADR 0006), behind a token that holds the scope `admin` by name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cryptopulse.common.contracts.http.ingest import FeedControlled
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Conflict
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.accounts import User
from cryptopulse.gateway.domain.limits import SOCKETS
from cryptopulse.gateway.domain.scopes import ADMIN
from cryptopulse.gateway.entrypoints.http.forward import respond
from cryptopulse.gateway.entrypoints.http.openapi import build_document
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, Operation, json_response
from cryptopulse.gateway.entrypoints.http.system import FeedView

log = get_logger(__name__)
DOCUMENT: Final = "/v1/admin/openapi.json"


class UserQuery(BaseModel):
    """Paging."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=512)] = None


class UserView(BaseModel):
    """A user without his secrets."""

    id: str
    email: str
    tier: str
    is_admin: bool
    verified_at: datetime | None
    failed_logins: int
    locked_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None


class UserList(BaseModel):
    """Users, newest first."""

    data: list[UserView]
    next_cursor: str | None


class ProviderList(BaseModel):
    """The venues' feeds."""

    data: list[FeedView]


class LimitView(BaseModel):
    """`quota` cost units per `window_seconds`, of which `burst` may come at once."""

    tier: str
    bucket: str
    quota: int
    window_seconds: int
    burst: int


class SocketLimitView(BaseModel):
    """Sockets of one principal, and subscriptions of each."""

    tier: str
    connections: int
    subscriptions: int


class LimitList(BaseModel):
    """The rate limits that are in force here, and those of sockets."""

    data: list[LimitView]
    sockets: list[SocketLimitView]


class DeadLetterQueue(BaseModel):
    """A queue of messages that a service could not handle."""

    queue: str
    messages: int


class DeadLetterList(BaseModel):
    """The dead-letter queues that exist. To look at and send again: `python -m cryptopulse.<service> dead-letters`."""

    data: list[DeadLetterQueue]


def _view(user: User) -> UserView:
    return UserView(**{name: getattr(user, name) for name in UserView.model_fields})


async def list_users(use: UseCases, call: Call) -> Response:
    """Who has an account."""
    query = call.query_model(UserQuery)
    cursors, after = Cursor(use.cursor_secret), None
    if query.cursor is not None:
        at, ident = cursors.decode(query.cursor, "users")
        after = (datetime.fromisoformat(str(at)), str(ident))
    rows = await use.accounts.page(query.limit + 1, after)
    following = None
    if len(rows) > query.limit:
        rows = rows[: query.limit]
        following = cursors.encode((rows[-1].created_at.isoformat(), rows[-1].id), "users")
    body = UserList(data=[_view(row) for row in rows], next_cursor=following)
    return Response(body.model_dump_json().encode(), media_type="application/json")


async def disable_user(use: UseCases, call: Call) -> Response:
    """Keep a user out."""
    user_id = call.params["user_id"]
    if user_id == call.user_id:
        raise Conflict("this is your own account: another administrator must do this", code="own-account")
    user = await use.administration.disable(user_id, by=call.user_id)
    return Response(_view(user).model_dump_json().encode(), media_type="application/json")


async def enable_user(use: UseCases, call: Call) -> Response:
    """Let him in again."""
    user = await use.administration.enable(call.params["user_id"], by=call.user_id)
    return Response(_view(user).model_dump_json().encode(), media_type="application/json")


async def list_providers(use: UseCases, _call: Call) -> Response:
    """How the feeds are."""
    return json_response({"data": use.feeds.public()})


def _control(verb: str) -> Handler:
    async def control(use: UseCases, call: Call) -> Response:
        provider = call.params["provider"]
        answer = await use.services.call(
            "ingestor",
            "POST",
            f"/feeds/{quote(provider, safe='')}/{verb}",
            identity=Identity(None, kind="service"),
        )
        log.info(
            "a feed was controlled", verb=verb, provider=provider[:40], by=call.user_id, status=answer.status
        )
        return respond(answer, call)

    return control


async def list_limits(use: UseCases, _call: Call) -> Response:
    """The limits in force."""
    limits = [
        {"tier": tier, "bucket": bucket, "quota": policy.quota, "window_seconds": policy.window_seconds, "burst": policy.burst}
        for (tier, bucket), policy in use.limits.table()
    ]  # fmt: skip
    sockets = [
        {"tier": tier, "connections": limit.connections, "subscriptions": limit.subscriptions}
        for tier, limit in SOCKETS.items()
    ]
    return json_response({"data": limits, "sockets": sockets})


async def list_dead_letters(use: UseCases, _call: Call) -> Response:
    """What nobody could handle."""
    found = await use.dead_letters()
    return json_response({"data": [{"queue": name, "messages": count} for name, count in found.items()]})


def _operation(
    method: str,
    path: str,
    name: str,
    summary: str,
    response: type,
    handler: Handler,
    query: type | None = None,
    errors: tuple[int, ...] = (400, 401, 403, 404, 422, 503),
) -> Operation:
    spec = RouteSpec(
        method,  # type: ignore[arg-type]  # literals below
        f"/v1/admin{path}", name, summary, ADMIN, 1, None, response, query=query, tags=("admin",),
        errors=errors,
    )  # fmt: skip
    return Operation(spec, handler, auth="login", is_limited=False)


OPERATIONS: Final = (
    _operation("GET", "/users", "list_users", "Who has an account", UserList, list_users, UserQuery),
    _operation("POST", "/users/{user_id}/disable", "disable_user", "Keep a user out: sessions end, sockets close, keys rest",
               UserView, disable_user, errors=(400, 401, 403, 404, 409, 422, 503)),
    _operation("POST", "/users/{user_id}/enable", "enable_user", "Let a disabled user log in and use his keys again",
               UserView, enable_user),
    _operation("GET", "/providers", "list_providers", "State of the feeds", ProviderList, list_providers),
    _operation("POST", "/providers/{provider}/pause", "pause_provider", "Close a venue's sockets until it is resumed",
               FeedControlled, _control("pause")),
    _operation("POST", "/providers/{provider}/resume", "resume_provider", "Open a paused venue's sockets; what was missed is repaired",
               FeedControlled, _control("resume")),
    _operation("GET", "/limits", "list_limits", "The rate limits in force", LimitList, list_limits),
    _operation("GET", "/dlq", "list_dead_letters", "Queues of what nobody could handle", DeadLetterList, list_dead_letters),
)  # fmt: skip


def admin_document(version: str) -> dict[str, Any]:
    """The OpenAPI document of this part."""
    return build_document(OPERATIONS, version, title="CryptoPulse, for operators")


def admin_routes(routes: Iterable[BaseRoute], version: str) -> list[BaseRoute]:
    """The routes and their document."""
    document = orjson.dumps(admin_document(version))

    async def show(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    return [*routes, Route(DOCUMENT, show)]
