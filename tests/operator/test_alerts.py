"""Alerts on the operator's metrics: they ask for what there is, and each has a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_plan import wanted

from agniregistry_operator.metrics import Metrics
from agniregistry_operator.model.observed import ClientCertificate, Observed
from agniregistry_operator.model.status import NodeStatus, Status
from agniregistry_operator.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts/agniregistry/files"
ALERTS = [
    rule
    for group in yaml.safe_load((FILES / "operator-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_asks_for_what_there_is_and_has_a_remedy(rule: dict[str, Any]) -> None:
    told = {metric.name for metric in Metrics().collected.collect()}
    assert set(re.findall(r"agni_operator_\w+", rule["expr"])) <= told
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"## {rule['alert']}\n" in (ROOT / page).read_text()


class Counted:
    writes = 0


def measured(client_ends: float | None = None, **changes: Any) -> dict[str, float]:
    runner = Runner.__new__(Runner)
    runner.namespace, runner.name = "shop", "web"
    runner._metrics, runner._kube = Metrics(), Counted()  # type: ignore[assignment]
    nodes = (NodeStatus("web-0", certificate_expiry=100_000.0), NodeStatus("web-1"))
    client = ClientCertificate("web-client-edge", not_after=client_ends)
    observed = Observed(own_clients={"edge": client})
    runner._measure(wanted(**changes), observed, Status(nodes=nodes))
    samples = [s for metric in runner._metrics.collected.collect() for s in metric.samples]
    return {sample.name: sample.value for sample in samples}


def test_a_registry_that_hibernates_misses_no_node() -> None:
    assert measured()["agni_operator_nodes"] == 3
    assert measured(hibernate=True)["agni_operator_nodes"] == 0


def test_a_short_certificate_is_not_late_all_the_time() -> None:
    """It should have been renewed when half of renewBefore is over, however long it lasts."""
    found = measured()
    assert found["agni_operator_certificate_due_seconds"] == 100_000 - 28 * 3600


def test_a_clients_certificate_that_ends_first_is_told_too() -> None:
    assert measured(90_000.0)["agni_operator_certificate_expiry_seconds"] == 90_000
    assert measured(110_000.0)["agni_operator_certificate_expiry_seconds"] == 100_000
