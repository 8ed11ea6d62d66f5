"""CSV that leaves: nothing in it is a formula, and our own format comes back exactly as it went."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptopulse.portfolio.application.gains import Gain, Gains, is_long
from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import Options, decoded
from cryptopulse.portfolio.application.imports.trackers import KINDS
from cryptopulse.portfolio.application.ports import Coin, Portfolio, Recorded
from cryptopulse.portfolio.application.tables import gains_csv, safe, transactions_csv, unsafe
from cryptopulse.portfolio.domain.book import Match
from cryptopulse.portfolio.domain.transactions import Transaction

D = Decimal
DAY_US = 86_400_000_000
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula."""
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from([*FORMULA, "'", '"', ",", ";", "\n"]),
    max_size=40,
)  # fmt: skip
ACCOUNTS = TEXTS.map(lambda text: "".join(c for c in text if ord(c) >= 32)).filter(bool)
NAMES = TEXTS.map(lambda text: "".join(c for c in text if ord(c) >= 32).strip()).filter(bool)
AMOUNTS = st.decimals("0.000000000000000000000001", "1e30", places=24)
TIMES = st.integers(946_684_800_000_000, 4_000_000_000_000_000)


def maybe(strategy: Any) -> Any:
    return st.none() | strategy


@st.composite
def recorded(draw: Any) -> Recorded:
    fee = draw(maybe(AMOUNTS))
    kind: Any = draw(st.sampled_from(sorted(KINDS)))
    transaction = Transaction(
        kind=kind, at_us=draw(TIMES), asset=draw(NAMES), quantity=draw(AMOUNTS), account=draw(ACCOUNTS),
        price=draw(maybe(AMOUNTS)), total=draw(maybe(AMOUNTS)), currency=draw(st.sampled_from(["USD", "1INCH"])),
        fx_rate=draw(maybe(AMOUNTS)), counter_asset=draw(maybe(NAMES)), counter_quantity=draw(maybe(AMOUNTS)),
        fee=fee, fee_asset=draw(NAMES) if fee else None, fee_value=draw(AMOUNTS) if fee else D(0),
        cost_basis=draw(maybe(AMOUNTS)), acquired_us=draw(maybe(TIMES)), to_account=draw(maybe(ACCOUNTS)),
        note=draw(maybe(TEXTS.filter(bool))), external_id=draw(maybe(TEXTS.filter(bool))),
        allow_uncovered=draw(st.booleans()), price_source=draw(st.sampled_from(["given", "live", "candle"])),
    )  # fmt: skip
    return Recorded(draw(st.integers(1, 2**53)), 1, transaction, False, 0, Coin("x"))


@settings(deadline=None, max_examples=200)
@given(st.lists(recorded(), min_size=1, max_size=4))
def test_what_is_exported_is_read_back_to_the_last_digit_and_letter(items: list[Recorded]) -> None:
    text = "".join(transactions_csv(items))
    name, outcomes = read_file(decoded(text.encode())[0], None, Options())
    found = list(outcomes)
    assert name == "cryptopulse"
    assert [outcome.error for outcome in found] == [None] * len(items)
    for item, outcome in zip(items, found, strict=True):
        (draft,) = outcome.drafts
        assert outcome.own_id == item.id
        for field in fields(Transaction):
            if field.name in {"value", "fingerprint"} or (
                field.name == "fee_value" and not item.transaction.fee
            ):
                continue
            assert getattr(draft, field.name) == getattr(item.transaction, field.name), field.name


@given(TEXTS)
def test_a_guarded_text_is_no_formula_and_comes_back(text: str) -> None:
    assert not safe(text).startswith(FORMULA)
    assert unsafe(safe(text)) == text


EVIL = tuple(f"{sign}1+1" for sign in FORMULA)


def cells(lines: list[str]) -> list[list[str]]:
    return list(csv.reader(io.StringIO("".join(lines), newline="")))


def test_no_text_of_any_column_is_a_formula_in_the_export() -> None:
    for evil in EVIL:
        transaction = Transaction(
            kind="buy", at_us=DAY_US * 12_000, asset=evil, quantity=D(1), account=evil, currency=evil,
            counter_asset=evil, fee=D(1), fee_asset=evil, to_account=evil, note=evil, external_id=evil,
            price_source=evil,
        )  # fmt: skip
        item = Recorded(1, 1, transaction, False, 0, Coin(evil, evil, evil, evil))
        assert not [c for row in cells(list(transactions_csv([item]))) for c in row if c.startswith(FORMULA)]


def test_the_report_of_gains_has_a_line_per_lot_and_only_numbers_begin_with_a_sign() -> None:
    for evil in EVIL:
        gains = [
            Gain(Match(7, 0, "sell", DAY_US * 20_000, evil, evil, evil, DAY_US * 19_000, D(2), D(5), D(8)), True),
            Gain(Match(8, 1, "fee_leg", DAY_US * 20_001, "BTC", "a", "3", DAY_US * 20_000, D(1), D(2), D(1)), False),
        ]  # fmt: skip
        header, first, second = cells(list(gains_csv(Gains(a_portfolio(), "fifo", [], gains, {}))))
        row = dict(zip(header, first, strict=True))
        assert row.pop("gain") == "-3"
        assert not [cell for cell in row.values() if cell.startswith(FORMULA)]
        assert (row["proceeds"], row["cost"], row["term"], row["disposal_id"]) == ("5", "8", "long", "7")
        assert (second[header.index("disposal_id")], second[header.index("term")]) == ("8#fee", "short")


def a_portfolio() -> Portfolio:
    now = datetime.now(UTC)
    return Portfolio(1, "a", "x", "USD", "fifo", "implicit", "portfolio", True, 365, False, 1, 1, now, now)


def test_long_term_begins_the_day_after_the_holding_period() -> None:
    late = DAY_US - 1
    assert not is_long(late, 365 * DAY_US, 365)
    assert is_long(late, 366 * DAY_US, 365)
    assert not is_long(0, late, 0)
    assert is_long(late, DAY_US, 0)
