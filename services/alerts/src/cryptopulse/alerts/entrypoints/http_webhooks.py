"""Webhook endpoints and their deliveries over the internal HTTP; bodies and answers are the public ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from cryptopulse.alerts.application import manage_webhooks
from cryptopulse.alerts.application.manage_webhooks import WebhookManager
from cryptopulse.alerts.application.ports import WebhookRepository
from cryptopulse.alerts.entrypoints.http import Caller, IfMatch, sort_key, user_of, version_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.alerts import (
    AttemptView,
    DeliveryDetail,
    DeliveryPage,
    DeliveryQuery,
    DeliveryView,
    PageQuery,
    Replayed,
    ReplayQuery,
    RotatedSecret,
    RotateSecret,
    WebhookCreate,
    WebhookCreated,
    WebhookPage,
    WebhookUpdate,
    WebhookView,
)
from cryptopulse.common.errors import Invalid
from cryptopulse.common.web.pagination import Cursor

SCOPE = "webhooks"


def webhook_routes(
    webhooks: WebhookManager, repository: WebhookRepository, cursors: Cursor, clock: Clock
) -> APIRouter:
    """The routes of endpoints and deliveries."""
    router = APIRouter(prefix="/webhooks")
    _endpoint_routes(router, webhooks, repository, cursors, clock)
    _action_routes(router, webhooks, repository, clock)
    _delivery_routes(router, repository, cursors)
    return router


def _endpoint_routes(
    router: APIRouter, webhooks: WebhookManager, repository: WebhookRepository, cursors: Cursor, clock: Clock
) -> None:
    @router.post("", status_code=201)
    async def create(body: WebhookCreate, identity: Caller, response: Response) -> WebhookCreated:
        made = await webhooks.create(user_of(identity, SCOPE), identity.tier, body)
        response.headers["Location"] = f"/webhooks/{made.id}"
        return made

    @router.get("")
    async def page(query: Annotated[PageQuery, Query()], identity: Caller) -> WebhookPage:
        user = user_of(identity, SCOPE)
        binding = ("webhooks", user)
        found = await repository.page(
            user, before=sort_key(query.cursor, cursors, binding), limit=query.limit + 1
        )
        rows = found[: query.limit]
        return WebhookPage(
            data=[manage_webhooks.view(row, clock.now_ms()) for row in rows],
            next_cursor=_next(found, query.limit, cursors, binding),
        )

    @router.get("/{webhook_id}")
    async def one(webhook_id: str, identity: Caller, response: Response) -> WebhookView:
        row = await repository.get(user_of(identity, SCOPE), webhook_id)
        response.headers["ETag"] = f'"{row["version"]}"'
        return manage_webhooks.view(row, clock.now_ms())

    @router.patch("/{webhook_id}")
    async def update(
        webhook_id: str, body: WebhookUpdate, identity: Caller, if_match: IfMatch = None
    ) -> WebhookView:
        return await webhooks.update(user_of(identity, SCOPE), webhook_id, body, version_of(if_match))

    @router.delete("/{webhook_id}", status_code=204)
    async def delete(webhook_id: str, identity: Caller, if_match: IfMatch = None) -> None:
        await repository.delete(user_of(identity, SCOPE), webhook_id, expected=version_of(if_match))


def _action_routes(
    router: APIRouter, webhooks: WebhookManager, repository: WebhookRepository, clock: Clock
) -> None:
    @router.post("/{webhook_id}/test", status_code=202)
    async def test(webhook_id: str, identity: Caller) -> DeliveryView:
        return delivery_view(await webhooks.test(user_of(identity, SCOPE), webhook_id))

    @router.post("/{webhook_id}/rotate-secret")
    async def rotate(webhook_id: str, identity: Caller, body: RotateSecret | None = None) -> RotatedSecret:
        given = body or RotateSecret()
        return await webhooks.rotate(user_of(identity, SCOPE), webhook_id, given.overlap_seconds)

    @router.post("/{webhook_id}/enable")
    async def enable(webhook_id: str, identity: Caller) -> WebhookView:
        return await webhooks.update(user_of(identity, SCOPE), webhook_id, WebhookUpdate(enabled=True), None)

    @router.post("/{webhook_id}/replay", status_code=202)
    async def replay_range(
        webhook_id: str, query: Annotated[ReplayQuery, Query()], identity: Caller
    ) -> Replayed:
        until = query.until or datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        if query.since.tzinfo is None or until.tzinfo is None:
            raise Invalid("since and until need a time zone, e.g. 2030-01-01T00:00:00Z.", code="no-time-zone")
        count = await repository.replay_range(
            user_of(identity, SCOPE),
            webhook_id,
            since=query.since,
            until=until,
            only_failed=query.only_failed,
        )
        return Replayed(count=count)


def _delivery_routes(router: APIRouter, repository: WebhookRepository, cursors: Cursor) -> None:
    @router.get("/{webhook_id}/deliveries")
    async def page(
        webhook_id: str, query: Annotated[DeliveryQuery, Query()], identity: Caller
    ) -> DeliveryPage:
        user = user_of(identity, SCOPE)
        binding = ("deliveries", user, webhook_id)
        found = await repository.deliveries(
            user,
            webhook_id,
            status=query.status,
            before=sort_key(query.cursor, cursors, binding),
            limit=query.limit + 1,
        )
        return DeliveryPage(
            data=[delivery_view(row) for row in found[: query.limit]],
            next_cursor=_next(found, query.limit, cursors, binding),
        )

    @router.get("/{webhook_id}/deliveries/{delivery_id}")
    async def one(webhook_id: str, delivery_id: str, identity: Caller) -> DeliveryDetail:
        row, log = await repository.delivery(user_of(identity, SCOPE), webhook_id, delivery_id)
        return DeliveryDetail(
            **delivery_view(row).model_dump(), log=[AttemptView(**dict(attempt)) for attempt in log]
        )

    @router.post("/{webhook_id}/deliveries/{delivery_id}/replay", status_code=202)
    async def replay(webhook_id: str, delivery_id: str, identity: Caller) -> DeliveryView:
        return delivery_view(await repository.replay(user_of(identity, SCOPE), webhook_id, delivery_id))


def delivery_view(row: Mapping[str, Any]) -> DeliveryView:
    """A delivery as its owner sees it."""
    return DeliveryView(**dict(row))


def _next(
    found: list[Mapping[str, Any]], limit: int, cursors: Cursor, binding: tuple[str, ...]
) -> str | None:
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    return cursors.encode((last["created_at"].isoformat(), last["id"]), binding)
