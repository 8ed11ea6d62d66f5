"""A test of a rule: an event marked as such goes through its channels; the rule itself stays as it is."""

from __future__ import annotations

from typing import Protocol

from cryptopulse.alerts.application.ports import EventRow, PreparedEvent, RuleRepository
from cryptopulse.alerts.application.prepare import prepare
from cryptopulse.alerts.domain.definition import describe
from cryptopulse.alerts.domain.rules import Cause, Firing, dedupe_key
from cryptopulse.common.clock import Clock


class TestStore(Protocol):
    """Stores an event without moving its rule."""

    async def tell(self, event: PreparedEvent) -> None:
        """Event, outbox and deliveries in one transaction."""
        ...


class TestFire:
    """Use case: send a test event of a rule."""

    def __init__(self, repository: RuleRepository, store: TestStore, clock: Clock) -> None:
        self._repository = repository
        self._store = store
        self._clock = clock

    async def fire(self, user_id: str, rule_id: str) -> EventRow:
        """The stored event. Raises `NotFound`."""
        row = await self._repository.get(user_id, rule_id)
        now_us = self._clock.now_us()
        definition = row.definition
        sequence = f"test:{now_us}"
        firing = Firing(
            rule_id=rule_id,
            user_id=user_id,
            version=row.version,
            type="alert.triggered",
            cause=Cause(now_us, now_us, sequence, definition.symbol or "", definition.source),
            symbol=definition.symbol or "",
            source=definition.source,
            condition=describe(definition),
            dedupe_key=dedupe_key(rule_id, "test", sequence),
            state=row.state,
            runtime=row.runtime,
            message=definition.message,
            note=definition.note,
            price=row.created_price,
            data={"test": True},
        )
        event = prepare(firing, now_us)
        await self._store.tell(event)
        return await self._repository.event(user_id, event.id)
