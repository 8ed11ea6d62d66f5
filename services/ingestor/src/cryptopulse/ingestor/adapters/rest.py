"""REST of venues: one client per venue that spends the shared budget and obeys every limit the venue states."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from cryptopulse.common.errors import Invalid, UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter
from cryptopulse.ingestor.application.ports import Quota
from cryptopulse.ingestor.domain.quota import Priority

MAX_BODY_BYTES = 64 * 1024 * 1024
DEFAULT_BLOCK_SECONDS = 60.0
BAN_SECONDS = 120.0
AGENT = "CryptoPulse/0.1"
WHOLE_TIMES = 3.0
"""An answer that drips in is cut after so many timeouts; the timeout itself holds for each read."""
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)

_ROWS_REFUSED = counter(
    "cryptopulse_rows_refused_total", "Rows of REST answers that were not believed.", ("venue",)
)
log = get_logger(__name__)

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
        self._whole_seconds = WHOLE_TIMES * timeout_seconds
        self._rows_refused = 0
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
            async with (
                asyncio.timeout(self._whole_seconds),
                self._client.stream("GET", self.url(path, params)) as answer,
            ):
                body = await self._body(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise UpstreamUnavailable(f"{self.venue}: {type(error).__name__} {error}".rstrip()) from error
        await self._heed(answer, body)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamUnavailable(f"{self.venue}: {path}: not the answer expected: {error}") from error

    def refused(self, row: bytes, why: str) -> None:
        """A row of an answer that is not believed: counted, and logged now and then; the other rows stand."""
        self._rows_refused += 1
        _ROWS_REFUSED.labels(self.venue).inc()
        if self._rows_refused in (1, 10, 100) or self._rows_refused % 1_000 == 0:
            text = row.decode(errors="replace")
            log.warning("row refused", venue=self.venue, row=text, detail=why[:200], times=self._rows_refused)

    def url(self, path: str, params: Mapping[str, Any] | None) -> str:
        """The address of a call."""
        return str(httpx.URL(self._base + path, params={k: str(v) for k, v in (params or {}).items()}))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        """The whole body, unpacked; no more than the limit is ever held."""
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise UpstreamUnavailable(f"{self.venue}: answer of more than {MAX_BODY_BYTES} bytes")
        return bytes(body)

    async def _heed(self, answer: httpx.Response, body: bytes) -> None:
        if self._used_header is not None and _COUNT.fullmatch(
            used := answer.headers.get(self._used_header, "")
        ):
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
            raise Invalid(
                f"{self.venue}: HTTP {status}: {body[:200].decode(errors='replace')}", code="venue-refused"
            )
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


def segment(name: str) -> str:
    """A name of the venue's catalogue as one segment of a path, whatever is in it. Raises `Invalid` where it can be none."""
    if name.strip(".") == "":
        raise Invalid(f"{name!r:.40} cannot be asked for", code="venue-refused")
    return quote(name, safe="")


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds to wait as the venue states them: a number, or a date that is compared with the venue's own."""
    text = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            until, now = (parsedate_to_datetime(date) for date in (text, answer.headers.get("Date", "")))
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds if 0 <= seconds < 7 * 86_400 else None
