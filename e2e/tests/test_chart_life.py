"""A release's life on a real API server: installed as an older version, upgraded, uninstalled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from chart_account import CHART
from operator_lab import SETTLE_S, Lab, registry_of

from agni_e2e import Cluster
from agni_e2e.waiting import until

OLD, NEW = "0.0.9", "0.1.0"
RELEASE = "agniregistry"
CRD = "customresourcedefinition/agniregistries.agnistack.online"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
INLINE = {
    "create": True,
    "name": "inline",
    "spec": {"nodes": 1, "replicationFactor": 1, "storage": {"size": "256Mi"}},
}


def package(cluster: Cluster, version: str, folder: Path) -> str:
    """The chart as a release of some version."""
    versions = ("--version", version, "--app-version", version)
    cluster.helm("package", CHART, *versions, "--destination", str(folder))
    return str(folder / f"agniregistry-{version}.tgz")


def deployment(lab: Lab) -> dict[str, Any]:
    return lab.cluster.get("deployment", RELEASE, "-n", lab.namespace)


def node_image(lab: Lab) -> str:
    """The image that the chart's operator gives to nodes by default."""
    (container,) = deployment(lab)["spec"]["template"]["spec"]["containers"]
    env: dict[str, str] = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    return env["AGNI_NODE_IMAGE"]


def images(lab: Lab) -> set[str]:
    pods = lab.cluster.api.get(f"/api/v1/namespaces/{lab.namespace}/pods")["items"]
    mine = [p for p in pods if "agnistack.online/registry" in p["metadata"].get("labels", {})]
    return {pod["spec"]["containers"][0]["image"] for pod in mine}


def claims(lab: Lab) -> dict[str, str]:
    found = lab.cluster.get("pvc", "-n", lab.namespace)["items"]
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in found}


def test_from_an_older_version_to_the_end(lab: Lab, tmp_path: Path) -> None:
    space = ("-n", lab.namespace)
    helm, kubectl = lab.cluster.helm, lab.cluster.kubectl
    # Every pod of the operator and of the registry must be one that restricted namespaces take.
    kubectl("label", "namespace", lab.namespace, RESTRICTED)
    old = package(lab.cluster, OLD, tmp_path)
    helm("install", RELEASE, old, *space, "--wait", "--take-ownership")
    assert deployment(lab)["status"]["readyReplicas"] == 2
    account = kubectl(*space, "create", "token", RELEASE).strip()

    plain = registry_of(lab.namespace)
    del plain["spec"]["image"]
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(plain))
    operator = lab.start(token=account, lease=RELEASE, image=node_image(lab))
    lab.settled()
    assert images(lab) == {f"ghcr.io/agnistack/agniregistry-node:{OLD}"}
    volumes, crd = claims(lab), lab.cluster.get(CRD)["metadata"]["uid"]

    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"registry": INLINE}))
    helm("upgrade", RELEASE, CHART, *space, "--wait", "--values", str(values))
    operator.stop()
    lab.start(token=account, lease=RELEASE, image=node_image(lab))
    wait = ("wait", "--for=condition=Ready", "agnireg/inline", "--timeout=90s")
    kubectl(*space, *wait)
    new = {f"ghcr.io/agnistack/agniregistry-node:{NEW}"}
    until("all nodes have the new image", lambda: images(lab) == new, timeout_s=SETTLE_S)
    lab.settled()
    after = claims(lab)
    assert volumes.items() <= after.items(), "the update kept every volume"
    assert lab.stage.model.joins == 3
    assert lab.cluster.get(CRD)["metadata"]["uid"] == crd
    events = lab.cluster.get("events", *space)["items"]
    assert not [e["message"] for e in events if "refused" in e["message"]]
    assert_hook(lab)

    lab.operators.close()
    helm("uninstall", RELEASE, *space, "--wait")
    assert lab.cluster.get(CRD)["metadata"]["uid"] == crd, "the CRD stays"
    left = lab.cluster.get("agnireg", *space)["items"]
    assert [item["metadata"]["name"] for item in left] == ["web"], "what the chart made goes"
    assert claims(lab) == after, "all volumes stay, also of the registry that went"
    assert len(lab.cluster.get("statefulsets", *space)["items"]) >= 3
    kinds = "deployments,serviceaccounts,roles,rolebindings,services,poddisruptionbudgets"
    label = f"app.kubernetes.io/instance={RELEASE}"
    assert not lab.cluster.get(kinds, *space, "-l", label)["items"]
    cluster_wide = lab.cluster.get("clusterroles,clusterrolebindings", "-l", label)["items"]
    assert not cluster_wide


def assert_hook(lab: Lab) -> None:
    """`helm test` has one pod, and a restricted namespace takes it."""
    space = ("-n", lab.namespace)
    hooks = lab.cluster.helm("get", "hooks", RELEASE, *space)
    (hook,) = [found for found in yaml.safe_load_all(hooks) if found]
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
    dry = ("apply", "--dry-run=server", "-f", "-")
    lab.cluster.kubectl(*space, *dry, stdin=yaml.safe_dump(hook))
