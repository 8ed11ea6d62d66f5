"""Brings what is derived in line with the ledger: replays the touched groups of assets from the checkpoint before."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.portfolio.application.ports import Portfolio, Segment, Unit
from cryptopulse.portfolio.domain.book import (
    AssetBook,
    AssetRow,
    Book,
    DayEnd,
    Match,
    OversellError,
    PackedAssetRow,
    Policy,
    PoolSums,
    checkpoint,
    pool_sums,
    restore,
)
from cryptopulse.portfolio.domain.money import OutOfRangeError
from cryptopulse.portfolio.domain.postings import Key, Posting
from cryptopulse.portfolio.domain.valuation import Position

SEGMENT: Final = 500
"""Postings per segment: a write at the end of a book replays at most this many."""

LONG_REPLAY: Final = 15_000
"""More postings are replayed beside the loop, so that others are served meanwhile."""

_encode: Final = msgspec.msgpack.Encoder().encode
_states: Final = msgspec.msgpack.Decoder(list[AssetRow])
_packed_states: Final = msgspec.msgpack.Decoder(list[PackedAssetRow])
_sums: Final = msgspec.msgpack.Decoder(PoolSums)
_matches: Final = msgspec.msgpack.Decoder(list[Match])
_days: Final = msgspec.msgpack.Decoder(list[DayEnd])
Touched = Mapping[str, Key | None]
"""Asset -> the earliest place in the books that changed; None: everything."""


def groups_of(assets: Iterable[str], renames: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Asset -> all assets that lots may flow between by renames, sorted; the first names the group."""
    parent: dict[str, str] = {asset: asset for asset in assets}

    def root(asset: str) -> str:
        parent.setdefault(asset, asset)
        while parent[asset] != asset:
            asset = parent[asset]
        return asset

    for old, new in renames:
        parent[root(old)] = root(new)
    members: dict[str, list[str]] = {}
    for asset in parent:
        members.setdefault(root(asset), []).append(asset)
    return {asset: tuple(sorted(group)) for group in members.values() for asset in group}


def states_kept(count: int) -> set[int]:
    """Which of `count` segments keep a checkpoint: the last two, and ever fewer the older they are."""
    keep = {count - 1, count - 2}
    step = 8
    while step <= count:
        last = count // step
        keep |= {number * step - 1 for number in range(max(1, last - 1), last + 1)}
        step *= 8
    return {number for number in keep if number >= 0}


async def rebuild(unit: Unit, portfolio: Portfolio, touched: Touched) -> None:
    """Replay every group that the touched assets belong to now or belonged to before.

    Raises `Invalid` naming the first transaction that is not covered; the unit of work must then be given up.
    """
    stored, renames = await unit.grouping(portfolio.id)
    groups = groups_of([*stored, *touched], renames)
    assets = set(touched)
    for asset in touched:
        old = stored.get(asset)
        assets |= {name for name, component in stored.items() if component == old} if old else set()
    wanted = {groups[asset][0]: groups[asset] for asset in assets}
    # First what is grouped otherwise now: its positions would stand in the way of those of the new groups.
    for component in {stored[asset] for asset in assets if asset in stored} - wanted.keys():
        await unit.drop_component(portfolio.id, component)
    for _, group in sorted(wanted.items()):
        await _rebuild_group(unit, portfolio, group, touched, stored)


async def _rebuild_group(
    unit: Unit, portfolio: Portfolio, group: tuple[str, ...], touched: Touched, stored: Mapping[str, str]
) -> None:
    component = group[0]
    before = {asset for asset, name in stored.items() if name == component}
    regrouped = bool(before - set(group)) or any(stored.get(asset, component) != component for asset in group)
    keys = [touched[asset] for asset in group if asset in touched]
    start = None
    if not regrouped and keys and all(key is not None for key in keys):
        start = await unit.segment_before(
            portfolio.id, component, min(key for key in keys if key is not None)
        )
    postings = await unit.postings(portfolio.id, group, start.last_key if start else None)
    policy = portfolio.policy()
    base = _restored(policy, start) if start else None
    from_no = start.no + 1 if start else 0
    if len(postings) > LONG_REPLAY:
        book, segments = await asyncio.to_thread(replayed, base or Book(policy), postings, from_no)
    else:
        book, segments = replayed(base or Book(policy), postings, from_no)
    if not postings and start is None:
        await unit.drop_component(portfolio.id, component)
        return
    count = from_no + len(segments)
    await unit.replace_segments(portfolio, component, from_no, segments, states_kept(count), SEGMENT)
    await unit.replace_positions(portfolio, component, [_position(asset) for asset in _known(book, group)])


def _restored(policy: Policy, start: Segment) -> Book | None:
    if start.state is None:
        return None
    sums = _sums.decode(start.sums) if start.sums else None
    return restore(policy, _packed_states.decode(start.state), sums)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A replay makes many small values and no cycles: the collector would walk them all again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def replayed(book: Book, postings: Sequence[Posting], from_no: int) -> tuple[Book, list[Segment]]:
    """Replay in segments. Raises `Invalid` where a disposal is not covered or a result does not fit."""
    with _without_collector():
        return _replayed(book, postings, from_no)


def _replayed(book: Book, postings: Sequence[Posting], from_no: int) -> tuple[Book, list[Segment]]:
    keep = states_kept(from_no + -(-len(postings) // SEGMENT))
    segments: list[Segment] = []
    try:
        for offset in range(0, len(postings), SEGMENT):
            part = postings[offset : offset + SEGMENT]
            book.replay(part)
            number = from_no + len(segments)
            kept = number in keep
            state = _encode(checkpoint(book, shared=True)) if kept else None
            sums = _encode(pool_sums(book)) if kept else None
            if offset + SEGMENT >= len(postings):
                book.finish()
            assert book.last_key is not None
            segments.append(
                Segment(
                    number, len(part), book.last_key, _encode(book.matches), _encode(book.days), state, sums
                )
            )
            book.matches, book.days = [], []
    except OversellError as error:
        raise oversold(error) from error
    except OutOfRangeError as error:
        raise Invalid(
            f"The amounts are too large to be kept exactly: {error}.", code="out-of-range"
        ) from error
    return book, segments


def oversold(error: OversellError) -> Invalid:
    """The refusal that names the first offending transaction, when it was, what was held and what was wanted."""
    posting = error.posting
    at = (
        datetime.fromtimestamp(posting.at_us / 1_000_000, UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
    detail = (
        f"Transaction {posting.seq} at {at} takes {format(posting.quantity, 'f')} {posting.asset}, "
        f"but only {format(error.held.normalize(), 'f')} are held at that time."
    )
    return Invalid(detail, code="oversold", errors=(FieldError("/quantity", "oversold", detail),))


def _known(book: Book, group: tuple[str, ...]) -> list[AssetBook]:
    return [book.assets[asset] for asset in group if asset in book.assets]


def _position(asset: AssetBook) -> tuple[Position, list[tuple[int, Decimal, Decimal]]]:
    position = Position(
        asset=asset.asset, quantity=asset.quantity, cost=asset.cost, bare=asset.bare, realised=asset.realised,
        income=asset.income, fees=asset.fees, fees_separate=asset.fees_separate, removed=asset.removed,
        flow_in=asset.flow_in, flow_out=asset.flow_out, accounts=dict(asset.accounts),
    )  # fmt: skip
    return position, [(item.seq, item.found, item.missing) for item in asset.missing]


def matches_of(segment: Segment) -> list[Match]:
    """The lot matches of a segment."""
    return _matches.decode(segment.matches)


def days_of(segment: Segment) -> list[DayEnd]:
    """The day ends of a segment."""
    return _days.decode(segment.days)


def state_of(segment: Segment) -> list[AssetRow]:
    """The checkpoint of a segment, empty where it has none."""
    return _states.decode(segment.state) if segment.state else []


def what_if(policy: Policy, postings: Sequence[Posting]) -> Book:
    """The whole book under another policy; `matches` and `days` hold everything. Raises `Invalid`."""
    book = Book(policy)
    try:
        book.replay(postings)
        book.finish()
    except OversellError as error:
        raise oversold(error) from error
    return book
