"""REST of venues: one client per venue that spends the shared budget and obeys every limit the venue states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from cryptopulse.common.errors import Invalid, UpstreamUnavailable
from cryptopulse.ingestor.application.ports import Quota
from cryptopulse.ingestor.domain.quota import Priority

MAX_BODY_BYTES = 64 * 1024 * 1024
DEFAULT_BLOCK_SECONDS = 60.0
BAN_SECONDS = 120.0
AGENT = "CryptoPulse/0.1"

T = TypeVar("T")


class VenueHttp:
    """GETs of one venue. `used_header` names the answer header with the used weight of `used_pool`."""

    def __init__(
        self,
        venue: str,
        base_url: str,
        quota: Quota,
        *,
        timeout_seconds: float = 10.0,
        headers: Mapping[str, str] | None = None,
        used_header: str | None = None,
        used_pool: str = "request_weight",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.venue = venue
        self._base = base_url.rstrip("/")
        self._quota = quota
        self._used_header = used_header
        self._used_pool = used_pool
        self._client = httpx.AsyncClient(
            timeout=timeout_seconds,
            headers={"User-Agent": AGENT, "Accept": "application/json", **(headers or {})},
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=4),
            follow_redirects=False,
            transport=transport,
        )

    async def get(
        self,
        path: str,
        kind: type[T],
        *,
        weight: float = 1.0,
        priority: Priority = Priority.LIVE,
        params: Mapping[str, Any] | None = None,
        wait_seconds: float = 20.0,
    ) -> T:
        """The decoded answer. Raises `UpstreamUnavailable` (limits, transport, nonsense) or `Invalid` (a 4xx of ours)."""
        await self._quota.spend(self.venue, weight, priority, wait_seconds=wait_seconds)
        try:
            answer = await self._client.get(self.url(path, params))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UpstreamUnavailable(f"{self.venue}: {type(error).__name__} {error}".rstrip()) from error
        await self._heed(answer)
        if len(answer.content) > MAX_BODY_BYTES:
            raise UpstreamUnavailable(f"{self.venue}: answer of {len(answer.content)} bytes")
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamUnavailable(f"{self.venue}: {path}: not the answer expected: {error}") from error

    def url(self, path: str, params: Mapping[str, Any] | None) -> str:
        """The address of a call."""
        return str(httpx.URL(self._base + path, params={k: str(v) for k, v in (params or {}).items()}))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _heed(self, answer: httpx.Response) -> None:
        if self._used_header is not None and (used := answer.headers.get(self._used_header, "")).isdigit():
            await self._quota.correct(self.venue, self._used_pool, float(used))
        status = answer.status_code
        if status in (429, 418):
            seconds = _retry_after(answer) or (BAN_SECONDS if status == 418 else DEFAULT_BLOCK_SECONDS)
            await self._quota.block(self.venue, seconds, f"HTTP {status}")
            raise UpstreamUnavailable(f"{self.venue}: HTTP {status}", retry_after_seconds=seconds)
        if status >= 500 or status in (403, 408, 451, 1020):
            raise UpstreamUnavailable(
                f"{self.venue}: HTTP {status}", retry_after_seconds=_retry_after(answer)
            )
        if status >= 400:
            raise Invalid(f"{self.venue}: HTTP {status}: {answer.text[:200]}", code="venue-refused")
        if status >= 300:
            raise UpstreamUnavailable(
                f"{self.venue}: HTTP {status} to {answer.headers.get('location', '')[:100]}"
            )


class ProxiedHttp(VenueHttp):
    """The same through a proxy that takes the whole address behind a prefix.

    A prefix that ends in `=` or `?` gets the address percent-encoded, any other as it is.
    """

    def __init__(self, prefix: str, venue: str, base_url: str, quota: Quota, **options: Any) -> None:
        super().__init__(venue, base_url, quota, **options)
        self._prefix = prefix

    def url(self, path: str, params: Mapping[str, Any] | None) -> str:
        """The address behind the prefix."""
        target = super().url(path, params)
        if not self._prefix:
            return target
        if self._prefix[-1] in "=?":
            return self._prefix + httpx.QueryParams({"u": target}).__str__().removeprefix("u=")
        return self._prefix + target


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 7 * 86_400 else None
