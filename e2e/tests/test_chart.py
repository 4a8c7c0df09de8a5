"""The chart on a real API server: what it may, what it refuses, what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from audit import requests_of
from chart_account import CHART, account_of_chart
from operator_lab import Lab
from played_registry import ROOT

from agni_e2e import Cluster, PlatformError


def rendered(cluster: Cluster, *values: str) -> list[dict[str, Any]]:
    sets = [part for value in values for part in ("--set", value)]
    text = cluster.helm("template", "it", CHART, "--kube-version", "1.34.4", *sets)
    return [found for found in yaml.safe_load_all(text) if found]


def test_chart_is_sound_and_bad_values_are_refused(quick: Cluster) -> None:
    quick.helm("lint", "--strict", CHART)
    for value, words in {
        "replica=1": "replica",
        "replicas=9": "replicas",
        "logLevel=loud": "logLevel",
        "watchNamespaces={Shop}": "watchNamespaces",
        "registry.create=true": "nodes",
        "image.repository=": "repository",
    }.items():
        with pytest.raises(PlatformError, match=words):
            rendered(quick, value)


def test_chart_has_the_one_crd_and_keeps_it(quick: Cluster) -> None:
    source = Path(ROOT / "crds/agniregistries.agnistack.online.yaml").read_text()
    copy = Path(CHART) / "files/agniregistries.agnistack.online.yaml"
    assert copy.read_text() == source
    crd = next(m for m in rendered(quick) if m["kind"] == "CustomResourceDefinition")
    assert crd["spec"] == yaml.safe_load(source)["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    without = rendered(quick, "crds.create=false")
    assert not [m for m in without if m["kind"] == "CustomResourceDefinition"]


def test_chart_asks_for_little(quick: Cluster) -> None:
    for values in ((), ("watchNamespaces={shop}",)):
        for found in rendered(quick, *values):
            for rule in found.get("rules", ()):
                assert "secrets" not in rule["resources"]
                assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
    small = rendered(quick, "watchNamespaces={shop}", "machines=false")
    assert not [m for m in small if m["kind"].startswith("ClusterRole")]
    pods = [m for m in rendered(quick) if m["kind"] in ("Deployment", "Pod")]
    for pod in pods:
        spec = pod["spec"].get("template", pod)["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        context = spec["containers"][0]["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_rights_of_the_whole_cluster_suffice(lab: Lab) -> None:
    run_with_rights_of_the_chart(lab, "cluster")


def test_rights_of_a_namespace_suffice(lab: Lab) -> None:
    run_with_rights_of_the_chart(lab, "namespace")


def run_with_rights_of_the_chart(lab: Lab, scope: str) -> None:
    """It runs with the chart's own account, founds, grows and shrinks, and nothing is refused."""
    space = lab.namespace
    values = (f"watchNamespaces={{{space}}}",) if scope == "namespace" else ()
    with account_of_chart(lab, *values, release=f"r{scope}") as account:
        lab.apply()
        lab.start(token=account.token, lease=account.name)
        lab.settled()
        lab.apply(nodes=4, storage={"size": "300Mi"}, networkPolicy={"enabled": False})
        lab.settled()
        lab.apply(nodes=3, storage={"size": "300Mi"})
        lab.settled()
        stalled = lab.condition("Stalled")
        assert stalled["status"] == "False", stalled
        events = lab.cluster.get("events", "-n", space)["items"]
        refused = [e["message"] for e in events if "refused" in e["message"]]
        assert not refused
        codes = [line.split()[-1] for line in requests_of(lab.cluster, account.user, writes=False)]
        assert "403" not in codes
    kept = lab.cluster.get("agnireg", "web", "-n", space)
    assert kept["spec"]["nodes"] == 3, "the CRD and the registry outlive the chart"
