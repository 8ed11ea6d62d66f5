"""The shared portfolio cases: every file, dispatched on its kind, each figure within its tolerance."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.portfolio.domain.book import Book, Match, Policy
from cryptopulse.portfolio.domain.money import ZERO, money_context
from cryptopulse.portfolio.domain.postings import Posting, key_of
from cryptopulse.portfolio.domain.returns import (
    average_invested,
    day_of,
    linked,
    money_weighted,
    on_average_invested,
    time_weighted,
)
from cryptopulse.portfolio.domain.risk import max_drawdown
from cryptopulse.portfolio.domain.transactions import Transaction, postings_of

D = Decimal
KINDS = {"buy", "sell", "income", "transfer", "split", "deposit", "withdrawal"}


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * 1_000_000


def transaction_of(row: dict[str, Any]) -> Transaction:
    assert row["type"] in KINDS, f"a type this test does not know: {row['type']}"
    quantity = D(row["quantity"])
    price = D(row["price"]) if "price" in row else D(row["total"]) / quantity
    value = quantity * price if "price" in row else D(row["total"])
    fee, fee_asset, fee_value = D(row.get("fee", "0")), "USD", D(row.get("fee", "0"))
    if "fee_asset" in row:
        fee, fee_asset = D(row["fee_quantity"]), row["fee_asset"]
        fee_value = fee * price
    kind = {"withdrawal": "withdraw"}.get(row["type"], row["type"])
    return Transaction(
        kind=kind, at_us=us(row["ts"]), asset=row["asset"], quantity=quantity, price=price, currency="USD",
        total=value, value=value, fee=fee or None, fee_asset=fee_asset if fee else None, fee_value=fee_value,
        account=row.get("from_account", row.get("account", "main")), to_account=row.get("to_account"),
        counter_quantity=D(row["ratio_to"]) if "ratio_to" in row else None,
    )  # fmt: skip


class Ledger:
    """A case's ledger, replayed."""

    def __init__(self, case: dict[str, Any], until_day: int | None = None) -> None:
        given = case["input"]
        options = given["options"]
        accounts = any("from_account" in row for row in given["transactions"])
        self.policy = Policy(
            method=given["method"], fees_in_cost=options["fees_in_cost_basis"], account_pools=accounts,
            **({"dust": D(options["dust"])} if "dust" in options else {}),
        )  # fmt: skip
        self.names: dict[int, str] = {}
        postings: list[Posting] = []
        for number, row in enumerate(given["transactions"], start=1):
            self.names[number] = row["id"]
            tx = transaction_of(row)
            if until_day is None or tx.at_us // 86_400_000_000 <= until_day:
                legs = postings_of(tx, number, "implicit")
                flag = options["oversell"] == "zero_cost"
                postings += [leg._replace(uncovered_ok=flag) for leg in legs]
        self.postings = sorted(postings, key=key_of)
        self.book = Book(self.policy)
        self.book.replay(self.postings)
        self.assets = list(self.book.assets.values())

    def total(self, name: str) -> Decimal:
        return sum((getattr(asset, name) for asset in self.assets), ZERO)

    def match_names(self, match: Match) -> tuple[str, str]:
        disposal = self.names[match.seq] + ("#fee" if match.fee_leg else "")
        head, dot, tail = match.lot.partition(".")
        return disposal, self.names[int(head)] + dot + tail if head.isdigit() else match.lot

    def figures(self, prices: dict[str, str]) -> dict[str, Decimal]:
        quantity, cost, bare = self.total("quantity"), self.total("cost"), self.total("bare")
        value = (
            sum((a.quantity * D(prices[a.asset]) for a in self.assets if a.quantity), ZERO)
            if prices
            else None
        )
        realised, fees, separate = self.total("realised"), self.total("fees"), self.total("fees_separate")
        found = {
            "quantity": quantity, "remaining_quantity": quantity, "remaining_cost_basis": cost, "investment": bare,
            "average_price": bare / quantity if quantity else ZERO, "average_cost": cost / quantity if quantity else ZERO,
            "realised_pnl": realised, "fees": fees, "fees_total": fees, "income": self.total("income"),
        }  # fmt: skip
        if value is not None:
            net = realised + value - cost - separate
            found |= {
                "market_value": value,
                "unrealised_pnl": value - cost,
                "net_pnl": net,
                "gross_pnl": net + fees,
            }
        return found


def check_ledger(case: dict[str, Any], tolerance: Decimal) -> int:
    ledger = Ledger(case)
    prices = case["input"].get("prices", {})
    figures = ledger.figures(prices)
    checked = 0
    for source in ("expected", "derived"):
        for name, wanted in case.get(source, {}).items():
            if name == "matches":
                names = [ledger.match_names(match) for match in ledger.book.matches]
                assert [(m["disposal"], m["lot"]) for m in wanted] == names
                for match, item in zip(ledger.book.matches, wanted, strict=True):
                    parts = {"quantity": match.quantity, "proceeds": match.proceeds, "cost": match.cost}
                    parts["gain"] = match.proceeds - match.cost
                    for key in parts.keys() & item.keys():
                        assert abs(parts[key] - D(item[key])) <= tolerance, (item, key)
            elif name == "value_history":
                check_history(case, wanted, tolerance)
            elif name == "roai":
                check_roai(case, ledger, figures, wanted, tolerance)
            elif name == "per_disposal":
                for item in wanted:
                    gains = [
                        m.proceeds - m.cost
                        for m in ledger.book.matches
                        if ledger.match_names(m)[0] == item["disposal"]
                    ]
                    assert abs(sum(gains, ZERO) - D(item["gain"])) <= tolerance, item
            elif name == "missing":
                missing = [
                    (ledger.names[m.seq], m.found, m.missing) for a in ledger.assets for m in a.missing
                ]
                assert missing == [(m["disposal"], D(m["found"]), D(m["missing"])) for m in wanted]
            else:
                assert name in figures, f"a figure this test does not know: {name}"
                assert abs(figures[name] - D(wanted)) <= tolerance, (source, name, figures[name], wanted)
            checked += 1
    return checked


def check_history(case: dict[str, Any], wanted: list[dict[str, str]], tolerance: Decimal) -> None:
    for point in wanted:
        ledger = Ledger(case, until_day=day_of(point["date"]))
        prices = {asset.asset: point.get("close", "0") for asset in ledger.assets}
        figures = ledger.figures(prices)
        assert abs(figures.get("market_value", ZERO) - D(point["value"])) <= tolerance, point
        assert abs(figures.get("net_pnl", ZERO) - D(point["net_pnl"])) <= tolerance, point


def check_roai(
    case: dict[str, Any],
    ledger: Ledger,
    figures: dict[str, Decimal],
    wanted: dict[str, str],
    tolerance: Decimal,
) -> None:
    days = sorted({p.at_us // 86_400_000_000 for p in ledger.postings})
    steps = [(day, Ledger(case, until_day=day).total("bare")) for day in days]
    average = average_invested(steps, steps[0][0], day_of(case["input"]["as_of"]))
    for name, key in (("net_percentage", "net_pnl"), ("gross_percentage", "gross_pnl")):
        found = on_average_invested(figures[key], average)
        assert found is not None
        assert abs(found - D(wanted[name])) <= tolerance


def check_twr(case: dict[str, Any], tolerance: Decimal) -> int:
    given = case["input"]
    values = [(day_of(v["date"]), D(v["value"])) for v in given["values"]]
    flows = {day_of(f["date"]): D(f["amount"]) for f in given["flows"]}
    days = linked(values[1:], flows, before=values[0][1])
    total = time_weighted(days)
    assert total is not None
    figures: dict[str, Any] = {
        "total": total,
        "daily": [ZERO, *(d.result for d in days)],
        "cumulative": [ZERO, *(d.index - 1 for d in days if d.index is not None)],
    }
    checked = 0
    for source in ("expected", "derived"):
        for name, wanted in case.get(source, {}).items():
            assert name in figures, f"a figure this test does not know: {name}"
            pairs = (
                zip(figures[name], wanted, strict=True)
                if isinstance(wanted, list)
                else [(figures[name], wanted)]
            )
            for found, number in pairs:
                assert abs(found - D(number)) <= tolerance, (name, found, number)
            checked += 1
    return checked


def check_xirr(case: dict[str, Any], tolerance: Decimal) -> int:
    flows: dict[int, Decimal] = {}
    for flow in reversed(case["input"]["flows"]):
        flows[day_of(flow["date"])] = flows.get(day_of(flow["date"]), ZERO) + D(flow["amount"])
    found = money_weighted(flows).annual.value
    wanted = case["expected"]["rate"]
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert abs(D(found) - D(wanted)) <= tolerance
    return 1


def check_risk(case: dict[str, Any], tolerance: Decimal) -> int:
    returns = [float(value) for value in case["input"]["returns"]]
    for name, wanted in case["expected"].items():
        assert name == "max_drawdown", f"a figure this test does not know: {name}"
        assert abs(D(max_drawdown(returns).depth) - D(wanted)) <= tolerance
    return len(case["expected"])


CHECKS = {"ledger": check_ledger, "twr": check_twr, "xirr": check_xirr, "risk": check_risk}


def test_every_shared_case_holds_within_its_tolerance(shared_data: Path) -> None:
    files = sorted((shared_data / "portfolio_cases").glob("*.json"))
    if not files:
        pytest.skip(f"no portfolio cases under {shared_data}")
    checked = 0
    for path in files:
        case = json.loads(path.read_text())
        assert case["format"] == "portfolio-case/1"
        with money_context():
            checked += CHECKS[case["kind"]](case, D(case["tolerance"].split()[0]))
    assert checked >= len(files)
    print(f"{checked} figures of {len(files)} cases")
