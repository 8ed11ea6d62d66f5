"""The limiter over all gateways: GCRA in one Redis script, tokens leased in blocks for busy callers, a local bucket when Redis is away."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.domain.limits import Policy, Verdict, gcra

log = get_logger(__name__)

SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local emission, tolerance = tonumber(ARGV[1]), tonumber(ARGV[1]) * tonumber(ARGV[2])
local cost, lease = tonumber(ARGV[3]), tonumber(ARGV[4])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
for _, wanted in ipairs({cost + lease, cost}) do
  local new = tat + wanted * emission
  if new - tolerance <= now then
    redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000) + 1000)
    return {1, tostring(wanted), math.floor((now + tolerance - new) / emission + 1e-9), 0, math.ceil(new - now)}
  end
end
local left = math.max(0, math.floor((now + tolerance - tat) / emission))
return {0, '0', left, math.ceil(tat + cost * emission - tolerance - now), math.ceil(tat - now)}
"""
LEASE_SECONDS: Final = 1.0
"""Leased tokens that were not used by then are lost: a caller loses at most a tenth of his burst."""
BUSY_SECONDS: Final = 0.1
"""Asking again sooner than this makes the next lease twice as large."""
AWAY_SECONDS: Final = 1.0
CALLERS_KEPT: Final = 100_000
LEASE_MAX: Final = 2_000
LOCAL_SHARE: Final = 0.5
"""The part of a limit that one gateway grants alone while Redis is away."""


@dataclass(slots=True)
class _Purse:
    """What a caller has left here. Times are monotonic seconds."""

    tokens: float = 0.0
    good_until: float = 0.0
    filled_at: float = -1.0
    lease: int = 0
    remaining: int = 0
    reset_at: float = 0.0
    refused_until: float = 0.0
    local_tat_us: float = 0.0


class RedisLimiter:
    """Counts against policies; a refused caller is refused from memory until his time has come."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._script = redis.register_script(SCRIPT)
        self._purses: OrderedDict[tuple[str, str], _Purse] = OrderedDict()
        self._away_until = 0.0
        self.failures = 0

    def take_local(self, policy: Policy, principal: str, cost: float) -> Verdict | None:
        """A verdict from leased tokens or a known refusal; None when Redis must be asked."""
        purse = self._purses.get((policy.name, principal))
        if purse is None:
            return None
        now = self._clock.monotonic()
        if purse.tokens >= cost and now < purse.good_until:
            purse.tokens -= cost
            reset = max(0, round((purse.reset_at - now) * 1e6))
            return Verdict(True, purse.remaining + int(purse.tokens), 0, reset)
        if now < purse.refused_until:
            return Verdict(False, purse.remaining, round((purse.refused_until - now) * 1e6), 0)
        return None

    async def take(
        self, policy: Policy, principal: str, cost: float, *, open_on_failure: bool
    ) -> Verdict | None:
        """As the port says. A cost above the burst is refused for ever: policies keep costs below."""
        local = self.take_local(policy, principal, cost)
        if local is not None:
            return local
        purse = self._purse(policy, principal)
        now = self._clock.monotonic()
        if now < self._away_until:
            return self._without_store(policy, purse, cost, open_on_failure)
        lease = self._next_lease(policy, purse, now)
        try:
            async with store_errors():
                raw: Any = await self._script(
                    keys=[keys.rate_limit(policy.name, principal)],
                    args=[policy.emission_us, policy.burst, cost, lease],
                )
        except StoreUnavailable as error:
            self._away_until = self._clock.monotonic() + AWAY_SECONDS
            self.failures += 1
            log.warning("limits are counted locally: the store is away", error=str(error))
            return self._without_store(policy, purse, cost, open_on_failure)
        return self._settle(purse, raw, cost)

    def _settle(self, purse: _Purse, raw: list[Any], cost: float) -> Verdict:
        allowed, taken, remaining, retry_us, reset_us = (
            int(raw[0]),
            float(raw[1]),
            int(raw[2]),
            int(raw[3]),
            int(raw[4]),
        )
        now = self._clock.monotonic()
        purse.remaining = remaining
        purse.reset_at = now + reset_us / 1e6
        if not allowed:
            purse.refused_until = now + retry_us / 1e6
            return Verdict(False, remaining, retry_us, reset_us)
        if now >= purse.good_until:
            purse.tokens = 0.0
        purse.tokens += taken - cost
        purse.good_until = now + LEASE_SECONDS
        return Verdict(True, remaining + int(purse.tokens), 0, reset_us)

    def _next_lease(self, policy: Policy, purse: _Purse, now: float) -> int:
        if now - purse.filled_at < BUSY_SECONDS:
            purse.lease = min(policy.burst // 10, LEASE_MAX, max(4, purse.lease * 2))
        else:
            purse.lease //= 2
        purse.filled_at = now
        return purse.lease

    def _without_store(
        self, policy: Policy, purse: _Purse, cost: float, open_on_failure: bool
    ) -> Verdict | None:
        if not open_on_failure:
            raise StoreUnavailable("limits cannot be counted at the moment")
        share = Policy(
            policy.name,
            max(1, int(policy.quota * LOCAL_SHARE)),
            policy.window_seconds,
            max(1, int(policy.burst * LOCAL_SHARE)),
        )
        verdict, purse.local_tat_us = gcra(
            share, purse.local_tat_us, self._clock.monotonic() * 1e6, min(cost, share.burst)
        )
        return None if verdict.allowed else verdict

    def _purse(self, policy: Policy, principal: str) -> _Purse:
        key = (policy.name, principal)
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = _Purse()
            while len(self._purses) > CALLERS_KEPT:
                self._purses.popitem(last=False)
        return purse
