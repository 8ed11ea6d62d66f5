"""Cursors work where they were made, for whom they were made, unaltered; anything else is `invalid-cursor`."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.common.errors import Invalid
from cryptopulse.common.web.pagination import Cursor

CURSOR = Cursor("s" * 32)
BINDING = ("alerts", "u1")


@pytest.mark.parametrize("key", [(1_700_000_000_000, "al_1"), ("x", None, True), (2**60,), ()])
def test_what_was_encoded_comes_back(key: tuple[Any, ...]) -> None:
    assert CURSOR.decode(CURSOR.encode(key, BINDING), BINDING) == key


def test_a_decimal_comes_back_as_exact_text() -> None:
    assert CURSOR.decode(CURSOR.encode((Decimal("1E+2"), Decimal("0.10")), BINDING), BINDING) == (
        "100",
        "0.10",
    )


def test_a_cursor_is_safe_in_a_url() -> None:
    text = CURSOR.encode(("?" * 40, "\xff"), BINDING)

    assert text.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "binding", [("alerts", "u2"), ("portfolios", "u1"), "alerts", ("alertsu1",), ("alerts", "u1", "")]
)
def test_another_users_or_lists_cursor_is_refused(binding: Any) -> None:
    with pytest.raises(Invalid) as caught:
        CURSOR.decode(CURSOR.encode((1,), BINDING), binding)

    assert caught.value.code == "invalid-cursor"


def test_another_services_cursor_is_refused() -> None:
    with pytest.raises(Invalid):
        Cursor("t" * 32).decode(CURSOR.encode((1,), BINDING), BINDING)


def test_every_altered_byte_is_noticed() -> None:
    raw = base64.urlsafe_b64decode(CURSOR.encode((1_700_000_000_000, "al_1"), BINDING) + "==")
    for position in range(len(raw)):
        altered = bytearray(raw)
        altered[position] ^= 1
        with pytest.raises(Invalid):
            CURSOR.decode(base64.urlsafe_b64encode(bytes(altered)).decode().rstrip("="), BINDING)


@given(st.text(max_size=60))
def test_made_up_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        CURSOR.decode(text, BINDING)


def test_an_endless_cursor_is_refused_unread() -> None:
    with pytest.raises(Invalid):
        CURSOR.decode("A" * 2_000_000, BINDING)
