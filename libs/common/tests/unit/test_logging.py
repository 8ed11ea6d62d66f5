"""Logs are one line per event, and no secret gets into one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import structlog

from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.logging import bound_contextvars, configure, get_logger
from cryptopulse.common.telemetry.redaction import HIDDEN, redact, redact_text


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_the_promised_keys(stream: io.StringIO) -> None:
    configure("alerts", "1.2.3", stream=stream)
    exporter = tracing.collect_in_memory()
    with tracing.span("work"), bound_contextvars(message_id="m-1"):
        get_logger("a.module").info("rule fired", rule="al_1", price=Decimal("67000.10"))
    tracing.shutdown()

    (line,) = lines(stream)
    span = exporter.get_finished_spans()[0].get_span_context()
    assert span is not None
    assert list(line)[:8] == [
        "timestamp", "level", "event", "service", "version", "trace_id", "span_id", "message_id",
    ]  # fmt: skip
    assert line["event"] == "rule fired"
    assert line["service"] == "alerts"
    assert line["version"] == "1.2.3"
    assert line["level"] == "info"
    assert line["price"] == "67000.10"
    assert line["message_id"] == "m-1"
    assert line["trace_id"] == format(span.trace_id, "032x")
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    configure("alerts", "1", stream=stream)
    try:
        raise ValueError("amqp://user:hunter22@host refused")
    except ValueError:
        get_logger("m").exception("failed")

    (line,) = lines(stream)
    assert line["level"] == "error"
    assert "ValueError" in line["exception"]
    assert "hunter22" not in line["exception"]


def test_what_libraries_log_takes_the_same_road(stream: io.StringIO) -> None:
    configure("alerts", "1", stream=stream)
    logging.getLogger("some.library").warning("lost %s", "redis://:hunter22@cache/0")

    (line,) = lines(stream)
    assert line["event"] == f"lost redis://:{HIDDEN}@cache/0"
    assert line["service"] == "alerts"
    assert line["level"] == "warning"


def test_the_level_is_kept_for_own_and_foreign_loggers(stream: io.StringIO) -> None:
    configure("alerts", "1", level="warning", stream=stream)
    get_logger("m").info("not told")
    logging.getLogger("lib").info("not told")
    get_logger("m").warning("told")

    assert [line["event"] for line in lines(stream)] == ["told"]


def test_configuring_twice_does_not_log_twice(stream: io.StringIO) -> None:
    configure("alerts", "1", stream=stream)
    configure("alerts", "1", stream=stream)
    logging.getLogger("lib").warning("once")

    assert len(lines(stream)) == 1


def test_the_text_form_is_one_readable_line(stream: io.StringIO) -> None:
    configure("alerts", "1", fmt="text", stream=stream)
    get_logger("m").info("feed connected", venue="binance", note="two words", tries=3)

    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text[12:] == ' INFO    alerts     feed connected  venue=binance note="two words" tries=3\n'


def test_a_reader_that_went_away_does_not_end_the_service(stream: io.StringIO) -> None:
    closed = io.StringIO()
    configure("alerts", "1", stream=closed)
    closed.close()

    get_logger("m").info("nobody reads this")


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://cp:hunter22@db:5432/x",
        "amqps://svc:p%40ss-hunter22@mq:5671/vhost",
        "redis://:hunter22@cache:6379/0",
        "Authorization: Bearer hunter22hunter22",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyMiJ9.c2lnbmF0dXJlaHVudGVyMjI",
        "whsec_hunter22hunter22",
        "key cp_live_abcd1234_hunter22hunter22 used",
        "https://api/x?x_cg_pro_api_key=hunter22&a=1",
        "https://api/x?token=hunter22",
        "-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----",
    ],
)
def test_known_shapes_of_secrets_are_taken_out_of_any_text(secret: str) -> None:
    cleaned = redact_text(f"it was {secret}")

    assert "hunter22" not in cleaned
    assert "aHVudGVyMjI" not in cleaned.replace("odW50ZXIyMi", "aHVudGVyMjI")
    assert HIDDEN in cleaned


@pytest.mark.parametrize(
    "key",
    [
        "password", "INTERNAL_JWT_SECRET", "api_key", "apiKey", "Authorization", "cookie", "access_token", "refreshToken",
        "token", "private_key", "webhook_secret", "X-API-Key", "signature",
    ],
)  # fmt: skip
def test_values_under_telling_keys_are_hidden_at_any_depth(key: str) -> None:
    assert redact({"outer": [{key: "hunter22"}]}) == {"outer": [{key: HIDDEN}]}


@pytest.mark.parametrize(
    ("key", "value"),
    [("token_id", "jti-1"), ("symbol", "BTC-USD"), ("key", "price.BTC-USD"), ("tokens", 3), ("secret", None)],
)
def test_harmless_values_stay(key: str, value: object) -> None:
    assert redact({key: value}) == {key: value}


def test_a_user_name_in_a_url_stays_and_the_password_goes() -> None:
    assert redact_text("amqp://guest:guest@h/") == f"amqp://guest:{HIDDEN}@h/"


def test_a_nested_bomb_ends() -> None:
    bomb: list[Any] = []
    for _ in range(2_000):
        bomb = [bomb]

    assert redact(bomb)
