"""Request budgets shared through Redis: one atomic step per call over all pools of a venue and address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import uniform
from typing import Any, Final, cast

from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.feeds import BudgetStatus
from cryptopulse.common.errors import StoreUnavailable, UpstreamUnavailable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.ingestor.domain.quota import PoolRule, Priority, TokenPool, cost_of, floor_of, month_of

TTL_MS: Final = 40 * 86_400_000
LONGEST_SLEEP_SECONDS: Final = 5.0

# ARGV: now ms, then per pool: name, capacity, refill per ms, cost, floor, window, ms until the window ends.
# A pool that the venue has enlarged since is credited the difference. Spends from all pools or from none. Answers {wait ms, blocked until ms, left of each pool as text ...}.
_SPEND: Final = """
local now = tonumber(ARGV[1])
local blocked = tonumber(redis.call('HGET', KEYS[1], 'blocked') or '0')
local wait = math.max(0, blocked - now)
local lefts, costs, names, windows, capacities = {}, {}, {}, {}, {}
for i = 2, #ARGV, 7 do
  local name, capacity, rate = ARGV[i], tonumber(ARGV[i+1]), tonumber(ARGV[i+2])
  local cost, floor, window = tonumber(ARGV[i+3]), tonumber(ARGV[i+4]), ARGV[i+5]
  local left = tonumber(redis.call('HGET', KEYS[1], name .. ':left') or ARGV[i+1])
  if window ~= '' then
    if redis.call('HGET', KEYS[1], name .. ':window') ~= window then left = capacity end
  else
    local at = tonumber(redis.call('HGET', KEYS[1], name .. ':at') or ARGV[1])
    left = left + math.max(0, now - at) * rate
  end
  local known = tonumber(redis.call('HGET', KEYS[1], name .. ':of') or ARGV[i+1])
  left = math.min(left + math.max(0, capacity - known), capacity)
  local missing = cost + floor - left
  if missing > 0.000001 then
    wait = math.max(wait, window ~= '' and tonumber(ARGV[i+6]) or math.ceil(missing / rate))
  end
  table.insert(names, name); table.insert(lefts, left); table.insert(costs, cost); table.insert(windows, window)
  table.insert(capacities, ARGV[i+1])
end
local answer = {wait, blocked}
for i, name in ipairs(names) do
  local left = lefts[i]
  if wait <= 0 then left = left - costs[i] end
  redis.call('HSET', KEYS[1], name .. ':left', string.format('%.6f', left), name .. ':at', now, name .. ':window', windows[i], name .. ':of', capacities[i])
  table.insert(answer, string.format('%.6f', left))
end
redis.call('PEXPIRE', KEYS[1], 3456000000)
return answer
"""
_CORRECT: Final = """
local left = tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. ':left') or ARGV[2])
if tonumber(ARGV[2]) < left then redis.call('HSET', KEYS[1], ARGV[1] .. ':left', ARGV[2], ARGV[1] .. ':at', ARGV[3]) end
return 0
"""
_BLOCK: Final = """
local blocked = tonumber(redis.call('HGET', KEYS[1], 'blocked') or '0')
if tonumber(ARGV[1]) > blocked then redis.call('HSET', KEYS[1], 'blocked', ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], 3456000000)
return 0
"""

_REQUESTS = counter(
    "cryptopulse_provider_requests_total", "Calls that the budget allowed or held.", ("venue", "outcome")
)
_LEFT = gauge(
    "cryptopulse_provider_budget_left_ratio", "Share of the scarcest budget that is left.", ("venue",)
)
log = get_logger(__name__)


@dataclass(slots=True)
class _Account:
    """What this process knows of a venue's budget."""

    rules: list[PoolRule] = field(default_factory=list)
    local: dict[str, TokenPool] = field(default_factory=dict)
    blocked_until_ms: int = 0
    left: dict[str, float] = field(default_factory=dict)


class QuotaStore:
    """Implements `application.ports.Quota`. While Redis is away each process counts for itself."""

    def __init__(self, redis: Redis, clock: Clock, *, address: str) -> None:
        self._redis = redis
        self._clock = clock
        self._address = address
        self._accounts: dict[str, _Account] = {}

    def rule(self, venue: str, pools: Sequence[PoolRule]) -> None:
        account = self._accounts.setdefault(venue, _Account())
        if list(pools) == account.rules:
            return
        account.rules = list(pools)
        now = self._clock.now_ms()
        account.local = {rule.name: TokenPool.full(rule, now) for rule in pools}

    async def spend(self, venue: str, weight: float, priority: Priority, *, wait_seconds: float) -> None:
        account = self._accounts.setdefault(venue, _Account())
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            wait = await self._try(venue, account, weight, priority) / 1_000
            if wait <= 0:
                _REQUESTS.labels(venue, "allowed").inc()
                return
            left = deadline - self._clock.monotonic()
            if wait > left:
                _REQUESTS.labels(venue, "held").inc()
                raise UpstreamUnavailable(f"{venue}: over budget for {wait:.1f} s", retry_after_seconds=wait)
            await asyncio.sleep(min(wait * uniform(1.0, 1.1), LONGEST_SLEEP_SECONDS, max(left, 0.001)))

    async def correct(self, venue: str, pool: str, used: float) -> None:
        account = self._accounts.setdefault(venue, _Account())
        now = self._clock.now_ms()
        local = account.local.get(pool)
        if local is None:
            return
        local.correct(used, now)
        try:
            async with store_errors():
                left = local.rule.capacity - used
                await cast("Any", self._redis.eval(_CORRECT, 1, self._key(venue), pool, str(left), str(now)))
        except StoreUnavailable:
            return

    async def block(self, venue: str, seconds: float, reason: str) -> None:
        account = self._accounts.setdefault(venue, _Account())
        until = self._clock.now_ms() + round(seconds * 1_000)
        account.blocked_until_ms = max(account.blocked_until_ms, until)
        log.warning("venue told us to wait", venue=venue, seconds=round(seconds, 1), reason=reason)
        try:
            async with store_errors():
                await cast("Any", self._redis.eval(_BLOCK, 1, self._key(venue), str(until)))
        except StoreUnavailable:
            return

    def status(self, venue: str) -> list[BudgetStatus]:
        account = self._accounts.get(venue)
        if account is None:
            return []
        now = self._clock.now_ms()
        blocked = account.blocked_until_ms * 1_000 if account.blocked_until_ms > now else None
        return [
            BudgetStatus(
                name=rule.name,
                limit=rule.capacity,
                left=max(0, int(account.left.get(rule.name, rule.capacity))),
                resets_us=month_of(now)[1] * 1_000 if rule.calendar else None,
                blocked_until_us=blocked,
            )
            for rule in account.rules
        ]

    async def _try(self, venue: str, account: _Account, weight: float, priority: Priority) -> float:
        """Spend now if all pools allow it: ms to wait, 0 when spent."""
        now = self._clock.now_ms()
        if account.blocked_until_ms > now:
            return account.blocked_until_ms - now
        if not account.rules:
            return 0.0
        try:
            async with store_errors():
                answer = await cast(
                    "Any",
                    self._redis.eval(
                        _SPEND, 1, self._key(venue), *self._arguments(account, weight, priority, now)
                    ),
                )
        except StoreUnavailable:
            return self._alone(account, weight, priority, now)
        account.blocked_until_ms = max(account.blocked_until_ms, int(answer[1]))
        self._remember(
            venue, account, {r.name: float(x) for r, x in zip(account.rules, answer[2:], strict=True)}
        )
        return float(answer[0])

    def _arguments(self, account: _Account, weight: float, priority: Priority, now: int) -> list[str]:
        month, month_end = month_of(now)
        arguments = [str(now)]
        for rule in account.rules:
            window = month if rule.calendar else ""
            arguments += [
                rule.name,
                str(rule.capacity),
                repr(rule.rate / 1_000),
                str(cost_of(rule, weight, priority)),
                str(floor_of(rule, priority)),
                window,
                str(month_end - now),
            ]
        return arguments

    def _alone(self, account: _Account, weight: float, priority: Priority, now: int) -> float:
        wait = max(pool.wait_ms(weight, priority, now) for pool in account.local.values())
        if wait <= 0:
            for pool in account.local.values():
                pool.spend(weight, priority)
        account.left = {name: pool.left for name, pool in account.local.items()}
        return wait

    def _remember(self, venue: str, account: _Account, left: dict[str, float]) -> None:
        account.left = left
        _LEFT.labels(venue).set(min((left[r.name] / r.capacity for r in account.rules), default=1.0))

    def _key(self, venue: str) -> str:
        return keys.budget(venue, self._address)
