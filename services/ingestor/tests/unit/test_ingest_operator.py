"""The operator's words become requests to the service beside: venue, range and times, refused when they cannot be meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cryptopulse.common.contracts.http.ingest import BackfillRequest
from cryptopulse.common.runtime.command import main
from cryptopulse.common.runtime.operator_call import Call
from cryptopulse.ingestor.bootstrap import build
from cryptopulse.ingestor.entrypoints import operator
from cryptopulse.ingestor.settings import Settings


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What would be asked of the running service."""
    calls: list[Call] = []
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost/")
    monkeypatch.setenv("REDIS_URL", "redis://localhost/0")
    monkeypatch.setenv("INTERNAL_JWT_SECRET", "s" * 32)

    def send(call: Call, _settings: Settings) -> int:
        calls.append(call)
        return 0

    monkeypatch.setattr(operator, "send", send)
    return calls


def tell(*arguments: str) -> int:
    return main(Settings, build, tools=operator.TOOLS, argv=arguments)


@pytest.mark.parametrize(
    ("words", "method", "path"),
    [
        (["list"], "GET", "/status"),
        (["pause", "binance"], "POST", "/feeds/binance/pause"),
        (["resume", "kraken"], "POST", "/feeds/kraken/resume"),
    ],
)
def test_feeds(sent: list[Call], words: list[str], method: str, path: str) -> None:
    assert tell("feeds", *words) == 0
    assert (sent[0].method, sent[0].path, sent[0].body) == (method, path, None)


def test_a_backfill_is_a_request_that_the_service_takes(sent: list[Call]) -> None:
    assert tell("backfill", "BTC-USDT", "1m", "2026-01-01", "1767232800000", "--venue", "binance") == 0
    body: dict[str, Any] = json.loads(sent[0].body or b"")
    wanted = BackfillRequest.model_validate(body)
    assert (wanted.from_ms, wanted.to_ms, wanted.venue) == (1_767_225_600_000, 1_767_232_800_000, "binance")
    assert (sent[0].method, sent[0].path) == ("POST", "/backfill")


@pytest.mark.parametrize(
    "words",
    [["feeds"], ["feeds", "stop", "binance"], ["feeds", "pause"], ["backfill", "BTC-USDT", "7m", "1", "2"],
     ["backfill", "BTC-USDT", "1m", "yesterday", "2"]],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(sent: list[Call], words: list[str]) -> None:
    assert tell(*words) == 2
    assert not sent


@pytest.mark.parametrize("command", ["feeds", "backfill"])
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(command, "--help") == 0
    assert f"python -m cryptopulse.ingestor {command}" in capsys.readouterr().out
    assert tell("--help") == 0
    assert command in capsys.readouterr().out
