"""Endpoints of a user: made, changed, tested, their secrets rotated, their deliveries sent again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.application.ports import NewWebhook, WebhookRepository
from cryptopulse.alerts.domain import signature
from cryptopulse.alerts.domain.addresses import UrlRefusedError
from cryptopulse.alerts.domain.messages import encode_body, rfc3339
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.http.alerts import (
    CreatedWebhook,
    RotatedSecret,
    WebhookCreate,
    WebhookCreated,
    WebhookUpdate,
    WebhookView,
)
from cryptopulse.common.errors import FieldError, Invalid

CAPS: Final[dict[str, int]] = {"free": 5, "pro": 50, "enterprise": 200}
DEFAULT_CAP: Final = 5


class UrlCheck(Protocol):
    """Whether a URL may be a webhook now."""

    async def check(self, url: str) -> str:
        """The normalised URL. Raises `UrlRefusedError`."""
        ...


class WebhookManager:
    """Use cases of endpoints. The repository checks the owner in every statement."""

    def __init__(self, repository: WebhookRepository, urls: UrlCheck, clock: Clock) -> None:
        self._repository = repository
        self._urls = urls
        self._clock = clock

    async def create(self, user_id: str, tier: str, body: WebhookCreate) -> WebhookCreated:
        """A new endpoint, with its secret for this once."""
        url = await self.checked(body.url)
        secret = secrets.token_bytes(signature.SECRET_BYTES)
        row = await self._repository.create(
            user_id, self._new(url, body.description, list(body.event_types), secret), cap=cap_of(tier)
        )
        return WebhookCreated(
            **view(row, self._clock.now_ms()).model_dump(), secret=signature.format_secret(secret)
        )

    async def find_or_create(self, user_id: str, tier: str, url: str) -> CreatedWebhook:
        """The user's endpoint with this URL; its secret is told when it is new."""
        secret = secrets.token_bytes(signature.SECRET_BYTES)
        row, created = await self._repository.find_or_create(
            user_id, self._new(await self.checked(url), None, [], secret), cap=cap_of(tier)
        )
        return CreatedWebhook(
            id=row["id"],
            url=row["url"],
            created=created,
            secret=signature.format_secret(secret) if created else None,
        )

    async def update(
        self, user_id: str, webhook_id: str, body: WebhookUpdate, expected: int | None
    ) -> WebhookView:
        """Change what is given."""
        row = await self._repository.update(
            user_id,
            webhook_id,
            expected=expected,
            url=None if body.url is None else await self.checked(body.url),
            description=body.description,
            event_types=None if body.event_types is None else list(body.event_types),
            enabled=body.enabled,
        )
        return view(row, self._clock.now_ms())

    async def rotate(self, user_id: str, webhook_id: str, overlap_seconds: int) -> RotatedSecret:
        """A new secret; the old one signs beside it for the overlap."""
        secret = secrets.token_bytes(signature.SECRET_BYTES)
        until = await self._repository.rotate(user_id, webhook_id, secret, overlap_seconds=overlap_seconds)
        return RotatedSecret(id=webhook_id, secret=signature.format_secret(secret), old_valid_until=until)

    async def test(self, user_id: str, webhook_id: str) -> Mapping[str, Any]:
        """Queue a `webhook.test` message; -> its delivery."""
        now_ms = self._clock.now_ms()
        message_id = new_id("ae", now_ms)
        body = encode_body(
            "webhook.test",
            rfc3339(now_ms),
            {"webhook_id": webhook_id, "message": "This is a test of your webhook."},
        )
        return await self._repository.enqueue(
            user_id, webhook_id, new_id("wd", now_ms), message_id, "webhook.test", body
        )

    async def checked(self, url: str) -> str:
        """The normalised URL. Raises `Invalid` that names the field."""
        try:
            return await self._urls.check(url)
        except UrlRefusedError as error:
            raise Invalid(
                f"The webhook's URL was refused: {error}.",
                code="webhook-url-refused",
                errors=(FieldError("/url", "webhook-url-refused", str(error)),),
            ) from error

    def _new(self, url: str, description: str | None, event_types: list[str], secret: bytes) -> NewWebhook:
        return NewWebhook(
            id=new_id("wh", self._clock.now_ms()),
            url=url,
            description=description,
            event_types=event_types,
            secret=secret,
        )


def cap_of(tier: str) -> int:
    """How many endpoints a plan holds."""
    return CAPS.get(tier, DEFAULT_CAP)


def view(row: Mapping[str, Any], now_ms: int) -> WebhookView:
    """An endpoint as its owner sees it."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    resting = row["open_until"] is not None and row["open_until"] > now
    probing = row["open_until"] is not None and not resting and row["failures"] > 0
    return WebhookView(
        id=row["id"],
        url=row["url"],
        description=row["description"],
        event_types=list(row["event_types"]),
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        circuit="open" if resting else "half_open" if probing else "closed",
        failing_since=row["failing_since"],
        last_success_at=row["last_success_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        version=row["version"],
    )
