"""What the templates scale, alarm and draw by: metrics of CloudWatch, and the queues that one of them may name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from cryptopulse.common.contracts.topics import TOPICS, Queue
from tests.deploy.cfn import Template


def looked_at(stage: Mapping[str, Template]) -> Iterator[tuple[str, str, str, str, dict[str, str]]]:
    """Stack, place, namespace, name and dimensions of every CloudWatch metric that is looked at."""
    for stack, template in stage.items():
        metrics = list(template.of_type("AWS::CloudWatch::Alarm").items())
        for name, policy in template.of_type("AWS::ApplicationAutoScaling::ScalingPolicy").items():
            tracking = policy["TargetTrackingScalingPolicyConfiguration"]
            if "CustomizedMetricSpecification" in tracking:
                metrics.append((name, tracking["CustomizedMetricSpecification"]))
        for name, one in metrics:
            if "MetricName" in one:
                dimensions = {pair["Name"]: pair["Value"] for pair in one.get("Dimensions", [])}
                yield stack, name, one["Namespace"], one["MetricName"], dimensions
        for name, board in template.of_type("AWS::CloudWatch::Dashboard").items():
            for widget in json.loads(board["DashboardBody"])["widgets"]:
                for namespace, figure, *rest in _whole_rows(widget["properties"]["metrics"]):
                    yield stack, name, namespace, figure, dict(zip(rest[::2], rest[1::2], strict=True))


def _whole_rows(rows: list[list[Any]]) -> Iterator[list[str]]:
    """Metrics of a widget in full: `.` stands for what is above it, `...` for all that is."""
    above: list[str] = []
    for row in rows:
        texts = [one for one in row if isinstance(one, str)]
        if texts[0] == "...":
            texts = above[: 1 - len(texts)] + texts[1:]
        above = [above[place] if text == "." else text for place, text in enumerate(texts)]
        yield above


@cache
def queue_names(shards: int) -> frozenset[str]:
    """The queues that keep their names, and their dead letters, of the catalogue."""
    queues = [
        Queue(consumer, topic, (), shard=shard, shards=shards)
        for topic in TOPICS
        for consumer in topic.consumers
        for shard in (None, *range(shards))
    ]
    return frozenset(name for one in queues for name in (one.name, one.dead_letters))
