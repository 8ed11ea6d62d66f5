"""Dead letters on a real broker: seen, sent again to where they came from, thrown away only when meant."""

from __future__ import annotations

import asyncio
import json

import pytest

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.catalogue import Coin, CoinList
from cryptopulse.common.contracts.topics import COINS, Queue
from cryptopulse.common.runtime import dead_letters

SERVICE, SHARDS = "indicators", 4
QUEUE = Queue(consumer=SERVICE, topic=COINS, bindings=("coin.#",))


async def run(url: str, *arguments: str) -> int:
    return await dead_letters.answer(dead_letters.parse(SERVICE, arguments), SERVICE, url, SHARDS)


async def refuse_two(url: str) -> RabbitBus:
    """A bus with two messages in the dead-letter queue, whose consumer refuses everything."""
    bus = RabbitBus(url, service=SERVICE)
    await bus.start()
    assert await bus.wait_connected(15)

    async def handler(_: Delivery) -> None:
        raise ValueError("not this one")

    subscription = await bus.subscribe(QUEUE, handler)
    await asyncio.sleep(0.3)
    for name in ("bitcoin", "ethereum"):
        coins = CoinList(coins=[Coin(id=name, symbol=name[:3], name=name)], at_us=1)
        await bus.publish(COINS, coins, key=f"coin.{name}")
    async with asyncio.timeout(20):
        while await waiting(bus) < 2:
            await asyncio.sleep(0.1)
    await subscription.close()
    return bus


async def waiting(bus: RabbitBus) -> int:
    class Named(Queue):
        @property
        def name(self) -> str:
            return QUEUE.dead_letters

    return await bus.backlog(Named(SERVICE, COINS, ()))


async def test_what_was_refused_is_listed_shown_and_replayed(
    rabbit_vhost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = await refuse_two(rabbit_vhost)
    try:
        capsys.readouterr()
        assert await run(rabbit_vhost, "list") == 0
        assert capsys.readouterr().out.split() == ["2", QUEUE.dead_letters]

        for _ in range(2):  # to look changes nothing
            assert await run(rabbit_vhost, "show", QUEUE.dead_letters) == 0
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [line["content"]["coins"][0]["id"] for line in lines] == ["bitcoin", "ethereum"]
            assert lines[0]["reason"] == "rejected"

        seen: list[str] = []

        async def handler(delivery: Delivery) -> None:
            message = delivery.message
            assert isinstance(message, CoinList)
            seen.append(message.coins[0].id)

        subscription = await bus.subscribe(QUEUE, handler)
        assert await run(rabbit_vhost, "replay", QUEUE.dead_letters) == 0
        async with asyncio.timeout(10):
            while len(seen) < 2:
                await asyncio.sleep(0.05)
        assert seen == ["bitcoin", "ethereum"]
        assert await waiting(bus) == 0
        await subscription.close()
    finally:
        await bus.close()


async def test_a_purge_wants_to_be_meant(rabbit_vhost: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dead_letters.parse(SERVICE, ["purge", QUEUE.dead_letters])
    assert "--yes" in capsys.readouterr().err
    bus = await refuse_two(rabbit_vhost)
    try:
        assert await run(rabbit_vhost, "purge", QUEUE.dead_letters, "--yes") == 0
        assert await waiting(bus) == 0
    finally:
        await bus.close()


async def test_another_service_s_queue_and_one_that_never_was_are_told(
    rabbit_vhost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(rabbit_vhost, "show", "alerts.candles.v1.dlq") == 1
    assert "is not a dead-letter queue of indicators" in capsys.readouterr().err
    assert await run(rabbit_vhost, "show", QUEUE.dead_letters) == 1
    assert "does not exist yet" in capsys.readouterr().err
