"""Amounts of `/v1`: strings only, with the reason, and never a digit fewer than was sent."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cryptopulse.common.contracts.http.portfolio import TransactionCreate, TransactionPatch

WHOLE: dict[str, Any] = {"type": "buy", "asset": "BTC", "quantity": "1"}
AMOUNTS = (
    "quantity",
    "price",
    "total",
    "fx_rate",
    "counter_quantity",
    "fee",
    "fee_price",
    "cost_basis",
)


def sent(model: type[BaseModel], name: str, value: Any) -> Any:
    body = {**(WHOLE if model is TransactionCreate else {}), name: value}
    return getattr(model.model_validate_json(json.dumps(body)), name)


@pytest.mark.parametrize("model", [TransactionCreate, TransactionPatch])
@pytest.mark.parametrize("name", AMOUNTS)
class TestEveryAmount:
    @pytest.mark.parametrize("number", [1, 0.5, 1e30, True])
    def test_a_json_number_is_refused_with_the_reason(
        self, model: type[BaseModel], name: str, number: Any
    ) -> None:
        with pytest.raises(ValidationError) as refused:
            sent(model, name, number)
        (error,) = refused.value.errors()
        assert error["loc"] == (name,)
        assert "send amounts as JSON strings" in error["msg"]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0." + "0" * 24 + "1", "never rounded"),
            ("1" + "0" * 36, "36 integer digits"),
            ("NaN", "not a decimal number"),
            ("Infinity", "not a decimal number"),
            ("1_000", "not a decimal number"),
            ("", "not a decimal number"),
        ],
    )
    def test_what_would_not_be_kept_exactly_is_refused(
        self, model: type[BaseModel], name: str, text: str, reason: str
    ) -> None:
        with pytest.raises(ValidationError, match=reason):
            sent(model, name, text)

    @pytest.mark.parametrize(
        "text", ["0.000000000000000000000001", "9" * 36 + "." + "9" * 24, "1e-24", "2.50"]
    )
    def test_every_digit_is_kept(self, model: type[BaseModel], name: str, text: str) -> None:
        assert str(sent(model, name, text)) == str(Decimal(text))


def test_no_amount_is_left_out_here() -> None:
    schema = TransactionCreate.model_json_schema()["properties"]
    amounts = {n for n, s in schema.items() if "at most 36 integer digits" in json.dumps(s)}
    assert amounts == set(AMOUNTS)
