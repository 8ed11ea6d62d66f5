"""The atom of the books: one signed effect of a transaction on one asset, already valued in the base currency."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, NamedTuple

Op = Literal["A", "D", "R", "M", "S", "N", "F"]
"""Acquire, dispose, remove without gain, move between accounts, split, rename, fee in money that is not kept."""

ACQUIRE: Final = "A"
DISPOSE: Final = "D"
REMOVE: Final = "R"
MOVE: Final = "M"
SPLIT: Final = "S"
RENAME: Final = "N"
FEE: Final = "F"

RANK: Final[dict[str, int]] = {"A": 0, "M": 1, "S": 1, "N": 1, "D": 2, "R": 2, "F": 2}
"""At equal times acquisitions come before transfers before disposals: no false oversell."""

INCOME_KINDS: Final = frozenset({"staking", "interest", "airdrop", "mining", "reward", "income"})
FEE_KINDS: Final = frozenset({"fee", "fee_expense", "fee_leg"})
"""Disposals that pay a fee: an expense of their own, but for `fee_leg`, whose value is inside the main leg already."""


class Posting(NamedTuple):
    """One effect on one asset. Times in microseconds UTC; `value`, `fee` and `flow` in the base currency.

    A: `quantity` units for `value` (+ `fee`). D: units for `value` (- `fee`). R: units leave, no gain. M: units go to
    account `target`. S: `quantity` new units for `value` old ones. N: as S, and the asset becomes `target`.
    `flow` is what was put into (+) or taken out of (-) the asset at market value, which returns are measured against.
    Order of the books: (`at_us`, `rank`, `seq`, `leg`); `seq` is the transaction's id.
    """

    at_us: int
    rank: int
    seq: int
    leg: int
    op: str
    kind: str
    asset: str
    account: str
    quantity: Decimal
    value: Decimal
    fee: Decimal
    flow: Decimal
    target: str | None = None
    acquired_us: int | None = None
    uncovered_ok: bool = False


Key = tuple[int, int, int, int]
"""The place of a posting in the order of the books."""


def key_of(posting: Posting) -> Key:
    """Where this posting stands in the order."""
    return (posting.at_us, posting.rank, posting.seq, posting.leg)
