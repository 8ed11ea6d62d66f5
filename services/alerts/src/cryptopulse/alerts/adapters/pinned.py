"""Connections for webhooks that go where they were checked to go: the host is resolved here, every address is looked at, and
the very address that was looked at is dialled; TLS still speaks to the name.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import Any, Final, Protocol

import httpcore

from cryptopulse.alerts.application.ports import Answer
from cryptopulse.alerts.domain.addresses import Target, UrlRefusedError, checked, parse_url

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
RESOLVE_SECONDS: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024
KEPT_ANSWER_BYTES: Final = 1024
USER_AGENT: Final = "CryptoPulse-Webhooks/1.0"


class NameResolver(Protocol):
    """Addresses of a host, A and AAAA."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Every address, in the order of preference. Raises OSError."""
        ...


class SystemResolver:
    """The system's resolver."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """By getaddrinfo, each address once."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=1)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Dials the checked address of a host and nothing else; no unix sockets."""

    def __init__(self, resolver: NameResolver, *, insecure: bool) -> None:
        self._resolver = resolver
        self._insecure = insecure
        self._dial = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the seam of httpcore
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first."""
        address = await self.address_of(host, port)
        return await self._dial.connect_tcp(address, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the seam of httpcore
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise UrlRefusedError(f"no unix sockets: {path!r:.40} {timeout} {socket_options}")

    async def address_of(self, host: str, port: int) -> str:
        """The checked address of a host. Raises `UrlRefusedError`."""
        try:
            addresses = await asyncio.wait_for(self._resolver.resolve(host, port), RESOLVE_SECONDS)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise UrlRefusedError("the host could not be resolved") from error
        return checked(addresses, insecure=self._insecure)


class PinnedSender:
    """`WebhookSender` over httpcore: a fresh connection per attempt, no redirects, no proxies, bounded in time and size."""

    def __init__(
        self,
        *,
        insecure: bool = False,
        denied_hosts: frozenset[str] = frozenset(),
        resolver: NameResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._insecure = insecure
        self._denied = denied_hosts
        self._backend = PinnedBackend(resolver or SystemResolver(), insecure=insecure)
        self._ssl = ssl_context or ssl.create_default_context()
        self._total = total_seconds

    async def check(self, url: str) -> str:
        """The normalised URL when it may be a webhook now: its form, and every address it has. Raises `UrlRefusedError`."""
        target = parse_url(url, insecure=self._insecure, denied_hosts=self._denied)
        await self._backend.address_of(target.host, target.port)
        return target.url

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """One attempt. What goes wrong is told in general words: the far side learns nothing about our network."""
        started = time.monotonic()
        try:
            target = parse_url(url, insecure=self._insecure, denied_hosts=self._denied)
            async with asyncio.timeout(self._total):
                return await self._post(target, body, headers, started)
        except UrlRefusedError as error:
            return _failed(started, str(error))
        except (TimeoutError, httpcore.TimeoutException):
            return _failed(started, "timed out")
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
            ssl.SSLError,
        ):
            return _failed(started, "connection failed")

    async def _post(self, target: Target, body: bytes, headers: dict[str, str], started: float) -> Answer:
        sent = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        timeouts = {
            "connect": CONNECT_SECONDS,
            "read": self._total,
            "write": self._total,
            "pool": CONNECT_SECONDS,
        }
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._ssl,
                network_backend=self._backend,
                max_connections=1,
                max_keepalive_connections=0,
                retries=0,
                http2=False,
            ) as pool,
            pool.stream(
                "POST", target.url, headers=list(sent.items()), content=body, extensions={"timeout": timeouts}
            ) as response,
        ):
            text = await _first_bytes(response)
            found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(
                status=response.status,
                duration_ms=_ms(started),
                error=None if 200 <= response.status < 300 else f"answered {response.status}",
                retry_after=found.get(b"retry-after"),
                abort=found.get(b"webhook-delivery", "").strip().lower() == "abort-message",
                text=text,
            )


async def _first_bytes(response: httpcore.Response) -> str:
    """The first KiB of the answer as text; at most 64 KiB are read."""
    kept = b""
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if len(kept) < KEPT_ANSWER_BYTES:
            kept += chunk[: KEPT_ANSWER_BYTES - len(kept)]
        if read >= MAX_ANSWER_BYTES:
            break
    return kept.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _failed(started: float, error: str) -> Answer:
    return Answer(status=None, duration_ms=_ms(started), error=error)


def _ms(started: float) -> int:
    """Rounded to 10 ms: durations are no measuring device for our network."""
    return round((time.monotonic() - started) * 100) * 10
