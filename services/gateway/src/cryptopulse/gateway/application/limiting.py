"""Which policy a request falls under, and whom it is counted for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import LimitExceeded
from cryptopulse.gateway.application.ports import Limiter
from cryptopulse.gateway.domain.limits import Policies, Policy, Verdict

OPEN: Final = frozenset({"reads", "credentials"})
"""What is counted locally while the store is away; everything else is refused then."""


class OverLimitError(LimitExceeded):
    """Over a limit, with what the headers need."""

    def __init__(self, policy: Policy, verdict: Verdict) -> None:
        seconds = verdict.retry_us / 1_000_000
        super().__init__(
            f"the limit {policy.quota} per {policy.window_seconds} s ({policy.name}) is used up: wait {seconds:.1f} s",
            code="quota-exceeded",
            retry_after_seconds=seconds,
        )
        self.policy = policy
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Counted:
    """A request that was let through; `verdict` None when a local bucket stood in for the store."""

    policy: Policy
    verdict: Verdict | None


def network_of(address: str) -> str:
    """Whom an anonymous caller is counted as: the address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return address


class Limits:
    """Counts requests by credential, else by address. Reads pass when the store is away, writes do not."""

    def __init__(self, policies: Policies, limiter: Limiter) -> None:
        self._policies = policies
        self._limiter = limiter

    def table(self) -> list[tuple[tuple[str, str], Policy]]:
        """The policies in force by tier and bucket."""
        return self._policies.table()

    def local(self, identity: Identity, address: str, bucket: str, cost: float) -> Counted | None:
        """A verdict without asking the store, None when it must be asked (the hot path). Raises `OverLimitError`."""
        policy = self._policies.of(identity.tier, bucket)
        verdict = self._limiter.take_local(policy, self._principal(identity, address), cost)
        return None if verdict is None else self._judge(policy, verdict)

    async def count(self, identity: Identity, address: str, bucket: str, cost: float) -> Counted:
        """Count one request. Raises `OverLimitError`; `StoreUnavailable` for what must not pass uncounted."""
        policy = self._policies.of(identity.tier, bucket)
        verdict = await self._limiter.take(
            policy, self._principal(identity, address), cost, open_on_failure=bucket in OPEN
        )
        return Counted(policy, None) if verdict is None else self._judge(policy, verdict)

    async def count_account(self, account: str) -> None:
        """Count one try at an account's password, from wherever it comes."""
        policy = self._policies.of("anonymous", "account")
        verdict = await self._limiter.take(policy, account, 1, open_on_failure=False)
        if verdict is not None:
            self._judge(policy, verdict)

    def _principal(self, identity: Identity, address: str) -> str:
        return identity.principal if identity.user_id is not None else f"ip:{network_of(address)}"

    def _judge(self, policy: Policy, verdict: Verdict) -> Counted:
        if not verdict.allowed:
            raise OverLimitError(policy, verdict)
        return Counted(policy, verdict)
