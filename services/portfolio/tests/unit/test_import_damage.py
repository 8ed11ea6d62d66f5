"""Files that were cut off, encoded twice, or filled with what is no text: a verdict per row, and the good rows stay good."""

from __future__ import annotations

from typing import Any

import pytest

from cryptopulse.common.errors import Invalid
from cryptopulse.portfolio.application.imports.formats import read_file
from cryptopulse.portfolio.application.imports.reading import MAX_ROWS, Options, decoded

COLUMNS = (
    "timestamp,type,asset,quantity,price,currency,counter_asset,counter_quantity,fee,fee_asset,account,note"
)


def row(note: str, quantity: str = "1") -> str:
    return f"2024-01-01T00:00:00Z,buy,BTC,{quantity},100,USD,,,,,main,{note}"


def outcomes(body: bytes) -> list[Any]:
    text, _ = decoded(body)
    return list(read_file(text, None, Options())[1])


def notes(found: list[Any]) -> list[str]:
    return [draft.note for outcome in found for draft in outcome.drafts]


def errors(found: list[Any]) -> list[tuple[int, str]]:
    return [(outcome.row, outcome.error) for outcome in found if outcome.error]


GOOD = "\n".join([COLUMNS, row("für Zoë"), row("größer"), row("日本")]) + "\n"
NO_TEXT = "the row holds bytes that are not valid text"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_broken_byte_costs_its_own_row_only(mark: bytes) -> None:
    found = outcomes(
        mark + GOOD.encode() + row("br\xf6ken").encode("latin-1") + b"\n" + row("after").encode()
    )
    assert notes(found) == ["für Zoë", "größer", "日本", "after"]
    assert errors(found) == [(5, NO_TEXT)]


def test_a_file_that_ends_within_a_character_keeps_all_rows_before() -> None:
    whole = (COLUMNS + "\n" + row("plain") + "\n" + row("für")).encode()
    found = outcomes(whole[: whole.rindex(b"\xbc")])
    assert notes(found) == ["plain"]
    assert errors(found) == [(3, NO_TEXT)]


def test_a_two_byte_file_that_ends_within_a_character_is_read_to_there() -> None:
    assert notes(outcomes(GOOD.encode("utf-16") + b"\x41")) == ["für Zoë", "größer", "日本"]


def test_a_latin_file_is_read_as_one() -> None:
    text = (
        COLUMNS + "\n" + "\n".join(row(f"Größe über alles, nämlich {n}".replace(",", "")) for n in range(30))
    )
    text, encoding = decoded(text.encode("cp1252"))
    assert encoding not in {"utf-8", "utf-8-sig"}
    assert notes(list(read_file(text, None, Options())[1]))[0] == "Größe über alles nämlich 0"


def test_a_nul_far_down_is_an_error_of_its_row() -> None:
    padding = "\n".join(row("x" * 60) for _ in range(900))
    found = outcomes("\n".join([COLUMNS, padding, row("a\0b"), row("last")]).encode())
    assert errors(found) == [(902, NO_TEXT)]
    assert len(notes(found)) == 901


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800"])
def test_json_that_names_no_characters_is_an_error_of_its_activity(text: str) -> None:
    activity = '{"type":"BUY","quantity":1,"unitPrice":2,"fee":0,"currency":"USD","symbol":"BTCUSD","date":"2023-01-01T00:00:00Z","comment":"%s"}'
    found = outcomes(f'{{"activities":[{activity % text},{activity % "fine"}]}}'.encode())
    assert errors(found) == [(1, NO_TEXT)]
    assert notes(found) == ["fine"]


@pytest.mark.parametrize("other", [";", "\t"])
def test_free_texts_full_of_another_delimiter_do_not_hide_the_header(other: str) -> None:
    found = outcomes(f"{COLUMNS}\n{row(other * 500)}\n{row('x')}\n".encode())
    assert errors(found) == []
    assert len(notes(found)) == 2


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_read(delimiter: str) -> None:
    assert notes(outcomes(GOOD.replace(",", delimiter).encode())) == ["für Zoë", "größer", "日本"]


def test_a_quote_that_never_closes_is_one_bad_row() -> None:
    found = outcomes((COLUMNS + "\n" + row("first") + "\n" + row('"open') + "\n" + row("swallowed")).encode())
    assert notes(found)[0] == "first"
    long = outcomes((COLUMNS + "\n" + row("first") + "\n" + row('"' + "x" * 100_000)).encode())
    assert notes(long) == ["first"]
    assert len(errors(long)) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("x", "one"), "is not a decimal number"),
        (row("x", "0." + "1" * 25), "never rounded"),
        (row("x", "1" + "0" * 36), "integer digits"),
        (row("x", "NaN"), "is not a decimal number"),
        ("2024-13-01T00:00:00Z,buy,BTC,1,1,USD,,,,,main,x", "is not a time"),
        ("2024-01-01T00:00:00Z,steal,BTC,1,1,USD,,,,,main,x", "steal"),
        ("2024-01-01T00:00:00Z,buy", "the row has 2 cells, its header 12"),
        ("2024-01-01T00:00:00Z,buy,BTC,1,1,=1+1,,,,,main,x", "is not a currency"),
    ],
)
def test_a_bad_row_says_why_and_sinks_no_good_one(bad: str, reason: str) -> None:
    found = outcomes("\n".join([COLUMNS, row("before"), bad, row("after")]).encode())
    assert notes(found) == ["before", "after"]
    assert [number for number, _ in errors(found)] == [3]
    assert reason in errors(found)[0][1]


def test_a_file_of_too_many_rows_is_refused_with_the_bound() -> None:
    with pytest.raises(Invalid, match="120000 rows"):
        outcomes((COLUMNS + "\n" + (row("") + "\n") * (MAX_ROWS + 30)).encode())
