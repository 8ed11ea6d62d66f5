"""Lots and which of them a disposal consumes: FIFO, LIFO, HIFO, LOFO and average cost, exact to the last digit.

The cost that a part of a lot takes is `cost_remaining * q / quantity_remaining` with 24 decimals, and all of it when the
lot ends: no stored unit cost, no residue, cost in = cost out + cost remaining.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from copy import copy
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any, Final, Literal

import msgspec

from cryptopulse.portfolio.domain.money import CONTEXT, STEP, ZERO, kept, share

Method = Literal["fifo", "lifo", "hifo", "lofo", "average"]
METHODS: Final[tuple[Method, ...]] = ("fifo", "lifo", "hifo", "lofo", "average")


class Lot(msgspec.Struct, array_like=True, gc=False):
    """Units acquired at one time. `cost` has the fees of its purchase inside (by policy), `bare` never has.

    `id` derives from the transaction that opened it, so it is the same after every replay; `origin` is the first lot
    of a chain of moves and renames; `order` breaks ties of equal times. Also the form of lots in checkpoints.
    """

    id: str
    origin: str
    acquired_us: int
    order: int
    opened: Decimal
    opened_cost: Decimal
    remaining: Decimal
    cost: Decimal
    bare: Decimal


LotRow = Lot
PackedLot = msgspec.Raw
"""A lot in the form of checkpoints. Most lots pass a write untouched and are written again as they were read."""
Sums = tuple[Decimal, Decimal, Decimal]
"""Units, cost and bare cost of a pool."""
Taken = tuple[Lot, Decimal, Decimal, Decimal]
"""A part of a lot that was consumed: the lot, units, cost, bare cost."""


_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Lot).decode
_split: Final = msgspec.msgpack.Decoder(list[PackedLot]).decode


def _age(lot: Lot) -> tuple[int, int]:
    return lot.acquired_us, lot.order


class Pool:
    """The open lots of one asset (and account, when lots are kept per account) under one method.

    `quantity` is the sum of the lots' remaining units, `cost` and `bare` the sums of their costs: always exactly.
    Lots come nearly always in the order of their age, so methods that go by age keep them in it, and only those that go
    by cost need a heap. Beside each lot by age stands its packed form, as long as nothing was taken from it since it was
    packed; a lot that came from a checkpoint is only unpacked when it is consumed.
    """

    __slots__ = ("_aged", "_heap", "_method", "_packed", "bare", "cost", "quantity")

    def __init__(self, method: Method) -> None:
        self._method = method
        self._aged: deque[Lot | None] | None = None if method in {"hifo", "lofo"} else deque()
        self._packed: deque[PackedLot | None] = deque()
        """As long as `_aged`; of each pair one at least is there."""
        self._heap: list[tuple[Decimal, int, int, Lot]] = []
        self.quantity = ZERO
        self.cost = ZERO
        self.bare = ZERO

    def add(self, lot: Lot) -> None:
        """Take a lot in."""
        aged = self._aged
        if aged and (last := aged[-1]) is not None and last.acquired_us < lot.acquired_us:
            aged.append(lot)
            self._packed.append(None)
        else:
            self._push(lot)
        self.quantity += lot.remaining
        self.cost += lot.cost
        self.bare += lot.bare

    def _push(self, lot: Lot) -> None:
        aged = self._aged
        if aged is None:
            unit = lot.opened_cost / lot.opened
            heappush(self._heap, (-unit if self._method == "hifo" else unit, lot.acquired_us, lot.order, lot))
        elif not aged or (aged[-1] or self._unpacked(-1)).acquired_us < lot.acquired_us:
            aged.append(lot)
            self._packed.append(None)
        else:
            place = bisect_right(self._lots(), _age(lot), key=_age)
            aged.insert(place, lot)
            self._packed.insert(place, None)

    def _unpacked(self, place: int) -> Lot:
        aged, packed = self._aged, self._packed[place]
        assert aged is not None
        assert packed is not None
        lot = aged[place] = _unpack(packed)
        return lot

    def _lots(self) -> list[Lot]:
        """Those that are open, oldest first."""
        if self._aged is not None:
            return [lot or self._unpacked(place) for place, lot in enumerate(self._aged)]
        return sorted((entry[3] for entry in self._heap), key=_age)

    def take(self, quantity: Decimal) -> list[Taken]:
        """Consume units in the method's order. The caller has made sure that the pool holds them."""
        if self._method == "average":
            return self._take_average(quantity)
        taken: list[Taken] = []
        aged, packed, heap = self._aged, self._packed, self._heap
        end = -1 if self._method == "lifo" else 0
        left = quantity
        all_cost, all_bare = self.cost, self.bare
        while left:
            lot = heap[0][3] if aged is None else aged[end] or self._unpacked(end)
            part, cost, bare = lot.remaining, lot.cost, lot.bare
            if part <= left:
                if aged is None:
                    heappop(heap)
                else:
                    del aged[end], packed[end]
            else:
                whole, lot_cost, lot_bare = part, cost, bare
                part = left
                cost = (lot_cost * part / whole).quantize(STEP, None, CONTEXT)  # `share`, without the call
                bare = (
                    cost if lot_bare == lot_cost else (lot_bare * part / whole).quantize(STEP, None, CONTEXT)
                )
                lot.remaining, lot.cost, lot.bare = whole - part, lot_cost - cost, lot_bare - bare
                if aged is not None:
                    packed[end] = None
            left -= part
            all_cost -= cost
            all_bare -= bare
            taken.append((lot, part, cost, bare))
        self.cost, self.bare = all_cost, all_bare
        self.quantity -= quantity
        return taken

    def _take_average(self, quantity: Decimal) -> list[Taken]:
        """A share of the pool's cost leaves; lots end oldest first so that dates and holding periods stay known."""
        cost = share(self.cost, quantity, self.quantity)
        bare = share(self.bare, quantity, self.quantity)
        parts: list[tuple[Lot, Decimal]] = []
        left = quantity
        aged = self._aged
        assert aged is not None
        while left:
            lot = aged[0] or self._unpacked(0)
            part = min(lot.remaining, left)
            lot.remaining -= part
            if not lot.remaining:
                del aged[0], self._packed[0]
            parts.append((lot, part))
            left -= part
        taken: list[Taken] = []
        cost_left, bare_left, units_left = cost, bare, quantity
        for lot, part in parts:
            part_cost = share(cost_left, part, units_left)
            part_bare = share(bare_left, part, units_left)
            taken.append((lot, part, part_cost, part_bare))
            cost_left, bare_left, units_left = cost_left - part_cost, bare_left - part_bare, units_left - part
        self.quantity -= quantity
        self.cost -= cost
        self.bare -= bare
        return taken

    def scale(self, new: Decimal, old: Decimal) -> None:
        """Multiply all units by new/old; costs and dates stay. A unit below 24 decimals is rounded half-even."""
        lots = self._lots()
        self._heap, self._packed = [], deque()
        if self._aged is not None:
            self._aged = deque()
        self.quantity = ZERO
        for lot in lots:
            lot.remaining = kept(lot.remaining * new / old)
            lot.opened = kept(lot.opened * new / old)
            self.quantity += lot.remaining
        for lot in lots:
            if lot.remaining:
                self._push(lot)
            elif self._method != "average":
                self.cost -= lot.cost
                self.bare -= lot.bare

    def open_lots(self) -> list[LotRow]:
        """The open lots, oldest first, as copies. Under average cost every unit carries the pool's cost."""
        lots = self._lots()
        if self._method != "average":
            return [copy(lot) for lot in lots]
        rows: list[LotRow] = []
        units, cost, bare = self.quantity, self.cost, self.bare
        for lot in lots:
            part_cost, part_bare = share(cost, lot.remaining, units), share(bare, lot.remaining, units)
            rows.append(msgspec.structs.replace(lot, cost=part_cost, bare=part_bare))
            units, cost, bare = units - lot.remaining, cost - part_cost, bare - part_bare
        return rows

    def packable(self) -> list[Any]:
        """As `open_lots`, to be encoded at once. What is packed stays so: later checkpoints hold most lots unchanged."""
        if self._method == "average":
            return self.open_lots()
        if self._aged is None:
            return self._lots()
        fresh = [place for place, row in enumerate(self._packed) if row is None]
        rows = list(self._packed)
        lots = list(self._aged)
        for place, row in zip(fresh, _split(_pack([lots[place] for place in fresh])), strict=True):
            rows[place] = row
        self._packed = deque(rows)
        return rows

    def restore(self, rows: Sequence[Lot | PackedLot], sums: Sums | None = None) -> None:
        """Put the lots of a checkpoint back. Where lots go by age and their sums are known, packed ones stay packed."""
        if sums is None or self._method not in {"fifo", "lifo"}:
            for row in rows:
                self.add(copy(row) if isinstance(row, Lot) else _unpack(row))
            return
        self._aged = deque(copy(row) if isinstance(row, Lot) else None for row in rows)
        self._packed = deque(None if isinstance(row, Lot) else row for row in rows)
        self.quantity, self.cost, self.bare = sums
