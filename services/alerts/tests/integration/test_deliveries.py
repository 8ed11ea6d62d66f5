"""Deliveries on a real Postgres: retries, 410, leases of dead workers, circuit, rotation, replay, concurrency per endpoint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from cryptopulse.alerts.adapters.delivery_store import PostgresDeliveryStore
from cryptopulse.alerts.adapters.notices import PostgresNotices
from cryptopulse.alerts.adapters.pinned import PinnedSender
from cryptopulse.alerts.adapters.webhook_repository import PostgresWebhookRepository
from cryptopulse.alerts.application.deliver import DeliveryWorker
from cryptopulse.alerts.application.manage_webhooks import WebhookManager
from cryptopulse.alerts.domain.schedule import Outcome
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.http.alerts import WebhookCreate
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database

from .conftest import MIGRATIONS, Receiver, until


class Bench:
    """Endpoints, a queue and workers on one database."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.clock = SystemClock()
        self.sender = PinnedSender(insecure=True, total_seconds=2.0)
        self.repository = PostgresWebhookRepository(db)
        self.webhooks = WebhookManager(self.repository, self.sender, self.clock)
        self.notices = PostgresNotices(db, self.clock)

    def store(self, name: str = "one", *, per_endpoint: int = 4, lease: float = 60) -> PostgresDeliveryStore:
        return PostgresDeliveryStore(self.db, worker=name, per_endpoint=per_endpoint, lease_seconds=lease)

    def worker(self, name: str = "one", **more: Any) -> DeliveryWorker:
        return DeliveryWorker(
            self.store(name, **more),
            self.sender,
            self.clock,
            concurrency=16,
            disabled=self.notices.endpoint_disabled,
        )

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        async with self.db.transaction() as conn:
            await conn.execute("SELECT set_config('app.engine', 'on', true)")
            return await conn.fetch(query, *args)

    async def due_now(self) -> None:
        """What waits is due, and endpoints have rested: time passes in the rows, not in the test."""
        await self.fetch("UPDATE webhooks SET open_until = NULL")
        await self.fetch("UPDATE deliveries SET next_attempt_at = now() WHERE status = 'pending'")

    async def run_once(self, worker: DeliveryWorker) -> int:
        claimed = await worker._store.claim(100)
        await asyncio.gather(*(worker.attempt(due) for due in claimed))
        return len(claimed)


@pytest.fixture
async def bench(postgres_db: str) -> AsyncIterator[Bench]:
    await migrate(postgres_db, schema="alerts", role="cryptopulse_alerts", directory=MIGRATIONS)
    db = Database(postgres_db, schema="alerts", role="cryptopulse_alerts", application_name="test")
    await db.start()
    yield Bench(db)
    await db.close()


async def test_a_failing_endpoint_is_tried_again_under_the_same_id_and_then_delivered(
    bench: Bench, receiver: Receiver
) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    made = await bench.webhooks.test("ann", hook.id)
    worker = bench.worker()
    receiver.answers = [(500, {}), (302, {"Location": "http://127.0.0.1:1/"}), (200, {})]
    for _ in range(3):
        assert await bench.run_once(worker) == 1
        assert await bench.run_once(worker) == 0
        await bench.due_now()
    row, log = await bench.repository.delivery("ann", hook.id, made["id"])
    assert (row["status"], row["attempts"], [attempt["status"] for attempt in log]) == (
        "delivered",
        3,
        [500, 302, 200],
    )
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert len({body for _, body in receiver.requests}) == 1
    for headers, body in receiver.requests:
        assert Webhook(hook.secret).verify(body, headers)["type"] == "webhook.test"


async def test_410_disables_the_endpoint_and_tells_its_owner(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    await bench.webhooks.test("ann", hook.id)
    await bench.webhooks.test("ann", hook.id)
    receiver.answers = [(410, {})]
    worker = bench.worker(per_endpoint=1)
    assert await bench.run_once(worker) == 1
    assert await bench.run_once(worker) == 0
    (row,) = await bench.fetch("SELECT enabled, disabled_reason FROM webhooks")
    assert (row["enabled"], row["disabled_reason"]) == (False, "the endpoint answered 410 Gone")
    assert sorted(r["status"] for r in await bench.fetch("SELECT status FROM deliveries")) == [
        "cancelled",
        "failed",
    ]
    (event,) = await bench.fetch("SELECT type, data FROM events WHERE user_id = 'ann'")
    assert (event["type"], event["data"]["kind"]) == ("alert.error", "endpoint.disabled")
    assert len(await bench.fetch("SELECT FROM outbox")) == 1


async def test_retry_after_rests_the_whole_endpoint(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    await bench.webhooks.test("ann", hook.id)
    receiver.answers = [(429, {"Retry-After": "600"})]
    worker = bench.worker()
    await bench.run_once(worker)
    await bench.webhooks.test("ann", hook.id)
    assert await bench.run_once(worker) == 0
    (row,) = await bench.fetch("SELECT extract(epoch FROM open_until - now())::float8 AS rest FROM webhooks")
    assert 590 < row["rest"] <= 600


async def test_a_delivery_of_a_dead_worker_is_taken_over_after_its_lease(
    bench: Bench, receiver: Receiver
) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    await bench.webhooks.test("ann", hook.id)
    (dead,) = await bench.store("dead").claim(10)
    assert await bench.store("alive").claim(10) == []
    await bench.fetch("UPDATE deliveries SET leased_until = now()")
    worker = bench.worker("alive")
    assert await bench.run_once(worker) == 1
    answer = await bench.sender.post(receiver.url, dead.body, {})
    assert await bench.store("dead").finish(dead, answer, Outcome("exhausted")) is None
    (row,) = await bench.fetch("SELECT status, attempts FROM deliveries")
    assert (row["status"], row["attempts"]) == ("delivered", 2)


async def test_five_failures_open_the_circuit_and_one_probe_closes_it(
    bench: Bench, receiver: Receiver
) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    for _ in range(6):
        await bench.webhooks.test("ann", hook.id)
    receiver.answers = [(500, {})] * 5
    worker = bench.worker(per_endpoint=5)
    assert await bench.run_once(worker) == 5
    assert await bench.run_once(worker) == 0
    shown = (await bench.webhooks.update("ann", hook.id, _nothing(), None)).circuit
    assert shown == "open"
    await bench.due_now()
    assert await bench.run_once(worker) == 1, "one probe, not five"
    assert await bench.run_once(worker) == 5


async def test_an_endpoint_gets_four_at_a_time_over_all_workers(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    other = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url + "/other"))
    for _ in range(20):
        await bench.webhooks.test("ann", hook.id)
    await bench.webhooks.test("ann", other.id)
    claims = await asyncio.gather(*(bench.store(f"worker{number}").claim(50) for number in range(4)))
    claimed = [due for claim in claims for due in claim]
    again = [due for number in range(4) for due in await bench.store(f"worker{number}").claim(50)]
    found = [due.webhook_id for due in [*claimed, *again]]
    assert (found.count(hook.id), found.count(other.id)) == (4, 1)


async def test_both_secrets_sign_during_the_overlap_and_the_new_one_alone_after(
    bench: Bench, receiver: Receiver
) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    rotated = await bench.webhooks.rotate("ann", hook.id, 3600)
    worker = bench.worker()
    await bench.webhooks.test("ann", hook.id)
    await bench.run_once(worker)
    headers, body = receiver.requests[-1]
    for secret in (hook.secret, rotated.secret):
        Webhook(secret).verify(body, headers)
    await bench.fetch("UPDATE webhooks SET old_until = now()")
    await bench.webhooks.test("ann", hook.id)
    await bench.run_once(worker)
    headers, body = receiver.requests[-1]
    Webhook(rotated.secret).verify(body, headers)
    with pytest.raises(Exception, match="signature"):
        Webhook(hook.secret).verify(body, headers)


async def test_one_and_a_range_are_sent_again_under_their_ids(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    made = [await bench.webhooks.test("ann", hook.id) for _ in range(3)]
    worker = bench.worker()
    await bench.run_once(worker)
    await bench.repository.replay("ann", hook.id, made[0]["id"])
    await bench.run_once(worker)
    assert [headers["webhook-id"] for headers, _ in receiver.requests].count(made[0]["message_id"]) == 2
    count = await bench.repository.replay_range(
        "ann", hook.id, since=made[1]["created_at"], until=made[2]["created_at"], only_failed=False
    )
    assert count == 1
    await bench.run_once(worker)
    assert [headers["webhook-id"] for headers, _ in receiver.requests].count(made[1]["message_id"]) == 2


async def test_a_receiver_may_end_the_retries(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    await bench.webhooks.test("ann", hook.id)
    receiver.answers = [(500, {"Webhook-Delivery": "abort-message"})]
    await bench.run_once(bench.worker())
    (row,) = await bench.fetch("SELECT status FROM deliveries")
    assert row["status"] == "exhausted"


async def test_the_running_worker_delivers_without_delay_and_drains(bench: Bench, receiver: Receiver) -> None:
    hook = await bench.webhooks.create("ann", "free", WebhookCreate(url=receiver.url))
    worker = bench.worker()
    running = asyncio.create_task(worker.run(lambda: None))
    await asyncio.sleep(0.1)
    await bench.webhooks.test("ann", hook.id)
    worker.wake()
    await until(lambda: len(receiver.requests) == 1, seconds=2, what="delivery")
    await worker.drain()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(running, 2)
    (row,) = await bench.fetch("SELECT status FROM deliveries")
    assert row["status"] == "delivered"


async def test_what_the_budget_kept_silent_is_told_in_one_summary(bench: Bench) -> None:
    await bench.fetch(
        "INSERT INTO budgets (user_id, minute, used, suppressed) VALUES"
        " ('ann', date_trunc('minute', now()) - interval '1 minute', 100, 40), ('ann', date_trunc('minute', now()), 90, 30)"
    )
    assert await bench.notices.summarise() == 1
    assert await bench.notices.summarise() == 0
    (event,) = await bench.fetch("SELECT type, data FROM events")
    assert (event["type"], event["data"]["suppressed"]) == ("alert.summary", 40)


def _nothing() -> Any:
    from cryptopulse.common.contracts.http.alerts import WebhookUpdate

    return WebhookUpdate()
