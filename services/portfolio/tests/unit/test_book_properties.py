"""Invariants of the books over random ledgers: conservation, independence of order and method, checkpoints, scaling."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptopulse.portfolio.application.replay import groups_of, replayed, state_of, states_kept
from cryptopulse.portfolio.domain import book as books
from cryptopulse.portfolio.domain.book import Book, Policy, checkpoint, pool_sums, restore
from cryptopulse.portfolio.domain.lots import METHODS
from cryptopulse.portfolio.domain.money import ZERO, use_money_context
from cryptopulse.portfolio.domain.postings import Posting, key_of
from cryptopulse.portfolio.domain.transactions import Transaction, postings_of

D = Decimal
settings.register_profile("books", deadline=None)  # a busy machine is no wrong book
settings.load_profile("books")
MINUTE = 60_000_000
START = 1_600_000_000_000_000
amounts = st.decimals("0.000001", "1000000", places=6).filter(lambda value: value > 0)
METHOD = st.sampled_from(METHODS)


@pytest.fixture(autouse=True)
def _sixty_digits() -> None:
    use_money_context()


@st.composite
def ledgers(
    draw: Any, *, kinds: tuple[str, ...] = ("buy", "sell", "staking", "transfer", "split", "trade", "gift")
) -> list[Transaction]:
    """Transactions over BTC and ETH, minutes apart, none of which wants more than there is."""
    held = {"BTC": ZERO, "ETH": ZERO}
    result: list[Transaction] = []
    for number in range(draw(st.integers(2, 14))):
        asset = draw(st.sampled_from(["BTC", "ETH"]))
        kind = draw(st.sampled_from(kinds))
        quantity, price = draw(amounts), draw(amounts)
        if kind in {"sell", "transfer", "trade", "gift"}:
            if held[asset] <= 0:
                kind = "buy"
            else:
                part = draw(st.sampled_from([D("0.25"), D("0.5"), D(1)]))
                quantity = (held[asset] * part).quantize(D("1e-18"))
                if not 0 < quantity <= held[asset]:
                    kind, quantity = "buy", draw(amounts)
        fee = draw(st.sampled_from([ZERO, D("0.5"), D("1.25")]))
        more: dict[str, Any] = {}
        if kind == "split":
            if not held[asset]:
                continue
            more = {"counter_quantity": D(2)}
            quantity, fee = D(1), ZERO
            held[asset] *= 2
        elif kind == "trade":
            other = "ETH" if asset == "BTC" else "BTC"
            more = {"counter_asset": other, "counter_quantity": draw(amounts)}
            held[asset] -= quantity
            held[other] += more["counter_quantity"]
        elif kind == "transfer":
            more = {"to_account": draw(st.sampled_from(["cold", "other"]))}
            fee = ZERO
        elif kind in {"sell", "gift"}:
            held[asset] -= quantity
        else:
            held[asset] += quantity
        value = (quantity * price).quantize(D("1e-24"))
        result.append(
            Transaction(
                kind=kind, at_us=START + number * MINUTE, asset=asset, quantity=quantity, price=price, currency="USD",
                total=value, value=value, fee=fee or None, fee_asset="USD" if fee else None, fee_value=fee, **more,
            )
        )  # fmt: skip
    return result


def legs(ledger: list[Transaction], mode: Any = "implicit") -> list[Posting]:
    found = [leg for number, tx in enumerate(ledger, 1) for leg in postings_of(tx, number, mode)]
    return sorted(found, key=key_of)


def run(postings: list[Posting], method: Any = "fifo", **policy: Any) -> Book:
    book = Book(Policy(method=method, **policy))
    book.replay(postings)
    return book


@given(ledgers(), METHOD)
def test_lots_sum_to_the_position_and_accounts_too(ledger: list[Transaction], method: Any) -> None:
    for asset in run(legs(ledger), method).assets.values():
        lots = [lot for pool in asset.pools.values() for lot in pool.open_lots()]
        assert sum((lot.remaining for lot in lots), ZERO) == asset.quantity
        assert sum((lot.cost for lot in lots), ZERO) == asset.cost
        assert sum((lot.bare for lot in lots), ZERO) == asset.bare
        assert sum(asset.accounts.values(), ZERO) == asset.quantity


@given(ledgers(), METHOD)
def test_cost_in_is_cost_out_plus_cost_remaining_exactly(ledger: list[Transaction], method: Any) -> None:
    postings = legs(ledger)
    book = run(postings, method)
    for asset in book.assets.values():
        cost_in = sum((p.value + p.fee for p in postings if p.op == "A" and p.asset == asset.asset), ZERO)
        cost_out = sum((m.cost for m in book.matches if m.asset == asset.asset), ZERO)
        assert cost_in == cost_out + asset.removed + asset.cost


@given(ledgers(kinds=("buy", "sell", "staking", "trade")))
def test_net_pnl_is_the_same_under_every_method_once_closed_and_under_both_fee_policies_always(
    ledger: list[Transaction],
) -> None:
    def net(book: Book, price: Decimal) -> Decimal:
        return sum(
            (
                a.realised + a.income + a.quantity * price - a.cost - a.fees_separate
                for a in book.assets.values()
            ),
            ZERO,
        )

    postings = legs(ledger)
    for method in METHODS:
        inside, outside = run(postings, method), run(postings, method, fees_in_cost=False)
        assert abs(net(inside, D(7)) - net(outside, D(7))) <= D("1e-18")
    last = START + 10**6 * MINUTE
    closing = [
        Posting(last, 2, 10**6, n, "D", "sell", a.asset, "main", a.quantity, a.quantity * 3, ZERO, ZERO)
        for n, a in enumerate(run(postings).assets.values())
        if a.quantity
    ]
    closed = [run([*postings, *closing], method) for method in METHODS]
    assert len({net(book, D(1)) for book in closed}) == 1
    assert all(a.quantity == 0 and a.cost == 0 for book in closed for a in book.assets.values())


@given(ledgers(), METHOD, st.randoms())
def test_the_order_of_entry_is_irrelevant(ledger: list[Transaction], method: Any, random: Any) -> None:
    postings = legs(ledger)
    shuffled = list(postings)
    random.shuffle(shuffled)
    shuffled.sort(key=key_of)
    assert checkpoint(run(postings, method)) == checkpoint(run(shuffled, method))


@given(ledgers(), METHOD, st.data(), st.booleans())
def test_replay_from_any_checkpoint_equals_the_full_replay(
    ledger: list[Transaction], method: Any, data: Any, per_account: bool
) -> None:
    postings = legs(ledger)
    policy = Policy(method=method, account_pools=False)
    if per_account:
        postings = [p for p in postings if p.op != "M"]
        policy = Policy(method=method, account_pools=True)
    cut = data.draw(st.integers(0, len(postings)))
    full = Book(policy)
    full.replay(postings)
    full.finish()
    first = Book(policy)
    first.replay(postings[:cut])
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(checkpoint(first)), type=list[books.AssetRow])
    second = restore(policy, stored)
    second.replay(postings[cut:])
    second.finish()
    assert checkpoint(second) == checkpoint(full)
    assert [*first.matches, *second.matches] == full.matches
    assert {(d.asset, d.day): d for d in [*first.days, *second.days]} == {
        (d.asset, d.day): d for d in full.days
    }


@given(ledgers(), METHOD, st.data())
def test_replay_from_packed_lots_packs_the_same_again(
    ledger: list[Transaction], method: Any, data: Any
) -> None:
    """Some units come with an older date of purchase, so that lots are put between packed ones."""
    policy = Policy(method=method)
    postings = [
        p._replace(acquired_us=p.at_us - data.draw(st.sampled_from([0, 90, 10**6])) * MINUTE)
        if p.op == "A" and data.draw(st.booleans())
        else p
        for p in legs(ledger)
    ]
    cut, again = sorted((data.draw(st.integers(0, len(postings))), data.draw(st.integers(0, len(postings)))))
    full = Book(policy)
    full.replay(postings)
    book = Book(policy)
    book.replay(postings[:cut])
    for part in (postings[cut:again], postings[again:]):
        stored = msgspec.msgpack.encode(checkpoint(book, shared=True))
        packed = msgspec.msgpack.decode(stored, type=list[books.PackedAssetRow])
        book = restore(policy, packed, pool_sums(book))
        assert msgspec.msgpack.encode(checkpoint(book, shared=True)) == stored
        book.replay(part)
    assert checkpoint(book) == checkpoint(full)
    assert pool_sums(book) == pool_sums(full)


@given(ledgers(kinds=("buy", "sell", "staking", "gift")), METHOD)
def test_scaling_all_quantities_scales_amounts_and_no_percentages(
    ledger: list[Transaction], method: Any
) -> None:
    factor = D(8)
    scaled = [
        p._replace(quantity=p.quantity * factor, value=p.value * factor, fee=p.fee * factor)
        for p in legs(ledger)
    ]
    small, large = run(legs(ledger), method), run(scaled, method)
    for name, asset in small.assets.items():
        twin = large.assets[name]
        assert twin.quantity == asset.quantity * factor
        assert abs(twin.realised - asset.realised * factor) <= D("1e-20") * len(ledger)
        assert abs(twin.cost - asset.cost * factor) <= D("1e-20") * len(ledger)


@given(ledgers(kinds=("buy", "sell", "transfer")), METHOD)
def test_transfers_change_neither_gains_nor_cost(ledger: list[Transaction], method: Any) -> None:
    with_them, without = (
        run(legs(ledger), method),
        run(legs([t for t in ledger if t.kind != "transfer"]), method),
    )
    for name, asset in without.assets.items():
        assert with_them.assets[name].realised == asset.realised
        assert with_them.assets[name].cost == asset.cost


@settings(max_examples=30)
@given(st.integers(1, 1800), st.sampled_from(["fifo", "hifo", "average"]))
def test_segments_end_in_the_same_state_as_one_replay(count: int, method: Any) -> None:
    postings = [
        Posting(START + n * MINUTE, 0 if n % 3 else 2, n, 0, "A" if n % 3 or not n else "D", "buy", "BTC", "main",
                D(1), D(100 + n % 7), ZERO, ZERO)
        for n in range(count)
    ]  # fmt: skip
    whole = run(postings, method)
    book, segments = replayed(Book(Policy(method=method)), postings, 0)
    assert checkpoint(book) == checkpoint(whole)
    assert sum(s.postings for s in segments) == count
    assert state_of(segments[-1]) == checkpoint(whole)
    kept = {s.no for s in segments if s.state is not None}
    assert kept == states_kept(len(segments))


def test_kept_states_grow_with_the_logarithm_of_the_book() -> None:
    assert len(states_kept(2000)) <= 20
    assert states_kept(1) == {0}


def test_renames_group_assets_and_nothing_else() -> None:
    groups = groups_of(["A", "B", "C", "D"], [("A", "B"), ("B", "C")])
    assert groups["A"] == groups["C"] == ("A", "B", "C")
    assert groups["D"] == ("D",)
