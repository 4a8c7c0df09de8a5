"""The quick tier: what of Kubernetes is real in it, and what its played machines do."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from workloads import (
    applied,
    budget,
    certificates,
    service,
    stateful_set,
    widget,
    widget_definition,
)

from agni_e2e import Cluster, PlatformError
from agni_e2e.api import Object
from agni_e2e.fake_kubelet import Behaviour, at_once
from agni_e2e.waiting import until

SETTLE_S = 60.0


def pods(cluster: Cluster, namespace: str) -> list[Object]:
    return list(cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"])


def wait_ready(cluster: Cluster, namespace: str, name: str, replicas: int) -> None:
    expected = f"--for=jsonpath={{.status.readyReplicas}}={replicas}"
    cluster.kubectl("-n", namespace, "wait", expected, f"sts/{name}", "--timeout=60s")


def test_custom_resources_are_checked_by_the_api_server(quick: Cluster, namespace: str) -> None:
    quick.kubectl("apply", "-f", "-", stdin=applied(widget_definition()))
    quick.tools.wait_for_crds("widgets.e2e.agnistack.online")
    with pytest.raises(PlatformError, match="replicas must be odd"):
        quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=applied(widget(2)))
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=applied(widget(3)))
    with pytest.raises(PlatformError, match="storage can't be changed"):
        quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=applied(widget(3, "2Gi")))
    quick.kubectl("-n", namespace, "scale", "widget/widget", "--replicas=5")
    assert quick.get("widget", "widget", "-n", namespace)["spec"]["replicas"] == 5


def test_stateful_set_gets_pods_zones_and_volumes(quick: Cluster, namespace: str) -> None:
    objects = applied(service("web"), budget("web"), stateful_set("web", 3))
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
    wait_ready(quick, namespace, "web", 3)
    zones = {quick.machines[pod["spec"]["nodeName"]].zone for pod in pods(quick, namespace)}
    assert zones == {"zone-1", "zone-2", "zone-3"}
    claims = quick.get("pvc", "-n", namespace)["items"]
    assert [claim["status"]["phase"] for claim in claims] == ["Bound"] * 3

    quick.kubectl("-n", namespace, "set", "image", "sts/web", "app=e2e.local/app:2")
    quick.tools.replace("pod", "web-1", namespace)
    wait_ready(quick, namespace, "web", 3)
    images = {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in pods(quick, namespace)
    }
    # The strategy is OnDelete: only who was deleted has the new image.
    assert images == {
        "web-0": "e2e.local/app:1",
        "web-1": "e2e.local/app:2",
        "web-2": "e2e.local/app:1",
    }


def test_budget_stops_a_second_eviction(quick: Cluster, namespace: str) -> None:
    # A pod that takes its time to be Ready again keeps the budget used up.
    quick.kubelets.rule = lambda pod: Behaviour(
        ready_after_s=3.0 if pod["metadata"]["namespace"] == namespace else 0.0
    )
    try:
        objects = applied(service("web"), budget("web"), stateful_set("web", 3))
        quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
        wait_ready(quick, namespace, "web", 3)
        allowed = "--for=jsonpath={.status.disruptionsAllowed}=1"
        quick.kubectl("-n", namespace, "wait", allowed, "pdb/web", "--timeout=30s")
        evict(quick, namespace, "web-0")
        with pytest.raises(PlatformError, match="disruption budget"):
            evict(quick, namespace, "web-2")
        wait_ready(quick, namespace, "web", 3)
    finally:
        quick.kubelets.rule = at_once


def evict(cluster: Cluster, namespace: str, name: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    cluster.api.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)


def test_pod_that_cannot_start_says_why_until_it_can(quick: Cluster, namespace: str) -> None:
    quick.kubelets.rule = lambda pod: Behaviour(
        waiting_reason="ImagePullBackOff" if pod["metadata"]["namespace"] == namespace else ""
    )
    try:
        objects = applied(service("web"), stateful_set("web", 1))
        quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
        path = "{.status.containerStatuses[0].state.waiting.reason}"
        waiting = f"--for=jsonpath={path}=ImagePullBackOff"
        quick.kubectl("-n", namespace, "wait", "--for=create", "pod/web-0", "--timeout=30s")
        quick.kubectl("-n", namespace, "wait", waiting, "pod/web-0", "--timeout=30s")
    finally:
        quick.kubelets.rule = at_once
    quick.kubelets.retry()
    wait_ready(quick, namespace, "web", 1)


def test_volume_grows_and_goes_with_its_claim(quick: Cluster, namespace: str) -> None:
    objects = applied(service("web"), stateful_set("web", 1), stateful_set("rigid", 0))
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
    wait_ready(quick, namespace, "web", 1)
    claim = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/data-web-0"
    volume = quick.api.get(claim)["spec"]["volumeName"]
    quick.api.patch(claim, {"spec": {"resources": {"requests": {"storage": "3Gi"}}}})
    until(
        "the claim has grown",
        lambda: quick.api.get(claim)["status"]["capacity"]["storage"] == "3Gi",
        timeout_s=SETTLE_S,
    )
    quick.kubectl("-n", namespace, "delete", "sts", "web")
    quick.kubectl("-n", namespace, "delete", "pod,pvc", "--all", "--timeout=30s")
    until(
        "the volume is gone",
        lambda: quick.api.find(f"/api/v1/persistentvolumes/{volume}") is None,
        timeout_s=SETTLE_S,
    )


def test_silent_machine_is_noticed_and_comes_back(quick: Cluster, namespace: str) -> None:
    objects = applied(service("web"), stateful_set("web", 3))
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
    wait_ready(quick, namespace, "web", 3)
    name = quick.get("pod", "web-0", "-n", namespace)["spec"]["nodeName"]
    machine = quick.machines[name]
    machine.power_off()
    try:
        silent = "--for=condition=Ready=Unknown"
        quick.kubectl("wait", silent, f"node/{name}", "--timeout=60s")
        lost = "--for=condition=Ready=False"
        quick.kubectl("-n", namespace, "wait", lost, "pod/web-0", "--timeout=30s")
    finally:
        machine.power_on()
    quick.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=30s")
    wait_ready(quick, namespace, "web", 3)


def test_drain_evicts_and_uncordon_lets_back(quick: Cluster, namespace: str) -> None:
    objects = applied(service("web"), budget("web"), stateful_set("web", 3))
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
    wait_ready(quick, namespace, "web", 3)
    machine = quick.machines[quick.get("pod", "web-1", "-n", namespace)["spec"]["nodeName"]]
    machine.drain()
    try:
        on_it = [
            pod for pod in pods(quick, namespace) if pod["spec"].get("nodeName") == machine.name
        ]
        assert on_it == []
    finally:
        machine.uncordon()
    # Its volume is on that machine, so it waited for it.
    wait_ready(quick, namespace, "web", 3)
    assert quick.get("pod", "web-1", "-n", namespace)["spec"]["nodeName"] == machine.name


def test_certificates_are_issued_and_issued_again(quick: Cluster, namespace: str) -> None:
    quick.kubectl("-n", namespace, "apply", "-f", "-", stdin=applied(*certificates()))
    ready = ("wait", "--for=condition=Ready", "certificate/leaf", "--timeout=60s")
    quick.kubectl("-n", namespace, *ready)
    leaf, root = secret_certificates(quick, namespace)
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://e2e/registry/node/web-1"]
    quick.tools.replace("secret", "leaf", namespace)
    again, _ = secret_certificates(quick, namespace)
    assert again.serial_number != leaf.serial_number


def secret_certificates(
    cluster: Cluster, namespace: str
) -> tuple[x509.Certificate, x509.Certificate]:
    data = cluster.get("secret", "leaf", "-n", namespace)["data"]
    leaf, root = (
        x509.load_pem_x509_certificate(base64.b64decode(data[name]))
        for name in ("tls.crt", "ca.crt")
    )
    return leaf, root


def test_helm_installs_a_chart(quick: Cluster, namespace: str, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    described = "apiVersion: v2\nname: small\nversion: 0.1.0\nkubeVersion: '>=1.30.0'\n"
    (chart / "Chart.yaml").write_text(described)
    template = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}"},
        "data": {"answer": "{{ .Values.answer }}"},
    }
    (chart / "templates" / "map.yaml").write_text(json.dumps(template))
    quick.helm("install", "one", str(chart), "-n", namespace, "--set", "answer=yes", "--wait")
    assert quick.get("configmap", "one", "-n", namespace)["data"] == {"answer": "yes"}
    quick.helm("uninstall", "one", "-n", namespace, "--wait")
    assert quick.api.find(f"/api/v1/namespaces/{namespace}/configmaps/one") is None


def test_audit_log_tells_who_wrote_what(quick: Cluster, namespace: str) -> None:
    quick.kubectl("-n", namespace, "create", "configmap", "written", "--from-literal=a=1")

    def written() -> list[Object]:
        lines = quick.audit_log.read_text().splitlines()
        events = [json.loads(line) for line in lines if '"configmaps"' in line]
        return [
            event
            for event in events
            if event["verb"] == "create"
            and event["objectRef"].get("name") == "written"
            and event["stage"] == "ResponseComplete"
        ]

    events = until("the request is logged", written, timeout_s=SETTLE_S)
    assert [event["user"]["username"] for event in events] == ["admin"]
