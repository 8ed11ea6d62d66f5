"""Rate limits: policies per tier and bucket, and the generic cell rate algorithm (GCRA) that they are counted by."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

BUCKETS: Final = ("reads", "writes", "imports", "auth", "account", "sockets", "credentials")
"""`credentials`: wrong ones, by address, whatever the tier they would have had."""
TIERS: Final = ("anonymous", "free", "pro", "enterprise")


@dataclass(frozen=True, slots=True)
class Policy:
    """`quota` cost units per `window_seconds`, of which `burst` may come at once."""

    name: str
    quota: int
    window_seconds: int
    burst: int

    @property
    def emission_us(self) -> float:
        """The time in microseconds after which one unit comes back."""
        return self.window_seconds * 1_000_000 / self.quota

    @property
    def header(self) -> str:
        """The policy as an item of the `RateLimit-Policy` header."""
        return f'"{self.name}";q={self.quota};w={self.window_seconds}'


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one request. `remaining` whole units are left; times in microseconds, `retry_us` 0 when allowed."""

    allowed: bool
    remaining: int
    retry_us: int
    reset_us: int


def gcra(policy: Policy, tat_us: float, now_us: float, cost: float) -> tuple[Verdict, float]:
    """One decision of GCRA and the new theoretical arrival time.

    With emission interval T and tolerance T * burst: new = max(tat, now) + cost * T; allowed when now >= new - tolerance.
    A refused request costs nothing. Source: ATM Forum Traffic Management 4.0, appendix on the virtual scheduling algorithm.
    """
    emission = policy.emission_us
    tolerance = emission * policy.burst
    new = max(tat_us, now_us) + cost * emission
    wait = new - tolerance - now_us
    if wait > 0:
        left = max(0.0, (now_us + tolerance - max(tat_us, now_us)) / emission)
        return Verdict(False, int(left), math.ceil(wait), math.ceil(max(tat_us, now_us) - now_us)), tat_us
    left = (now_us + tolerance - new) / emission
    return Verdict(True, int(left + 1e-9), 0, math.ceil(new - now_us)), new


_DEFAULTS: Final[dict[tuple[str, str], tuple[int, int, int]]] = {
    ("anonymous", "reads"): (600, 60, 100),
    ("free", "reads"): (1_200, 60, 200),
    ("pro", "reads"): (6_000, 60, 600),
    ("enterprise", "reads"): (60_000_000, 60, 1_000_000),
    ("anonymous", "writes"): (30, 60, 15),
    ("free", "writes"): (300, 60, 100),
    ("pro", "writes"): (1_500, 60, 300),
    ("enterprise", "writes"): (600_000, 60, 10_000),
    ("anonymous", "imports"): (1, 60, 1),
    ("free", "imports"): (60, 60, 20),
    ("pro", "imports"): (300, 60, 60),
    ("enterprise", "imports"): (6_000, 60, 600),
    ("anonymous", "auth"): (60, 60, 30),
    ("free", "auth"): (60, 60, 30),
    ("pro", "auth"): (60, 60, 30),
    ("enterprise", "auth"): (6_000, 60, 600),
    ("anonymous", "account"): (10, 60, 10),
    ("free", "account"): (10, 60, 10),
    ("pro", "account"): (10, 60, 10),
    ("enterprise", "account"): (10, 60, 10),
    ("anonymous", "sockets"): (30, 60, 30),
    ("free", "sockets"): (60, 60, 60),
    ("pro", "sockets"): (300, 60, 300),
    ("enterprise", "sockets"): (60_000, 60, 10_000),
    ("anonymous", "credentials"): (300, 60, 100),
    ("free", "credentials"): (300, 60, 100),
    ("pro", "credentials"): (300, 60, 100),
    ("enterprise", "credentials"): (300, 60, 100),
}
_OVERRIDE: Final = re.compile(r"^([a-z]+)\.([a-z]+)=(\d{1,9})/(\d{1,5})(?::(\d{1,9}))?$")


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one principal's sockets may do: connections at once, subscriptions per connection."""

    connections: int
    subscriptions: int


SOCKETS: Final[dict[str, SocketLimits]] = {
    "anonymous": SocketLimits(10, 200),
    "free": SocketLimits(10, 200),
    "pro": SocketLimits(50, 1_000),
    "enterprise": SocketLimits(100_000, 5_000),
}


class Policies:
    """The policy of every tier and bucket; an unknown tier counts as `free`."""

    def __init__(self, overrides: str = "") -> None:
        """`overrides`: comma list of `<tier>.<bucket>=<quota>/<window seconds>[:<burst>]`. ValueError names the fault."""
        table = {
            (tier, bucket): Policy(f"{tier}-{bucket}", *figures)
            for (tier, bucket), figures in _DEFAULTS.items()
        }
        for text in filter(None, (part.strip() for part in overrides.split(","))):
            found = _OVERRIDE.match(text)
            if found is None or (found[1], found[2]) not in table or 0 in {int(found[3]), int(found[4])}:
                raise ValueError(
                    f"{text!r} is not <tier>.<bucket>=<quota>/<seconds>[:<burst>] with a tier of {', '.join(TIERS)} "
                    f"and a bucket of {', '.join(BUCKETS)}"
                )
            quota, window = int(found[3]), int(found[4])
            burst = int(found[5]) if found[5] else max(1, quota // 6)
            table[found[1], found[2]] = Policy(f"{found[1]}-{found[2]}", quota, window, burst)
        self._table = table

    def table(self) -> list[tuple[tuple[str, str], Policy]]:
        """Every policy by tier and bucket."""
        return list(self._table.items())

    def of(self, tier: str, bucket: str) -> Policy:
        """The policy of a tier in a bucket."""
        return self._table.get((tier, bucket)) or self._table["free", bucket]


def socket_limits(tier: str) -> SocketLimits:
    """The socket limits of a tier."""
    return SOCKETS.get(tier, SOCKETS["free"])
