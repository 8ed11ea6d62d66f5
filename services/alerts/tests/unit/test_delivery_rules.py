from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from standardwebhooks import Webhook

from cryptopulse.alerts.application.ids import new_id
from cryptopulse.alerts.domain import signature
from cryptopulse.alerts.domain.messages import render
from cryptopulse.alerts.domain.schedule import (
    DELAYS_SECONDS,
    Outcome,
    gives_up,
    judge,
    open_seconds,
    retry_after_seconds,
)

NOW_MS = 1_800_000_000_000


def outcome(
    status: int | None,
    attempts: int = 1,
    *,
    retry_after: str | None = None,
    age: float = 0,
    jitter: float = 0,
) -> Outcome:
    return judge(
        status=status,
        attempts=attempts,
        age_seconds=age,
        retry_after=retry_after,
        jitter=jitter,
        now_ms=NOW_MS,
    )


def test_our_signature_is_what_the_reference_package_makes() -> None:
    secret = bytes(range(32))
    body = '{"type":"alert.triggered","data":{"name":"Zoë"}}'.encode()
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ours = signature.sign("ae_1", int(at.timestamp()), body, [secret])
    assert ours == Webhook(base64.b64encode(secret).decode()).sign("ae_1", at, body.decode())


def test_the_reference_package_verifies_either_secret_during_a_rotation() -> None:
    old, new = bytes(32), bytes(range(32))
    now = int(datetime.now(UTC).timestamp())
    headers = signature.headers("ae_1", now, b"{}", [new, old])
    for secret in (old, new):
        Webhook(signature.format_secret(secret)).verify(b"{}", headers)
    with pytest.raises(Exception, match="signature"):
        Webhook(signature.format_secret(b"x" * 32)).verify(b"{}", headers)


@pytest.mark.parametrize("bad", ["", "a.b"])
def test_an_id_that_makes_the_signed_text_ambiguous_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="dot"):
        signature.sign(bad, 1, b"", [bytes(32)])


def test_secrets_come_back_from_their_text_and_short_ones_are_refused() -> None:
    assert signature.parse_secret(signature.format_secret(bytes(range(32)))) == bytes(range(32))
    for bad in ("whsec_", "whsec_####", signature.PREFIX + base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match="secret"):
            signature.parse_secret(bad)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (301, "retry"),
        (400, "retry"),
        (404, "retry"),
        (410, "gone"),
        (429, "retry"),
        (500, "retry"),
        (None, "retry"),
    ],
)
def test_only_two_hundreds_are_success_and_410_ends_it(status: int | None, verdict: str) -> None:
    assert outcome(status).verdict == verdict


def test_the_pauses_follow_the_schedule_until_it_ends() -> None:
    assert [outcome(500, attempt).pause_seconds for attempt in range(1, 8)] == [
        float(x) for x in DELAYS_SECONDS
    ]
    assert outcome(500, 8).verdict == "exhausted"
    assert outcome(500, 1, jitter=1).pause_seconds == 6
    assert outcome(500, 1, jitter=-1).pause_seconds == 4


def test_retry_after_lengthens_the_pause_up_to_an_hour() -> None:
    assert outcome(503, retry_after="120") == Outcome("retry", 120, True)
    assert outcome(500, retry_after="999999").pause_seconds == 3600
    assert outcome(500, retry_after="1").pause_seconds == 5
    assert outcome(500, retry_after="nonsense").pause_seconds == 5
    assert retry_after_seconds("Fri, 15 Jan 2027 08:01:00 GMT", NOW_MS) == 60
    assert retry_after_seconds("Fri, 15 Jan 2021 08:01:00 GMT", NOW_MS) == 0


def test_nothing_is_tried_later_than_a_day_after_the_event() -> None:
    assert outcome(500, 7, age=60_000).verdict == "exhausted"


def test_a_failing_endpoint_rests_longer_and_longer_and_is_given_up() -> None:
    assert [open_seconds(failures) for failures in (0, 4, 5, 6, 7, 30)] == [0, 0, 60, 120, 240, 3600]
    assert not gives_up(failing_for_seconds=4 * 86_400, failed_messages=49)
    assert gives_up(failing_for_seconds=5 * 86_400, failed_messages=1)
    assert gives_up(failing_for_seconds=1, failed_messages=50)


def test_templates_replace_names_and_nothing_else() -> None:
    values = {"symbol": "BTC-USD", "price": "{threshold}", "threshold": "7"}
    assert render("{symbol} at {price} {{x}} {unknown} {", values) == "BTC-USD at {threshold} {x} {unknown} {"
    assert render("{symbol.__class__}", values) == "{symbol.__class__}"


def test_ids_sort_by_time_and_never_hold_a_dot() -> None:
    ids = [new_id("ae", NOW_MS + step) for step in range(100)]
    assert ids == sorted(ids)
    assert all(len(one) == 35 and "." not in one for one in ids)
    assert Decimal(int(ids[0][3:15], 16)) == NOW_MS
