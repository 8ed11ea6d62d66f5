"""`.env` is read as Compose reads it, and the environment wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.local_stack.dotenv import DotenvError, parse, with_dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KEY=value", "value"),
        ("export KEY=value", "value"),
        ("  KEY = value  ", "value"),
        ("KEY=value # a comment", "value"),
        ("KEY=a#b", "a#b"),
        ("KEY='a # b'", "a # b"),
        ('KEY="a b"  # why', "a b"),
        ("KEY=pa$$word${x}", "pa$$word${x}"),
        ("KEY=", ""),
        ("KEY= # nothing", ""),
    ],
)
def test_a_line(line: str, value: str) -> None:
    assert parse(line) == {"KEY": value}


def test_comments_and_empty_lines_say_nothing() -> None:
    assert parse("# KEY=value\n\n   \n") == {}


def test_every_bad_line_is_named() -> None:
    with pytest.raises(DotenvError) as caught:
        parse("GOOD=1\nbad line\n1KEY=x\n")
    assert caught.value.faults == [
        ".env line 2: is not of the form NAME=value",
        ".env line 3: is not of the form NAME=value",
    ]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=1\nFEED=sim\n")
    assert with_dotenv({"PORT": "2"}, path) == {"PORT": "2", "FEED": "sim"}
    assert with_dotenv({"PORT": "2"}, tmp_path / "none") == {"PORT": "2"}
