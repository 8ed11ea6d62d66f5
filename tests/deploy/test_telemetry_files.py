"""Rules and dashboards speak of metrics that the code makes, with labels that it gives, and every alert has its page and test."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryptopulse.common.telemetry.metrics import names
from tests.deploy.policies import runbook_anchors

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
NAME = re.compile(r"\bcryptopulse_[a-z0-9_]+\b")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


@cache
def made() -> frozenset[str]:
    """The metrics that some module asks for; a name alone in the list of names is not one."""
    modules = [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    text = "\n".join(one.read_text(encoding="utf-8") for one in modules if one.name != "metric_names.py")
    return frozenset(re.findall(r'(?:counter|gauge|histogram)\(\s*"(cryptopulse_\w+)"', text)) & names()


def rules() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def expressions() -> list[tuple[str, str]]:
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [
                (f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])
            ]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_a_metric_that_is_looked_at_is_made_by_the_code(where: str, expression: str) -> None:
    for name in NAME.findall(expression):
        if expression.count(f"{name}:"):  # a recorded series
            continue
        assert (name in made()) or (SUFFIX.sub("", name) in made()), f"{where} looks at {name}"


def test_recorded_series_that_are_looked_at_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    looked_at = {name for _, text in expressions() for name in re.findall(r"\b\w+:\w+:\w+\b", text)}
    assert looked_at <= recorded


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_has_a_severity_a_page_and_a_test(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == "docs/ops/runbooks.md"
    assert anchor == alert["alert"].lower()
    assert anchor in runbook_anchors()
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "deploy/prometheus/tests").glob("*.yml"))
    assert f"alertname: {alert['alert']}" in tests


def test_buckets_that_objectives_count_exist() -> None:
    from cryptopulse.common.telemetry.metrics import LATENCY_BUCKETS

    bounds = {bound for _, text in expressions() for bound in re.findall(r'le="([0-9.]+)"', text)}
    assert bounds <= {str(bound) for bound in LATENCY_BUCKETS}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert board["uid"].startswith("cp-")
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "prometheus"
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_prometheus_scrapes_every_service_at_its_port() -> None:
    from cryptopulse.common.config import SERVICES

    document = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    found = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in document["scrape_configs"]}
    assert found == {name: facts.port for name, facts in SERVICES.items()}
