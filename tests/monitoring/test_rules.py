"""Dashboard and alerts ask only for what nodes really tell, and every alert has a remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import faults, needs
from three_nodes import NODES, ThreeNodes

from agniregistry.cli.exposition import Page, parse

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts/agniregistry/files"
DASHBOARD = json.loads((FILES / "dashboards/agniregistry.json").read_text())
ALERTS, OF_THE_OPERATOR = (
    [
        rule
        for group in yaml.safe_load((FILES / name).read_text())["groups"]
        for rule in group["rules"]
    ]
    for name in ("alerts.yaml", "operator-alerts.yaml")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TEMPLATED = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)")


def status_words() -> set[str]:
    """Every gRPC status: a node tells of those alone that it has answered."""
    source = (ROOT / "node/crates/agni-server/src/status.rs").read_text()
    body = source.partition("pub fn code_word")[2].partition("\n}")[0]
    return set(re.findall(r'=> "([A-Z_]+)"', body))


WORDS = {"code": status_words()}


@pytest.fixture(scope="session")
def pages(cluster: ThreeNodes) -> list[Page]:
    """What the nodes tell."""
    return [parse(cluster.text(number, "/metrics")) for number in range(NODES)]


def panel_expressions() -> list[tuple[str, str]]:
    return [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in PANELS
        for target in panel["targets"]
    ]


def test_every_panel_asks_for_what_there_is(pages: list[Page]) -> None:
    found = panel_expressions()
    said = {name: told for name, expr in found if (told := faults(expr, pages, WORDS))}
    assert not said
    assert len(found) > 60


def test_every_alert_asks_for_what_there_is(pages: list[Page]) -> None:
    said = {rule["alert"]: told for rule in ALERTS if (told := faults(rule["expr"], pages, WORDS))}
    assert not said
    assert len(ALERTS) > 25


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("agni_redy == 0", "there is no metric agni_redy"),
        ("rate(agni_fsync_seconds_total[5m])", "there is no metric agni_fsync_seconds_total"),
        ("agni_fsync_seconds > 1", "there is no metric agni_fsync_seconds"),
        ('sum(rate(agni_rpc_total{methd="Get"}[5m]))', "agni_rpc_total has no label methd"),
        ('agni_rpc_seconds_sum{method="Fetch"}', "agni_rpc_seconds_sum has no method 'Fetch'"),
        ('agni_rpc_total{code=~"OK|FINE"}', "agni_rpc_total has no code 'FINE'"),
        ("sum by (partitoin) (agni_leader)", "nothing here has a label partitoin"),
        ("agni_leader * on (partitoin) agni_replica", "nothing here has a label partitoin"),
    ],
)
def test_a_planted_fault_is_found(pages: list[Page], expression: str, fault: str) -> None:
    assert fault in faults(expression, pages, WORDS)


@pytest.mark.parametrize("expression", ["rate(agni_ready)", "sum by (agni_ready", "a[5m] > 1"])
def test_what_is_no_promql_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        needs(expression)


def test_every_metric_of_trouble_is_looked_at(pages: list[Page]) -> None:
    """Each metric stands on the dashboard or in an alert: one that nobody sees helps nobody."""
    seen = set()
    for _, expression in panel_expressions():
        seen |= needs(expression).names
    for rule in ALERTS:
        seen |= needs(rule["expr"]).names
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in seen}
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for page in pages for name in page.samples}
    # Totals of what the dashboard shows as a state; figures for `cluster top` and for people.
    others = {"agni_connections_total", "agni_revision", "agni_tls_reloads_total",
              "agni_tls_reload_failures_total", "agni_voters", "agni_replication",
              "agni_mass_expiries_total"}  # fmt: skip
    assert told - families - others == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_severity_and_a_remedy(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert notes["summary"].strip()
    assert notes["description"].strip()
    page, _, anchor = notes["runbook"].partition("#")
    assert anchor in anchors(ROOT / page), f"{page} has no section {anchor}"
    # What is named in a text must be left in what the expression answers with.
    named = {
        label
        for text in notes.values()
        for label in re.findall(r"\$labels\.(\w+)", text)
    } - {"namespace", "job", "instance"}  # fmt: skip
    answered = needs(rule["expr"])
    selected = set(answered.grouped)
    if rule["expr"].startswith("agni_") or "(" not in rule["expr"]:
        selected |= {"node_id", "partition"}
    assert named <= selected


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


def test_every_section_of_the_runbook_is_of_an_alert() -> None:
    every = [*ALERTS, *OF_THE_OPERATOR]
    named = {rule["annotations"]["runbook"].partition("#")[2] for rule in every}
    assert anchors(ROOT / "docs/runbook.md") - {"runbook"} == named
    text = (ROOT / "docs/runbook.md").read_text()
    missing = [rule["alert"] for rule in every if f"`{rule['alert']}`" not in text]
    assert not missing


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in [*ALERTS, *OF_THE_OPERATOR]]
    assert len(set(names)) == len(names)


def test_grafana_can_import_the_dashboard() -> None:
    """What Grafana's schema asks for: ids that differ, panels that don't overlap, variables."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    variables = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] in ("timeseries", "stat")
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= set(variables)
            kept = needs(target["expr"]).grouped
            wanted = set(TEMPLATED.findall(target["legendFormat"]))
            assert wanted <= kept | {"instance", "partition"}, target["expr"]
    assert set(re.findall(r"label_values\((\w+)", json.dumps(DASHBOARD))) == {"agni_ready"}
