"""Log files become lines that a person can read, a chunk at a time, within bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tools.local_stack import logs
from tools.local_stack.logs import LogTail, readable


def test_an_event_is_its_words_and_its_details() -> None:
    raw = json.dumps(
        {
            "timestamp": "x",
            "level": "warning",
            "event": "feed stopped",
            "service": "ingestor",
            "venue": "binance",
        }
    )
    line = readable(raw)
    assert line.is_loud
    assert line.text == "feed stopped venue=binance"


def test_of_an_exception_the_last_line_is_shown() -> None:
    raw = json.dumps(
        {"level": "error", "event": "loop failed", "exception": "Traceback\n  File x\nValueError: no"}
    )
    assert readable(raw).text == "loop failed (ValueError: no)"


@pytest.mark.parametrize("raw", ["Traceback (most recent call last):", "[1, 2]", '{"no": "event"}', "{torn"])
def test_what_is_no_event_is_passed_as_it_is(raw: str) -> None:
    line = readable(raw)
    assert line.text == raw
    assert not line.is_loud


def test_a_long_line_is_cut() -> None:
    assert len(readable(json.dumps({"level": "error", "event": "x" * 5000})).text) < 300


def test_only_whole_new_lines_are_read(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "svc.log")
    tail.begin()
    with tail.path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert [line.text for line in tail.read()] == ["one"]
        file.write("o\nthree\n")
    assert [line.text for line in tail.read()] == ["two", "three"]
    assert tail.read() == []
    assert tail.last_lines() == ["one", "two", "three"]


def test_an_earlier_log_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "svc.log"
    path.write_text("old\n")
    tail = LogTail(path)
    tail.begin()
    assert tail.read() == []
    assert (tmp_path / "svc.log.1").read_text() == "old\n"


def test_a_log_that_grew_too_large_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_BYTES", 10)
    tail = LogTail(tmp_path / "svc.log")
    tail.begin()
    writer = os.open(tail.path, os.O_WRONLY | os.O_APPEND)
    os.write(writer, b"0123456789abc\n")
    assert [line.text for line in tail.read()] == ["0123456789abc"]
    assert tail.path.stat().st_size == 0
    os.write(writer, b"next\n")
    os.close(writer)
    assert [line.text for line in tail.read()] == ["next"]
