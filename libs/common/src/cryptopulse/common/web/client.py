"""Calls between services: pooled, bounded in time, tried again only where that is safe, cut off while a service is down."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import httpx

from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import NotFound, UpstreamUnavailable
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.telemetry.context import current_request_id
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge, histogram
from cryptopulse.common.web import deadline

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
RETRY_STATUS: Final = frozenset({502, 503, 504})
DOTS: Final = frozenset({".", ".."})
CONNECT_SECONDS: Final = 1.0
FIRST_PAUSE_SECONDS: Final = 0.05
OPEN_AFTER_FAILURES: Final = 5
OPEN_SECONDS: Final = 2.0

_REQUESTS: Final = counter(
    "cryptopulse_service_requests_total", "Calls to another service by outcome.", ("target", "outcome")
)
_DURATION: Final = histogram(
    "cryptopulse_service_request_duration_seconds",
    "Time of a call to another service, tries included.",
    ("target",),
)
_OPEN: Final = gauge(
    "cryptopulse_service_circuit_open", "1 while calls to a service are refused at once.", ("target",)
)

log = get_logger(__name__)


class Signer(Protocol):
    """Vouches for a caller towards another service."""

    def sign(self, identity: Identity, audience: str) -> str:
        """A token that `audience` will take."""
        ...


class Circuit:
    """Refuses calls for a short while after several failures in a row, then lets one through to see."""

    def __init__(self, target: str, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_from = 0.0
        self._probing = False
        self._gauge = _OPEN.labels(target)
        self._gauge.set(0)

    @property
    def is_open(self) -> bool:
        """True while calls are refused."""
        return self._failures >= OPEN_AFTER_FAILURES and self._clock.monotonic() < self._closed_from

    def admits(self) -> bool:
        """Whether a call may go out now; after the pause only one at a time until it succeeds."""
        if self._failures < OPEN_AFTER_FAILURES:
            return True
        if self._clock.monotonic() < self._closed_from or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The service answered."""
        self._failures = 0
        self._probing = False
        self._gauge.set(0)

    def failed(self) -> None:
        """The service did not answer, or answered that it cannot."""
        self._failures += 1
        self._probing = False
        if self._failures >= OPEN_AFTER_FAILURES:
            self._closed_from = self._clock.monotonic() + OPEN_SECONDS * random.uniform(0.8, 1.2)
            self._gauge.set(1)

    def abandoned(self) -> None:
        """The call was cancelled: nothing was learnt."""
        self._probing = False


class ServiceClient:
    """Another service over HTTP. Every call carries who asks, the request's id, the trace, and for how long we wait."""

    def __init__(
        self,
        base_url: str,
        service: str,
        signer: Signer,
        *,
        timeout_seconds: float = 5.0,
        retries: int = 2,
        max_connections: int = 50,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.service = service
        self._signer = signer
        self._retries = retries
        self._timeout_seconds = timeout_seconds
        self._circuit = Circuit(service, clock or SystemClock())
        self._last_error = ""
        self._http = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=60,
            ),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        identity: Identity,
        params: Mapping[str, Any] | httpx.QueryParams | str | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The service's answer, when its status is below 500.

        GET, HEAD, PUT, DELETE and OPTIONS are tried again up to `retries` times within `timeout_seconds` in all. Raises
        `UpstreamUnavailable` when it cannot be reached, is too slow, answers with a 5xx, or was just found to be down;
        `NotFound` for a path with a segment of dots.
        """
        if not DOTS.isdisjoint(path.split("/")):
            raise NotFound("there is no such thing")  # it would be resolved to another path on the way
        if not self._circuit.admits():
            _REQUESTS.labels(self.service, "refused").inc()
            raise UpstreamUnavailable(
                f"{self.service} was found to be down a moment ago", retry_after_seconds=OPEN_SECONDS
            )
        started = time.perf_counter()
        try:
            with tracing.span(method.upper(), kind="client", peer_service=self.service):
                sent = self._headers(identity, headers)
                async with asyncio.timeout(self._timeout_seconds + CONNECT_SECONDS):
                    response = await self._tried(method.upper(), path, params, content, sent)
        except UpstreamUnavailable:
            self._circuit.failed()
            _REQUESTS.labels(self.service, "unavailable").inc()
            raise
        except TimeoutError as error:
            self._circuit.failed()
            _REQUESTS.labels(self.service, "timeout").inc()
            raise UpstreamUnavailable(f"{self.service} did not answer in time") from error
        except BaseException:
            self._circuit.abandoned()
            raise
        finally:
            _DURATION.labels(self.service).observe(time.perf_counter() - started)
        # A 500 is a bug in one place, not a service that is down: the others' calls go on.
        self._circuit.succeeded()
        if response.status_code >= 500:
            _REQUESTS.labels(self.service, "failed").inc()
            raise UpstreamUnavailable(f"{self.service} says {response.status_code}")
        _REQUESTS.labels(self.service, "answered").inc()
        return response

    def check(self) -> Check:
        """Down while the circuit is open: for `/readyz` of services that need this one."""
        return Check(ok=not self._circuit.is_open, detail=self._last_error if self._circuit.is_open else "")

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.aclose()

    def _headers(self, identity: Identity, extra: Mapping[str, str] | None) -> dict[str, str]:
        sent = dict(extra or {})
        sent["Authorization"] = f"Bearer {self._signer.sign(identity, self.service)}"
        request_id = current_request_id()
        if request_id:
            sent["X-Request-Id"] = request_id
        tracing.inject(sent)
        return sent

    async def _tried(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | httpx.QueryParams | str | None,
        content: bytes | None,
        headers: dict[str, str],
    ) -> httpx.Response:
        query = httpx.QueryParams(params) if params is not None else None
        tries = 1 + (self._retries if method in IDEMPOTENT else 0)
        attempt = 0
        ends = time.monotonic() + self._timeout_seconds + CONNECT_SECONDS
        while True:
            attempt += 1
            left = max(0.0, min(self._timeout_seconds, ends - time.monotonic()))
            headers[deadline.HEADER] = str(int(left * 1_000))
            wait = None
            try:
                response = await self._http.request(
                    method, path, params=query, content=content, headers=headers
                )
            except httpx.TransportError as error:
                failure = f"{self.service} does not answer: {type(error).__name__}"
                # A connection that was never made has carried nothing: any method may try once more.
                allowed = max(tries, 2) if isinstance(error, httpx.ConnectError) else tries
            else:
                if response.status_code not in RETRY_STATUS:
                    return response
                failure = f"{self.service} says {response.status_code}"
                allowed = tries
                wait = _retry_after(response)
            self._last_error = failure
            if attempt >= allowed:
                raise UpstreamUnavailable(failure, retry_after_seconds=wait)
            await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))


def _retry_after(response: httpx.Response) -> float | None:
    """What the service asks us to wait, in seconds; None when it does not say."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
