"""Django Channels in memory, served by daphne: `group_send` of 200 bytes to every client, BENCH_RATE times a second."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import Any

# Installed for benchmarks only: the checks of the repository run without them.
django: Any = import_module("django")
settings: Any = import_module("django.conf").settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=os.environ["BENCH_SECRET"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}
    },
)
django.setup()
AsyncWebsocketConsumer: Any = import_module("channels.generic.websocket").AsyncWebsocketConsumer
get_channel_layer: Any = import_module("channels.layers").get_channel_layer
ProtocolTypeRouter: Any = import_module("channels.routing").ProtocolTypeRouter

MESSAGE = '{"type":"update","price":"67000.10","pad":"' + "x" * 155 + '"}'
GROUP = "prices"
_started: list[asyncio.Task[None]] = []


async def _send() -> None:
    layer: Any = get_channel_layer()
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        await layer.group_send(GROUP, {"type": "price", "text": MESSAGE})
        due = max(due + 1 / float(os.environ["BENCH_RATE"]), loop.time() - 0.1)
        await asyncio.sleep(max(0.001, due - loop.time()))


class Prices(AsyncWebsocketConsumer):  # type: ignore[misc]  # of a library without types
    """One client in the group."""

    async def connect(self) -> None:
        """Join."""
        if not _started:
            _started.append(asyncio.get_running_loop().create_task(_send()))
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def price(self, event: dict[str, Any]) -> None:
        """A message of the group."""
        await self.send(text_data=event["text"])


async def _ready(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ready"})


application = ProtocolTypeRouter({"websocket": Prices.as_asgi(), "http": _ready})
