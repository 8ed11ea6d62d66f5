"""The books of one group of assets, replayed posting by posting: lots, positions, gains with their trail, day ends.

Replaying is the only way to change derived figures: a write replays the touched assets from the checkpoint before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from cryptopulse.portfolio.domain.lots import Lot, LotRow, Method, PackedLot, Pool, Sums
from cryptopulse.portfolio.domain.money import CONTEXT, STEP, ZERO, kept
from cryptopulse.portfolio.domain.postings import FEE_KINDS, INCOME_KINDS, Key, Posting, key_of

DAY_US: Final = 86_400_000_000
DUST: Final = Decimal("1e-12")
"""A disposal that exceeds the holding by at most this part of itself closes the holding."""
UNCOVERED: Final = "uncovered"
"""The lot id of units that were sold without any acquisition on record, at zero cost and on request only."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides how lots are matched; a change replays everything. `account_pools`: lots stay in their account."""

    method: Method = "fifo"
    fees_in_cost: bool = True
    account_pools: bool = False
    dust: Decimal = DUST


class OversellError(ValueError):
    """The first posting in the order of the books that wants more than there is."""

    def __init__(self, posting: Posting, held: Decimal) -> None:
        super().__init__(
            f"transaction {posting.seq} wants {posting.quantity} {posting.asset}, {held} are held"
        )
        self.posting = posting
        self.held = held


class Match(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A part of a lot consumed by a disposal. `fee_leg`: 1 for units that paid a fee (`<tx>#fee`)."""

    seq: int
    fee_leg: int
    kind: str
    at_us: int
    asset: str
    account: str
    lot: str
    acquired_us: int
    quantity: Decimal
    proceeds: Decimal
    cost: Decimal


class DayEnd(NamedTuple):
    """The state of an asset at the end of a UTC day on which it changed. Money is cumulative since the beginning."""

    day: int
    asset: str
    quantity: Decimal
    cost: Decimal
    bare: Decimal
    realised: Decimal
    income: Decimal
    fees: Decimal
    fees_separate: Decimal
    removed: Decimal
    flow_in: Decimal
    flow_out: Decimal


class Missing(NamedTuple):
    """A disposal whose units were not all covered."""

    seq: int
    asset: str
    found: Decimal
    missing: Decimal


class AssetBook:
    """The running state of one asset. All money is in the base currency, cumulative since the beginning.

    `realised` = sum(proceeds - cost). `fees` are all fees, `fees_separate` those outside cost and proceeds.
    """

    __slots__ = (
        "accounts", "asset", "day", "day_over_us", "fees", "fees_separate", "flow_in", "flow_out",
        "income", "missing", "order", "pools", "realised", "removed",
    )  # fmt: skip

    def __init__(self, asset: str) -> None:
        self.asset = asset
        self.pools: dict[str, Pool] = {}
        self.accounts: dict[str, Decimal] = {}
        self.order = 0
        self.day = -1
        self.day_over_us = -(2**63)
        """When a posting belongs to a later day."""
        self.realised = self.income = self.fees = self.fees_separate = ZERO
        self.removed = self.flow_in = self.flow_out = ZERO
        self.missing: list[Missing] = []

    @property
    def quantity(self) -> Decimal:
        """Units held."""
        return sum((pool.quantity for pool in self.pools.values()), ZERO)

    @property
    def cost(self) -> Decimal:
        """Cost of the units held."""
        return sum((pool.cost for pool in self.pools.values()), ZERO)

    @property
    def bare(self) -> Decimal:
        """Cost of the units held, fees left out."""
        return sum((pool.bare for pool in self.pools.values()), ZERO)

    def day_end(self) -> DayEnd:
        """The state as the end of the day of the last posting."""
        quantity = cost = bare = ZERO
        for pool in self.pools.values():
            quantity += pool.quantity
            cost += pool.cost
            bare += pool.bare
        return DayEnd(
            self.day, self.asset, quantity, cost, bare, self.realised, self.income, self.fees,
            self.fees_separate, self.removed, self.flow_in, self.flow_out,
        )  # fmt: skip


@dataclass
class Book:
    """Replays postings in the order of the books. `matches` and `days` grow; whoever stores them takes them out."""

    policy: Policy = field(default_factory=Policy)
    assets: dict[str, AssetBook] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    days: list[DayEnd] = field(default_factory=list)
    last_key: Key | None = None

    def replay(self, postings: Iterable[Posting]) -> None:  # noqa: C901, PLR0912, PLR0915 - see below
        """Apply postings, already in order. Raises `OversellError` at the first that is not covered.

        Acquisitions and disposals, nearly all of every book, are done here and not in methods of their own, and what
        belongs to an asset and account is looked up when these change: a tenth of the time of a long replay each. What an
        account holds changes by what its pool does, so it is added up when the account changes.
        """
        assets, note, policy = self.assets, self.matches.append, self.policy
        fees_in_cost, by_account = policy.fees_in_cost, policy.account_pools
        others = {"R": self._remove, "M": self._move, "S": self._split, "N": self._rename, "F": self._fee}
        book, pool, before = AssetBook(""), None, ZERO
        at_asset: str | None = None
        at_account = ""
        posting: Posting | None = None
        for posting in postings:
            at_us, _, seq, _, op, kind, asset, account, wanted, value, fee, flow, _, acquired, uncovered_ok = posting  # fmt: skip
            if asset != at_asset or account != at_account:
                if pool is not None:
                    _shift(book, at_account, pool.quantity - before)
                at_asset, at_account = asset, account
                book = assets.get(asset) or assets.setdefault(asset, AssetBook(asset))
                pool = book.pools.get(account if by_account else "")
                before = ZERO if pool is None else pool.quantity
            if at_us >= book.day_over_us:
                self._turn_day(book, at_us // DAY_US)
            if flow:
                if flow > ZERO:
                    book.flow_in += flow
                else:
                    book.flow_out -= flow
            if op == "A":
                pool = pool or self._pool(book, account)
                worth = value
                if fee:
                    book.fees += fee
                    if fees_in_cost:
                        worth = value + fee
                    else:
                        book.fees_separate += fee
                book.order = order = book.order + 1
                name = str(seq) if kind != "cash" else f"{seq}#cash"
                opened_us = at_us if acquired is None else acquired
                pool.add(Lot(name, name, opened_us, order, wanted, worth, wanted, worth, value))
                if kind in INCOME_KINDS:
                    book.income += value
            elif op == "D":
                pool = pool or self._pool(book, account)
                covered = wanted if wanted <= pool.quantity else self._covered(book, pool, posting)
                left = value
                if fee:
                    book.fees += fee
                    if fees_in_cost:
                        left = value - fee
                    else:
                        book.fees_separate += fee
                fee_leg = 0
                if kind in FEE_KINDS:
                    fee_leg = 0 if kind == "fee" else 1
                    if kind != "fee_leg":
                        book.fees += value
                        book.fees_separate += value
                units = wanted if uncovered_ok else covered
                realised = book.realised + left
                for lot, quantity, cost, _ in pool.take(covered):
                    if quantity == units:
                        part, left = left, ZERO
                    else:
                        # As `share`, without the call.
                        part = (left * quantity / units).quantize(STEP, None, CONTEXT)
                        left -= part
                        units -= quantity
                    realised -= cost
                    bought = lot.acquired_us
                    note(Match(seq, fee_leg, kind, at_us, asset, account, lot.id, bought, quantity, part, cost))  # fmt: skip
                book.realised = realised
                if left:  # units without any acquisition on record, or a value without units
                    note(
                        Match(seq, fee_leg, kind, at_us, asset, account, UNCOVERED, at_us, units, left, ZERO)
                    )
            else:
                if pool is not None:
                    _shift(book, account, pool.quantity - before)
                others[op](book, posting)
                at_asset = pool = None
        if pool is not None:
            _shift(book, at_account, pool.quantity - before)
        if posting is not None:
            self.last_key = key_of(posting)

    def _turn_day(self, book: AssetBook, day: int) -> None:
        if book.day != day:
            if book.day >= 0:
                self.days.append(book.day_end())
            book.day = day
        book.day_over_us = (day + 1) * DAY_US

    def finish(self) -> None:
        """Note the day ends of the last day of every asset; the book is only read afterwards."""
        self.days.extend(book.day_end() for book in self.assets.values() if book.day >= 0)

    def _pool(self, book: AssetBook, account: str) -> Pool:
        policy = self.policy
        name = account if policy.account_pools else ""
        pool = book.pools.get(name)
        if pool is None:
            pool = book.pools[name] = Pool(policy.method)
        return pool

    def _covered(self, book: AssetBook, pool: Pool, posting: Posting) -> Decimal:
        """How many of the wanted units can be taken: all of them, or what is held within dust or on request."""
        wanted, held = posting.quantity, pool.quantity
        if wanted <= held or wanted - held <= wanted * self.policy.dust:
            return min(wanted, held)
        if not posting.uncovered_ok:
            raise OversellError(posting, held)
        book.missing.append(Missing(posting.seq, posting.asset, held, wanted - held))
        return held

    def _remove(self, book: AssetBook, posting: Posting) -> None:
        pool = self._pool(book, posting.account)
        covered = self._covered(book, pool, posting)
        for _, _, cost, _ in pool.take(covered):
            book.removed += cost
        if posting.fee:
            book.fees += posting.fee
            book.fees_separate += posting.fee
        _shift(book, posting.account, -covered)

    def _move(self, book: AssetBook, posting: Posting) -> None:
        target = posting.target or posting.account
        pool = self._pool(book, posting.account)
        covered = self._covered(book, pool, posting)
        if self.policy.account_pools:
            goal = self._pool(book, target)
            for number, (lot, quantity, cost, bare) in enumerate(pool.take(covered)):
                book.order += 1
                goal.add(_child(lot, f"{posting.seq}.{number}", book.order, quantity, cost, bare))
        _shift(book, posting.account, -covered)
        _shift(book, target, covered)

    def _split(self, book: AssetBook, posting: Posting) -> None:
        for pool in book.pools.values():
            pool.scale(posting.quantity, posting.value)
        for account, quantity in book.accounts.items():
            book.accounts[account] = kept(quantity * posting.quantity / posting.value)

    def _rename(self, book: AssetBook, posting: Posting) -> None:
        """All lots go over to the new asset with basis and dates; the old one is empty afterwards."""
        name = posting.target or posting.asset
        goal = self.assets.get(name)
        if goal is None:
            goal = self.assets[name] = AssetBook(name)
        self._turn_day(goal, posting.at_us // DAY_US)
        number = 0
        for pool_name, pool in sorted(book.pools.items()):
            pool.scale(posting.quantity, posting.value)
            goal_pool = self._pool(goal, pool_name)
            for row in pool.open_lots():
                goal.order += 1
                goal_pool.add(
                    _child(row, f"{posting.seq}.{number}", goal.order, row.remaining, row.cost, row.bare)
                )
                number += 1
        book.pools = {}
        for account, quantity in book.accounts.items():
            _shift(goal, account, kept(quantity * posting.quantity / posting.value))
        book.accounts = {}

    def _fee(self, book: AssetBook, posting: Posting) -> None:
        book.fees += posting.value
        book.fees_separate += posting.value


def _shift(book: AssetBook, account: str, quantity: Decimal) -> None:
    held = book.accounts.get(account, ZERO) + quantity
    if held:
        book.accounts[account] = held
    else:
        book.accounts.pop(account, None)


def _child(lot: Lot, name: str, order: int, quantity: Decimal, cost: Decimal, bare: Decimal) -> Lot:
    return Lot(name, lot.origin, lot.acquired_us, order, quantity, cost, quantity, cost, bare)


class PoolRow(NamedTuple):
    """A pool in a checkpoint."""

    name: str
    lots: list[LotRow]


class AssetRow(NamedTuple):
    """An asset in a checkpoint."""

    asset: str
    order: int
    day: int
    totals: list[Decimal]
    accounts: dict[str, Decimal]
    missing: list[Missing]
    pools: list[PoolRow]


class PackedPoolRow(NamedTuple):
    """A `PoolRow` whose lots are still packed."""

    name: str
    lots: list[PackedLot]


class PackedAssetRow(NamedTuple):
    """An `AssetRow` whose lots are still packed: the same bytes, read for a replay."""

    asset: str
    order: int
    day: int
    totals: list[Decimal]
    accounts: dict[str, Decimal]
    missing: list[Missing]
    pools: list[PackedPoolRow]


PoolSums = dict[str, dict[str, Sums]]
"""Asset -> pool -> its sums."""
_TOTALS: Final = ("realised", "income", "fees", "fees_separate", "removed", "flow_in", "flow_out")


def checkpoint(book: Book, *, shared: bool = False) -> list[AssetRow]:
    """The whole state after the last posting as a value; `shared`: to be encoded at once, see `Pool.packable`."""
    lots_of = Pool.packable if shared else Pool.open_lots
    return [
        AssetRow(
            asset.asset, asset.order, asset.day, [getattr(asset, name) for name in _TOTALS],
            dict(asset.accounts), list(asset.missing),
            [PoolRow(name, lots_of(pool)) for name, pool in sorted(asset.pools.items())],
        )
        for asset in sorted(book.assets.values(), key=lambda asset: asset.asset)
    ]  # fmt: skip


def pool_sums(book: Book) -> PoolSums:
    """What the lots of every pool sum to, so that a replay can go on without reading them all."""
    return {
        asset.asset: {name: (pool.quantity, pool.cost, pool.bare) for name, pool in asset.pools.items()}
        for asset in book.assets.values()
    }


def restore(policy: Policy, rows: Iterable[AssetRow | PackedAssetRow], sums: PoolSums | None = None) -> Book:
    """A book that goes on from a checkpoint exactly as if it had replayed everything before."""
    book = Book(policy)
    for row in rows:
        asset = book.assets[row.asset] = AssetBook(row.asset)
        asset.order, asset.day = row.order, row.day
        for name, value in zip(_TOTALS, row.totals, strict=True):
            setattr(asset, name, value)
        asset.accounts, asset.missing = dict(row.accounts), list(row.missing)
        for pool_row in row.pools:
            pool = asset.pools[pool_row.name] = Pool(policy.method)
            pool.restore(pool_row.lots, sums[row.asset][pool_row.name] if sums else None)
    return book
