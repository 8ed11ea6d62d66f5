"""What each type of transaction does to the books, in small tables worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.portfolio.domain.book import UNCOVERED, Book, OversellError, Policy
from cryptopulse.portfolio.domain.money import ZERO, use_money_context
from cryptopulse.portfolio.domain.postings import key_of
from cryptopulse.portfolio.domain.transactions import Transaction, TransactionRefusedError, check, postings_of

D = Decimal
DAY = 86_400_000_000


@pytest.fixture(autouse=True)
def _sixty_digits() -> None:
    use_money_context()


def tx(
    kind: Any, day: int, asset: str = "BTC", quantity: str = "1", value: str = "0", **more: Any
) -> Transaction:
    names = ("counter_quantity", "fee", "fee_value", "cost_basis", "total")
    more = {name: D(v) if name in names and isinstance(v, str) else v for name, v in more.items()}
    return Transaction(kind=kind, at_us=day * DAY, asset=asset, quantity=D(quantity), value=D(value), **more)


def book_of(*transactions: Transaction, mode: Any = "implicit", **policy: Any) -> Any:
    found = sorted(
        (leg for n, t in enumerate(transactions, 1) for leg in postings_of(t, n, mode)), key=key_of
    )
    book = Book(Policy(**policy))
    book.replay(found)
    return book


def flows(book: Book) -> Decimal:
    return sum((a.flow_in - a.flow_out for a in book.assets.values()), ZERO)


def test_a_coin_to_coin_trade_sells_at_market_value_and_buys_at_the_same_cost() -> None:
    book = book_of(
        tx("buy", 1, value="100"), tx("trade", 2, value="150", counter_asset="ETH", counter_quantity="10")
    )
    assert book.assets["BTC"].realised == 50
    assert book.assets["BTC"].quantity == 0
    assert book.assets["ETH"].cost == 150
    assert flows(book) == 100


def test_a_fee_in_a_third_asset_is_disposed_of_at_market_value_and_joins_the_cost() -> None:
    book = book_of(
        tx("buy", 1, asset="BNB", quantity="10", value="1000"),
        tx("buy", 2, value="5000", fee_asset="BNB", fee="0.5", fee_value="60"),
    )
    assert book.assets["BTC"].cost == 5060
    assert book.assets["BNB"].quantity == D("9.5")
    assert book.assets["BNB"].realised == 60 - 50
    assert [(m.seq, m.fee_leg, m.proceeds) for m in book.matches] == [(2, 1, 60)]
    assert flows(book) == 6000


def test_a_fee_in_the_sold_coin_takes_units_beside_the_sold_ones() -> None:
    book = book_of(
        tx("buy", 1, quantity="2", value="200"),
        tx("sell", 2, quantity="1", value="150", fee_asset="BTC", fee="0.1", fee_value="15"),
    )
    asset = book.assets["BTC"]
    assert asset.quantity == D("0.9")
    assert sum((m.proceeds for m in book.matches), ZERO) == 150
    assert asset.realised == 150 - 110


def test_transfers_between_accounts_keep_basis_and_date_and_the_network_fee_is_a_disposal() -> None:
    book = book_of(
        tx("buy", 1, quantity="2", value="200"),
        tx("transfer", 5, quantity="1", to_account="cold", fee_asset="BTC", fee="0.1", fee_value="12"),
        tx("sell", 9, quantity="1", value="300", account="cold"),
        account_pools=True,
    )
    fee, sale = book.matches
    assert (fee.fee_leg, fee.cost, fee.proceeds) == (1, 10, 12)
    assert (sale.account, sale.acquired_us, sale.cost) == ("cold", 1 * DAY, 100)
    assert book.assets["BTC"].accounts == {"main": D("0.9")}
    assert book.assets["BTC"].fees_separate == 12
    with pytest.raises(OversellError):
        book_of(tx("buy", 1), tx("sell", 2, account="cold", value="1"), account_pools=True)


def test_pools_per_account_match_lots_of_their_own_account_only() -> None:
    bought = (tx("buy", 1, value="100", account="a"), tx("buy", 2, value="500", account="b"))
    sold = tx("sell", 3, value="600", account="b")
    assert book_of(*bought, sold, account_pools=True).assets["BTC"].realised == 100
    assert book_of(*bought, sold).assets["BTC"].realised == 500


def test_a_transfer_in_keeps_the_basis_and_date_it_is_given_and_flows_at_market_value() -> None:
    book = book_of(
        tx("transfer_in", 5, value="900", cost_basis="100", acquired_us=1 * DAY), tx("buy", 2, value="50"),
        tx("sell", 6, value="1000"),
    )  # fmt: skip
    assert book.matches[0].acquired_us == 1 * DAY
    assert book.assets["BTC"].realised == 900
    assert flows(book) == 900 + 50 - 1000


def test_income_is_income_and_not_a_flow() -> None:
    book = book_of(tx("staking", 1, value="40"), tx("sell", 2, value="70"))
    assert (book.assets["BTC"].income, book.assets["BTC"].realised) == (40, 30)
    assert book.assets["BTC"].flow_in == 0


def test_gifts_and_losses_remove_lots_without_gain_and_only_the_gift_is_a_flow() -> None:
    book = book_of(
        tx("buy", 1, quantity="3", value="300"), tx("gift", 2, value="500"), tx("lost", 3, value="500")
    )
    asset = book.assets["BTC"]
    assert (asset.removed, asset.realised, asset.quantity) == (200, 0, 1)
    assert (asset.flow_in, asset.flow_out) == (300, 500)


def test_a_split_scales_units_and_not_cost_or_dates() -> None:
    book = book_of(
        tx("buy", 1, quantity="3", value="300"),
        tx("split", 2, quantity="1", counter_quantity="10"),
        tx("sell", 3, quantity="15", value="600"),
    )
    assert book.assets["BTC"].quantity == 15
    assert (book.matches[0].cost, book.matches[0].acquired_us) == (150, 1 * DAY)


def test_a_rename_carries_lots_over_with_basis_dates_and_accounts() -> None:
    book = book_of(
        tx("buy", 1, asset="OLD", quantity="10", value="100", account="cold"),
        tx("rename", 2, asset="OLD", quantity="10", counter_asset="NEW", counter_quantity="1"),
        tx("sell", 3, asset="NEW", quantity="1", value="170", account="cold"),
    )
    assert book.assets["OLD"].quantity == 0
    assert book.assets["NEW"].realised == 70
    assert book.matches[0].acquired_us == 1 * DAY
    assert book.assets["NEW"].accounts == {}


def test_explicit_cash_is_an_asset_and_only_deposits_are_flows() -> None:
    book = book_of(
        tx("deposit", 1, asset="USD", quantity="1000", value="1000"),
        tx("buy", 2, value="600", currency="USD", total="600", fee_asset="USD", fee="1", fee_value="1"),
        tx("sell", 3, value="700", currency="USD", total="700", fee_asset="USD", fee="2", fee_value="2"),
        mode="explicit",
    )
    assert book.assets["USD"].quantity == 1000 - 601 + 700 - 2
    assert book.assets["BTC"].realised == 700 - 2 - 601
    assert flows(book) == 1000
    with pytest.raises(OversellError) as found:
        book_of(tx("buy", 2, value="600", currency="USD", total="600"), mode="explicit")
    assert found.value.posting.asset == "USD"


def test_at_equal_times_what_comes_is_there_for_what_goes() -> None:
    assert book_of(tx("sell", 1, value="5"), tx("buy", 1, value="4")).assets["BTC"].realised == 1


def test_an_uncovered_part_is_taken_at_zero_cost_only_on_request_and_is_listed() -> None:
    sale = tx("sell", 2, quantity="3", value="90")
    with pytest.raises(OversellError) as refused:
        book_of(tx("buy", 1, value="10"), sale)
    assert refused.value.held == 1
    assert refused.value.posting.seq == 2
    book = book_of(tx("buy", 1, value="10"), tx("sell", 2, quantity="3", value="90", allow_uncovered=True))
    assert [(m.lot == UNCOVERED, m.proceeds, m.cost) for m in book.matches] == [
        (False, 30, 10),
        (True, 60, 0),
    ]
    assert book.assets["BTC"].missing[0].missing == 2


def test_dust_beyond_the_holding_closes_it_with_cost_exactly_zero() -> None:
    book = book_of(
        tx("buy", 1, quantity="1", value="10"), tx("sell", 2, quantity="1.0000000000005", value="20")
    )
    assert (book.assets["BTC"].quantity, book.assets["BTC"].cost, book.assets["BTC"].realised) == (0, 0, 10)


def test_ties_of_hifo_and_lofo_go_to_the_earliest() -> None:
    lots = [
        tx("buy", 1, value="10"),
        tx("buy", 2, value="30"),
        tx("buy", 3, value="30"),
        tx("buy", 4, value="10"),
    ]
    sold = tx("sell", 5, quantity="2", value="100")
    assert [m.lot for m in book_of(*lots, sold, method="hifo").matches] == ["2", "3"]
    assert [m.lot for m in book_of(*lots, sold, method="lofo").matches] == ["1", "4"]
    assert [m.lot for m in book_of(*lots, sold, method="lifo").matches] == ["4", "3"]
    average = book_of(*lots, sold, method="average")
    assert [m.cost for m in average.matches] == [20, 20]


@pytest.mark.parametrize(
    ("transaction", "field"),
    [
        (tx("trade", 1, value="1"), "counter_asset"),
        (tx("split", 1), "counter_quantity"),
        (tx("rename", 1, counter_asset="BTC"), "counter_asset"),
        (tx("transfer", 1, to_account="main"), "to_account"),
        (tx("buy", 1, quantity="0"), "quantity"),
        (tx("buy", 1, quantity="-1"), "quantity"),
        (tx("buy", 1, fee="-1"), "fee"),
        (tx("buy", 99), "timestamp"),
        (tx("transfer_in", 1, acquired_us=2 * DAY), "acquired_at"),
    ],
)
def test_what_means_nothing_is_refused_naming_the_field(transaction: Transaction, field: str) -> None:
    with pytest.raises(TransactionRefusedError) as refused:
        check(transaction, 10 * DAY)
    assert refused.value.field == field


def test_fees_are_in_cost_and_proceeds_or_a_line_of_their_own() -> None:
    ledger = (
        tx("buy", 1, quantity="2", value="200", fee_asset="USD", fee="4", fee_value="4"),
        tx("sell", 2, quantity="1", value="150", fee_asset="USD", fee="3", fee_value="3"),
    )
    inside, outside = (book_of(*ledger, fees_in_cost=policy).assets["BTC"] for policy in (True, False))
    assert (inside.realised, inside.cost, inside.bare, inside.fees_separate) == (147 - 102, 102, 100, 0)
    assert (outside.realised, outside.cost, outside.bare, outside.fees_separate) == (50, 100, 100, 7)
    assert inside.fees == outside.fees == 7
    assert inside.realised - inside.cost == outside.realised - outside.cost - outside.fees_separate


def test_a_fee_alone_spends_units_or_money_and_is_an_expense() -> None:
    book = book_of(
        tx("buy", 1, quantity="2", value="200"),
        tx("fee", 2, quantity="0.5", value="75"),
        tx("fee", 3, asset="USD", quantity="9", value="9"),
    )
    asset = book.assets["BTC"]
    assert (asset.quantity, asset.realised, asset.fees_separate) == (D("1.5"), 75 - 50, 75)
    assert (book.assets["USD"].fees_separate, book.assets["USD"].quantity) == (9, 0)
    assert flows(book) == 200 + 9


@pytest.mark.parametrize("kind", ["withdraw", "transfer_out"])
def test_what_leaves_takes_its_lots_along_and_flows_at_market_value(kind: str) -> None:
    book = book_of(
        tx("buy", 1, quantity="2", value="200"),
        tx(kind, 2, quantity="1", value="150", fee_asset="BTC", fee="0.1", fee_value="15"),
    )
    asset = book.assets["BTC"]
    assert (asset.quantity, asset.removed, asset.cost) == (D("0.9"), 100, 90)
    assert (asset.realised, asset.fees_separate) == (15 - 10, 15)
    assert flows(book) == 200 - 150


@pytest.mark.parametrize("kind", ["staking", "interest", "airdrop", "mining", "reward", "income"])
def test_every_kind_of_income_opens_a_lot_at_market_value(kind: str) -> None:
    asset = book_of(tx(kind, 1, value="40")).assets["BTC"]
    assert (asset.income, asset.cost, asset.flow_in) == (40, 40, 0)
