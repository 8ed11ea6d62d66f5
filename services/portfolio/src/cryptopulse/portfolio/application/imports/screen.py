"""Which new transactions the books can take: a bad row never sinks a good one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from decimal import Decimal

from cryptopulse.portfolio.domain.book import DUST
from cryptopulse.portfolio.domain.money import ZERO, kept
from cryptopulse.portfolio.domain.postings import Posting, key_of

MAX_ROUNDS = 200


def uncovered(
    postings: Sequence[Posting], new: Collection[int], *, per_account: bool
) -> dict[int, tuple[Decimal, Posting]]:
    """The new transactions that must be left out so that all others are covered: seq -> (held, the posting).

    `postings` are old and new ones of the touched assets. Only quantities are followed. A new disposal that is not
    covered is left out; where an old one becomes uncovered, the newest new disposal before it is.
    """
    ordered = sorted(postings, key=key_of)
    refused: dict[int, tuple[Decimal, Posting]] = {}
    for _ in range(MAX_ROUNDS):
        culprits = _round(ordered, new, refused, per_account=per_account)
        if not culprits:
            return refused
        refused |= culprits
    # So tangled that no end is in sight: every new disposal that is left is refused.
    refused |= {
        p.seq: (ZERO, p) for p in ordered if p.seq in new and p.op in {"D", "R", "M"} and p.seq not in refused
    }
    return refused


def _round(
    ordered: Sequence[Posting], new: Collection[int], refused: Collection[int], *, per_account: bool
) -> dict[int, tuple[Decimal, Posting]]:
    held: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
    takers: dict[str, list[Posting]] = defaultdict(list)
    culprits: dict[int, tuple[Decimal, Posting]] = {}
    for posting in ordered:
        if posting.seq in refused or posting.seq in culprits:
            continue
        place = (posting.asset, posting.account if per_account else "")
        op = posting.op
        if op == "A":
            held[place] += posting.quantity
        elif op in {"D", "R", "M"}:
            have, want = held[place], posting.quantity
            if want > have and want - have > want * DUST and not posting.uncovered_ok:
                if posting.seq in new:
                    culprits[posting.seq] = (have, posting)
                else:
                    guilty = next(
                        (p for p in reversed(takers[posting.asset]) if p.seq not in culprits), posting
                    )
                    culprits[guilty.seq] = (have, guilty)
                    return culprits
                continue
            taken = min(have, want)
            held[place] -= taken
            if op == "M":
                held[posting.asset, (posting.target or "") if per_account else ""] += taken
            elif posting.seq in new:
                takers[posting.asset].append(posting)
        elif op in {"S", "N"}:
            for key in [key for key in held if key[0] == posting.asset]:
                units = kept(held[key] * posting.quantity / posting.value)
                held[key] = ZERO if op == "N" else units
                if op == "N":
                    held[posting.target or "", key[1]] += units
    return culprits
