"""Metric names are typed, every metric says what it is, and labels are closed sets."""

from __future__ import annotations

from typing import Any, cast, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryptopulse.common.telemetry import metric_names, metrics

BLOCKS = [
    getattr(metric_names, name)
    for name in dir(metric_names)
    if name.endswith("Metric") and name != "MetricName"
]


def test_asking_twice_gives_the_same_metric() -> None:
    first = metrics.gauge("cryptopulse_draining", "1 from the first SIGTERM on.", ("service",))

    assert metrics.gauge("cryptopulse_draining", "1 from the first SIGTERM on.", ("service",)) is first


def test_asking_for_another_kind_or_other_labels_is_refused() -> None:
    metrics.gauge("cryptopulse_draining", "x", ("service",))

    with pytest.raises(ValueError, match="exists as Gauge"):
        metrics.gauge("cryptopulse_draining", "x", ())
    with pytest.raises(ValueError, match="exists as Gauge"):
        metrics.histogram("cryptopulse_draining", "x", ("service",))


def test_a_name_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not in metric_names\.py"):
        metrics.gauge(cast("Any", "cryptopulse_typo"), "x")


def test_a_counter_ends_with_total() -> None:
    with pytest.raises(ValueError, match="_total"):
        metrics.counter("cryptopulse_build_info", "x")


def test_a_metric_without_help_is_refused() -> None:
    with pytest.raises(ValueError, match="no help"):
        metrics.gauge(cast("Any", _unused_name()), " ")


def test_labels_that_could_take_any_value_are_refused() -> None:
    with pytest.raises(ValueError, match="open label set"):
        metrics.gauge(cast("Any", _unused_name()), "x", cast("Any", ("user_id",)))


@pytest.mark.parametrize("name", sorted(metrics.names()))
def test_names_follow_the_rules(name: str) -> None:
    assert name.startswith("cryptopulse_")
    assert name == name.lower()
    assert not name.endswith(("_ms", "_milliseconds", "_us", "_count", "_sum", "_bucket"))


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_in_alphabetical_order(block: Any) -> None:
    names = list(get_args(block))

    assert names == sorted(names)


def test_no_name_stands_in_two_blocks() -> None:
    every = [name for block in BLOCKS for name in get_args(block)]

    assert len(every) == len(set(every))


def test_the_exposition_can_be_read_and_every_family_has_help() -> None:
    metrics.gauge("cryptopulse_draining", "1 from the first SIGTERM on.", ("service",)).labels("x").set(1)

    body, content_type = metrics.exposition()

    families = [f for f in text_string_to_metric_families(body.decode()) if f.name.startswith("cryptopulse_")]
    assert families
    assert all(family.documentation for family in families)
    assert content_type.startswith("text/plain")


def _unused_name() -> str:
    return next(name for name in sorted(metrics.names(), reverse=True) if name not in metrics._made)
