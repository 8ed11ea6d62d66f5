"""Rules and events over the internal HTTP; bodies and answers are the public ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response

from cryptopulse.alerts.application import manage_rules
from cryptopulse.alerts.application.manage_rules import RuleManager
from cryptopulse.alerts.application.ports import EventRow, RuleRepository
from cryptopulse.alerts.application.preview import Preview
from cryptopulse.alerts.application.send_trial import SendTrial
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.alerts import (
    Acked,
    AlertCreate,
    AlertCreated,
    AlertEventPage,
    AlertEventView,
    AlertPage,
    AlertQuery,
    AlertUpdate,
    AlertView,
    DryRunRequest,
    EventQuery,
    PreviewResult,
    Snooze,
    ValidateResult,
)
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Forbidden, Invalid, PreconditionFailed
from cryptopulse.common.security.identity import caller
from cryptopulse.common.web.pagination import Cursor

MAX_USER_ID = 200
Caller = Annotated[Identity, Depends(caller)]
IfMatch = Annotated[str | None, Header(alias="If-Match")]


def user_of(identity: Identity, scope: str) -> str:
    """The user who calls. Raises `Forbidden` for callers without a user or without the scope."""
    if identity.user_id is None or len(identity.user_id) > MAX_USER_ID:
        raise Forbidden("This needs a user.", code="no-user")
    family = scope.partition(":")[0]
    if not (identity.allows(scope) or identity.allows(family)):
        raise Forbidden(f"This needs the scope {scope}.", code="missing-scope")
    return identity.user_id


def version_of(if_match: str | None) -> int | None:
    """The version that `If-Match` names; None for none and for `*`. Raises `PreconditionFailed` for anything else."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = re.fullmatch(r'(?:W/)?"?(\d{1,9})"?', if_match.strip())
    if match is None:
        raise PreconditionFailed("If-Match names a version of something else.")
    return int(match[1])


def sort_key(cursor: str | None, codec: Cursor, binding: Sequence[str]) -> tuple[datetime, str] | None:
    """(time, id) of the last row of the page before."""
    if cursor is None:
        return None
    at, identifier = codec.decode(cursor, binding)
    return datetime.fromisoformat(at), identifier


def alert_routes(
    rules: RuleManager,
    repository: RuleRepository,
    preview: Preview,
    send_trial: SendTrial,
    cursors: Cursor,
    clock: Clock,
) -> APIRouter:
    """The routes of rules and events."""
    router = APIRouter()
    _write_routes(router, rules, repository, preview, send_trial, clock)
    _state_routes(router, rules, clock)
    _read_routes(router, rules, repository, cursors, clock)
    return router


def _write_routes(
    router: APIRouter,
    rules: RuleManager,
    repository: RuleRepository,
    preview: Preview,
    send_trial: SendTrial,
    clock: Clock,
) -> None:
    @router.post("/alerts", status_code=201)
    async def create(body: AlertCreate, identity: Caller, response: Response) -> AlertCreated:
        if body.webhook_url is not None or body.webhook_ids:
            user_of(identity, "alerts")
        row, standing, hook = await rules.create(user_of(identity, "alerts"), identity.tier, body)
        response.headers["Location"] = f"/alerts/{row.id}"
        shown = manage_rules.view(row, clock.now_ms())
        return AlertCreated(**dict(shown), currently_true=standing.true, webhook=hook)

    @router.post("/alerts/validate")
    async def validate(body: DryRunRequest, identity: Caller) -> ValidateResult:
        return await preview.validate(user_of(identity, "alerts"), body)

    @router.post("/alerts/preview")
    async def show(body: DryRunRequest, identity: Caller) -> PreviewResult:
        return await preview.preview(user_of(identity, "alerts"), body)

    @router.patch("/alerts/{alert_id}")
    async def update(
        alert_id: str, body: AlertUpdate, identity: Caller, if_match: IfMatch = None
    ) -> AlertView:
        row = await rules.update(user_of(identity, "alerts"), alert_id, body, version_of(if_match))
        return manage_rules.view(row, clock.now_ms())

    @router.delete("/alerts/{alert_id}", status_code=204)
    async def delete(alert_id: str, identity: Caller, if_match: IfMatch = None) -> None:
        await repository.delete(user_of(identity, "alerts"), alert_id, expected=version_of(if_match))

    @router.post("/alerts/{alert_id}/test")
    async def test(alert_id: str, identity: Caller) -> AlertEventView:
        return event_view(await send_trial.send(user_of(identity, "alerts"), alert_id))

    @router.post("/alert-events/{event_id}/ack")
    async def acknowledge(event_id: str, identity: Caller) -> Acked:
        acked_at = await repository.acknowledge(user_of(identity, "alerts"), event_id)
        return Acked(id=event_id, acked_at=acked_at)


def _state_routes(router: APIRouter, rules: RuleManager, clock: Clock) -> None:
    @router.post("/alerts/{alert_id}/pause")
    async def pause(alert_id: str, identity: Caller) -> AlertView:
        return manage_rules.view(await rules.pause(user_of(identity, "alerts"), alert_id), clock.now_ms())

    @router.post("/alerts/{alert_id}/resume")
    async def resume(alert_id: str, identity: Caller) -> AlertView:
        return manage_rules.view(await rules.resume(user_of(identity, "alerts"), alert_id), clock.now_ms())

    @router.post("/alerts/{alert_id}/snooze")
    async def snooze(alert_id: str, body: Snooze, identity: Caller) -> AlertView:
        row = await rules.snooze(user_of(identity, "alerts"), alert_id, body.seconds)
        return manage_rules.view(row, clock.now_ms())

    @router.post("/alerts/{alert_id}/rearm")
    async def rearm(alert_id: str, identity: Caller) -> AlertView:
        return manage_rules.view(await rules.rearm(user_of(identity, "alerts"), alert_id), clock.now_ms())


def _read_routes(
    router: APIRouter, rules: RuleManager, repository: RuleRepository, cursors: Cursor, clock: Clock
) -> None:
    @router.get("/alerts")
    async def page(query: Annotated[AlertQuery, Query()], identity: Caller) -> AlertPage:
        user = user_of(identity, "alerts:read")
        binding = ("alerts", user)
        found = await repository.page(
            user,
            state=query.state,
            symbol=await rules.symbol(query.symbol) if query.symbol else None,
            kind=query.type,
            before=sort_key(query.cursor, cursors, binding),
            limit=query.limit + 1,
        )
        rows, more = found[: query.limit], len(found) > query.limit
        last = rows[-1] if more else None
        return AlertPage(
            data=[manage_rules.view(row, clock.now_ms()) for row in rows],
            next_cursor=None
            if last is None
            else cursors.encode((last.created_at.isoformat(), last.id), binding),
        )

    @router.get("/alerts/{alert_id}")
    async def one(alert_id: str, identity: Caller, response: Response) -> AlertView:
        row = await repository.get(user_of(identity, "alerts:read"), alert_id)
        response.headers["ETag"] = f'"{row.version}"'
        return manage_rules.view(row, clock.now_ms())

    @router.get("/alerts/{alert_id}/events")
    async def events_of(
        alert_id: str, query: Annotated[EventQuery, Query()], identity: Caller
    ) -> AlertEventPage:
        return await _events(repository, cursors, user_of(identity, "alerts:read"), query, alert_id)

    @router.get("/alert-events")
    async def events(query: Annotated[EventQuery, Query()], identity: Caller) -> AlertEventPage:
        return await _events(repository, cursors, user_of(identity, "alerts:read"), query, None)

    @router.get("/alert-events/{event_id}")
    async def event(event_id: str, identity: Caller) -> AlertEventView:
        return event_view(await repository.event(user_of(identity, "alerts:read"), event_id))


async def _events(
    repository: RuleRepository, cursors: Cursor, user: str, query: EventQuery, rule_id: str | None
) -> AlertEventPage:
    if query.since is not None and query.since.tzinfo is None:
        raise Invalid("since needs a time zone, e.g. 2030-01-01T00:00:00Z.", code="no-time-zone")
    newest_first = query.since is None and not query.unacked
    binding = ("alert-events", user, rule_id or "", "new" if newest_first else "old")
    found = await repository.events(
        user,
        rule_id=rule_id,
        kind=query.type,
        since=query.since,
        unacked=query.unacked,
        after=sort_key(query.cursor, cursors, binding),
        newest_first=newest_first,
        limit=query.limit + 1,
    )
    rows, more = found[: query.limit], len(found) > query.limit
    last = rows[-1] if more else None
    return AlertEventPage(
        data=[event_view(row) for row in rows],
        next_cursor=None if last is None else cursors.encode((last.created_at.isoformat(), last.id), binding),
    )


def event_view(row: EventRow) -> AlertEventView:
    """An event as its owner sees it."""
    data: dict[str, Any] = dict(row.data)
    return AlertEventView(
        id=row.id,
        type=row.type,
        alert_id=row.rule_id or "",
        symbol=row.symbol,
        source=row.source,
        condition=row.condition,
        message=row.message,
        price=row.price,
        threshold=row.threshold,
        late=row.late,
        simulated=row.simulated,
        dedupe_key=row.dedupe_key,
        at=row.at,
        created_at=row.created_at,
        acked_at=row.acked_at,
        data=data,
    )
