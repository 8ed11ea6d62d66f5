"""A trial of a rule: an event marked as such goes through its channels; the rule itself stays as it is."""

from __future__ import annotations

from typing import Protocol

from cryptopulse.alerts.application.ports import EventRow, PreparedEvent, RuleRepository
from cryptopulse.alerts.application.prepare import prepare
from cryptopulse.alerts.domain.rules import Cause, Firing
from cryptopulse.common.clock import Clock


class TrialStore(Protocol):
    """Stores an event without moving its rule."""

    async def tell(self, event: PreparedEvent) -> None:
        """Event, outbox and deliveries in one transaction."""
        ...


class SendTrial:
    """Use case: send a test event of a rule."""

    def __init__(self, repository: RuleRepository, store: TrialStore, clock: Clock) -> None:
        self._repository = repository
        self._store = store
        self._clock = clock

    async def send(self, user_id: str, rule_id: str) -> EventRow:
        """The stored event. Raises `NotFound`."""
        row = await self._repository.get(user_id, rule_id)
        now_us = self._clock.now_us()
        definition = row.definition
        firing = Firing(
            rule_id=rule_id,
            user_id=user_id,
            version=row.version,
            type="alert.triggered",
            cause=Cause(now_us, now_us, f"test:{now_us}", definition.symbol or "", definition.source),
            definition=definition,
            state=row.state,
            runtime=row.runtime,
            price=row.created_price,
            data={"test": True},
        )
        event = prepare(firing, now_us)
        await self._store.tell(event)
        return await self._repository.event(user_id, event.id)
