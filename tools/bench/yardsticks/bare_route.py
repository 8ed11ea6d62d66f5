"""The least that brings trades of venues to sockets over RabbitMQ: nothing is checked, kept or computed. Two processes.

`python -m ... take BINANCE_URL COINBASE_URL SYMBOL,...` parses trades and publishes them with confirms, in batches of what came within
5 ms; `python -m ... serve PORT SYMBOL` receives and acks, sends each trade of SYMBOL to the clients at `/trades`, and its newest
price ten times a second to all others. Both read `RABBITMQ_URL`.
"""

from __future__ import annotations

import asyncio
import http
import os
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import aio_pika
import msgspec
import orjson
import uvloop
import websockets
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

EXCHANGE = "bench.route"
FLUSH_SECONDS, WINDOW, PREFETCH = 0.005, 64, 200
TICKER_SECONDS = 0.1
QUOTES = ("USDT", "USD")
Trade = tuple[str, str, int, str, str, float, float]
"""Venue, symbol, id, price, size, times at the venue and here in ms."""


def parse_binance(text: bytes | str) -> Iterable[Trade]:
    """A frame of a combined stream."""
    data = orjson.loads(text).get("data")
    if data is not None:
        name = data["s"]
        quote = next(quote for quote in QUOTES if name.endswith(quote))
        symbol = f"{name.removesuffix(quote)}-{quote}"
        yield "binance", symbol, data["t"], data["p"], data["q"], data["T"], time.time() * 1_000


def parse_coinbase(text: bytes | str) -> Iterable[Trade]:
    """A frame of `market_trades`."""
    message = orjson.loads(text)
    if message["channel"] == "market_trades":
        now = time.time() * 1_000
        for event in message["events"]:
            for row in reversed(event["trades"] if event["type"] == "update" else ()):
                at_ms = datetime.fromisoformat(row["time"]).timestamp() * 1_000
                symbol, number = row["product_id"], int(row["trade_id"])
                yield "coinbase", symbol, number, row["price"], row["size"], at_ms, now


async def take(binance: str, coinbase: str, symbols: list[str]) -> None:
    """Both venues, for ever."""
    streams = [f"{symbol.replace('-', '').lower()}@trade" for symbol in symbols]
    async with await aio_pika.connect(os.environ["RABBITMQ_URL"]) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(EXCHANGE, "fanout")
        async with asyncio.TaskGroup() as group:
            wish: dict[str, Any] = {"method": "SUBSCRIBE", "params": streams, "id": 1}
            group.create_task(_venue(f"{binance}/stream", wish, parse_binance, exchange))
            wish = {"type": "subscribe", "channel": "market_trades", "product_ids": symbols}
            group.create_task(_venue(coinbase, wish, parse_coinbase, exchange))


async def _venue(
    url: str,
    wish: dict[str, Any],
    parse: Callable[[bytes | str], Iterable[Trade]],
    exchange: aio_pika.abc.AbstractExchange,
) -> None:
    buffer: list[Trade] = []
    window = asyncio.Semaphore(WINDOW)

    async def publish(body: bytes) -> None:
        await exchange.publish(aio_pika.Message(body), "", mandatory=False)
        window.release()

    async def flush(group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if buffer:
                await window.acquire()
                group.create_task(publish(msgspec.msgpack.encode(buffer)))
                buffer.clear()

    async with (
        websockets.connect(url, proxy=None, compression=None, max_size=None) as socket,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(flush(group))
        await socket.send(orjson.dumps(wish).decode())
        async for text in socket:
            buffer.extend(parse(text))


async def serve_sockets(port: int, watched: str) -> None:
    """What was taken, to sockets, for ever."""
    followers: set[ServerConnection] = set()
    others: set[ServerConnection] = set()
    newest: list[str] = []

    async def handler(client: ServerConnection) -> None:
        assert client.request is not None
        mine = followers if client.request.path == "/trades" else others
        mine.add(client)
        try:
            await client.wait_closed()
        finally:
            mine.discard(client)

    def ready(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(http.HTTPStatus.OK, "ready") if request.path == "/ready" else None

    async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        for venue, symbol, number, price, size, at_ms, received_ms in msgspec.msgpack.decode(message.body):
            if symbol == watched:
                newest[:] = [price]
                data = {"src": venue, "id": number, "p": price, "q": size, "ts": at_ms, "rx": received_ms}
                broadcast(followers, orjson.dumps({"type": "update", "data": data}).decode())
        await message.ack()

    async with await aio_pika.connect(os.environ["RABBITMQ_URL"]) as connection:
        channel = await connection.channel()
        await channel.set_qos(PREFETCH)
        exchange = await channel.declare_exchange(EXCHANGE, "fanout")
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange)
        await queue.consume(hear)
        async with serve(handler, "127.0.0.1", port, process_request=ready, compression=None):
            while True:
                await asyncio.sleep(TICKER_SECONDS)
                if newest:
                    body = {"type": "update", "data": {"s": watched, "p": newest.pop()}}
                    broadcast(others, orjson.dumps(body).decode())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["take", binance, coinbase, symbols]:
            uvloop.run(take(binance, coinbase, symbols.split(",")))
        case ["serve", port, watched]:
            uvloop.run(serve_sockets(int(port), watched))
        case _:
            sys.exit(__doc__)
