"""Prometheus metrics with typed names: asking twice for one gives the same object, asking differently is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar, get_args

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from cryptopulse.common.telemetry.metric_names import LabelName, MetricName

__all__ = ["LATENCY_BUCKETS", "Counter", "Gauge", "Histogram", "counter", "exposition", "gauge", "histogram"]

LATENCY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""From half a millisecond to a minute: handling, queue age, tick age and HTTP all fit."""

_FORBIDDEN_LABELS: Final = frozenset(
    {"user", "user_id", "key", "key_id", "id", "path", "symbol", "token", "address"}
)
_made: dict[str, tuple[type[Any], tuple[str, ...], Any]] = {}

MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)


def counter(name: MetricName, help: str, labels: Sequence[LabelName] = ()) -> Counter:  # noqa: A002 - the field's word
    """A count that only rises; its name ends with `_total`."""
    if not name.endswith("_total"):
        raise ValueError(f"counter {name} must end with _total")
    return _once(Counter, name, help, labels)


def gauge(name: MetricName, help: str, labels: Sequence[LabelName] = ()) -> Gauge:  # noqa: A002 - the field's word
    """A value that goes up and down."""
    return _once(Gauge, name, help, labels)


def histogram(
    name: MetricName,
    help: str,  # noqa: A002 - the field's word
    labels: Sequence[LabelName] = (),
    *,
    buckets: Sequence[float] = LATENCY_BUCKETS,
) -> Histogram:
    """A distribution, in base units."""
    return _once(Histogram, name, help, labels, buckets=tuple(buckets))


def exposition() -> tuple[bytes, str]:
    """All metrics of this process in the Prometheus text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def _once(kind: type[MetricT], name: str, text: str, labels: Sequence[str], **options: Any) -> MetricT:
    wanted = tuple(labels)
    if name in _made:
        made_kind, made_labels, metric = _made[name]
        if made_kind is not kind or made_labels != wanted:
            raise ValueError(f"{name} exists as {made_kind.__name__} with labels {made_labels}")
        return metric  # type: ignore[no-any-return]  # stored beside its kind, which was just compared
    if name not in names():
        raise ValueError(f"{name} is not in metric_names.py")
    if not text.strip():
        raise ValueError(f"{name} has no help")
    if bad := _FORBIDDEN_LABELS.intersection(wanted):
        raise ValueError(f"{name} has an open label set: {sorted(bad)}")
    metric = kind(name, text, wanted, **options)
    _made[name] = (kind, wanted, metric)
    return metric


def names() -> frozenset[str]:
    """Every name that a metric may have."""
    return frozenset(_literals(MetricName))


def _literals(kind: Any) -> list[str]:
    found: list[str] = []
    for part in get_args(kind):
        found += [part] if isinstance(part, str) else _literals(part)
    return found
