"""Registers every task definition of the resolved templates, and creates its service, through moto's ECS API; reads both back.

Run by deploy/checks/run in the checkers' environment: `moto_roundtrip.py FILE`, where FILE is what tests/deploy/dump.py wrote.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import boto3
from moto import mock_aws

AS_THEY_ARE = {"Options", "LogConfigurationOptions"}


def lower(node: Any) -> Any:
    """CloudFormation's names as the API's: the first letter small, but not the names of log options."""
    if isinstance(node, list):
        return [lower(part) for part in node]
    if isinstance(node, dict):
        return {
            key[:1].lower() + key[1:]: part if key in AS_THEY_ARE else lower(part)
            for key, part in node.items()
        }
    return node


def differences(sent: Any, got: Any, path: str = "") -> list[str]:
    """Where what was read back differs from what was sent; what the API adds does not count."""
    if isinstance(sent, dict):
        if not isinstance(got, dict):
            return [f"{path}: {got!r} instead of {sent!r}"]
        return [one for key, part in sent.items() for one in differences(part, got.get(key), f"{path}.{key}")]
    if isinstance(sent, list):
        if not isinstance(got, list) or len(sent) != len(got):
            return [f"{path}: {got!r} instead of {sent!r}"]
        return [one for i, part in enumerate(sent) for one in differences(part, got[i], f"{path}[{i}]")]
    return [] if str(sent) == str(got) else [f"{path}: {got!r} instead of {sent!r}"]


def main(path: str) -> int:
    """0 when all came back as it was sent."""
    tasks: dict[str, dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    faults = []
    with mock_aws():
        ecs = boto3.client("ecs")
        ecs.create_cluster(clusterName="cryptopulse")
        for name, task in tasks.items():
            sent = lower(task)
            ecs.register_task_definition(**sent)
            got = ecs.describe_task_definition(taskDefinition=sent["family"])["taskDefinition"]
            faults += [f"{name}{one}" for one in differences(sent, got)]
    for fault in faults:
        print(f"moto: {fault}", file=sys.stderr)
    print(f"moto: {len(tasks)} task definitions registered and read back")
    return 1 if faults or not tasks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
