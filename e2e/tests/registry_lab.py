"""Registries on real machines: what the operator made of them, and what tests wait for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from agni_e2e import Cluster, PlatformError, places
from agni_e2e.machine import RealMachine
from agni_e2e.waiting import until
from agni_images.names import image_name

CHART = places.REPOSITORY / "charts/agniregistry"
OPERATOR_IMAGE = image_name("agniregistry-operator")
OPERATOR_SPACE = "agni-system"
RELEASE = "agniregistry"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
PYTHON = "/usr/bin/python3.11"
READY_S = 240.0
POLL_S = 0.5
USER_ID = 65532


def make_namespace(cluster: Cluster, name: str) -> None:
    """A namespace in which only restricted pods may run."""
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, RESTRICTED)


def load_images(cluster: Cluster) -> None:
    """Makes both images known to all machines; where they aren't ours, they must be already."""
    for archive in (places.NODE_IMAGE, places.OPERATOR_IMAGE):
        assert archive.exists(), "run `make images` first"
        if cluster.place != "existing":
            cluster.load_image(archive)


def install_operator(cluster: Cluster, chart: Path = CHART) -> None:
    """`helm install`, until the operator is ready."""
    wait = ("--wait", "--timeout", "180s")
    cluster.helm("install", RELEASE, str(chart), "-n", OPERATOR_SPACE, *wait)


def restricted_pod(name: str, container: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod of one container from the operator's image, which holds the SDK and an interpreter."""
    inside = {
        "name": "main",
        "image": OPERATOR_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    whole = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [inside | dict(container)],
    }
    meta = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": whole | spec}


def client_certificate(
    registry: Registry, name: str, *, generation: int = 1, **more: Any
) -> dict[str, Any]:
    """A client's certificate, as docs/kubernetes.md says; its Secret is NAME-tls."""
    spec = {
        "secretName": f"{name}-tls",
        "uris": [f"spiffe://{registry.trust_domain}/t/default/agent/{name}"],
        "usages": ["digital signature", "client auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 256},
        "issuerRef": {"name": f"{registry.name}-ca-{generation}"},
    }
    meta = {"name": name, "namespace": registry.namespace}
    kind = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate"}
    return {**kind, "metadata": meta, "spec": spec | more}


def real_machine(cluster: Cluster, name: str) -> RealMachine:
    """A machine that may be broken; where machines aren't ours, the test is left out."""
    machine = cluster.machines.get(name)
    if not isinstance(machine, RealMachine):
        pytest.skip("the machines of an existing cluster are left alone")
    return machine


class Registry:
    """One AgniRegistry."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.trust_domain = f"{name}.{namespace}.registry.internal"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Kubectl in the registry's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object, or all of a kind, of the registry's namespace."""
        return self.cluster.get(*arguments, "-n", self.namespace)

    def create(self, *objects: Mapping[str, Any]) -> None:
        """Applies objects."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([dict(each) for each in objects]))

    def apply(self, spec: Mapping[str, Any]) -> None:
        """Writes the whole spec, as somebody does from Git."""
        found = {
            "apiVersion": "agnistack.online/v1alpha1",
            "kind": "AgniRegistry",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(found))

    def patch(self, kind: str, name: str, content: Mapping[str, Any], *words: str) -> None:
        """Changes an object (merge patch)."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(content), *words)

    def resource(self) -> dict[str, Any]:
        """The resource itself."""
        return self.get("agnireg", self.name)

    def status(self) -> dict[str, Any]:
        """What the operator says of it."""
        return dict(self.resource().get("status") or {})

    def condition(self, kind: str) -> dict[str, Any]:
        """One of its conditions; empty before the operator has set it."""
        conditions = self.status().get("conditions") or ()
        return next((each for each in conditions if each["type"] == kind), {})

    def pod(self, index: int) -> dict[str, Any]:
        """A node's pod; empty while there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}-{index}-0"
        return self.cluster.api.find(path) or {}

    def uid(self, index: int) -> str:
        """Which pod a node's is now."""
        return str(self.pod(index).get("metadata", {}).get("uid", ""))

    def machine_of(self, index: int) -> str:
        """Where a node runs."""
        return str(self.pod(index)["spec"]["nodeName"])

    def client_address(self, index: int) -> str:
        """host:port of a node for clients."""
        return f"{self.name}-{index}-0.{self.name}-nodes.{self.namespace}.svc:7400"

    @property
    def service_address(self) -> str:
        """host:port of the Service for clients."""
        return f"{self.name}.{self.namespace}.svc:7400"

    def until(self, what: str, condition: Callable[[], object], timeout_s: float) -> None:
        """Waits for something of this registry; what the operator says is told if it never is."""
        try:
            until(what, condition, timeout_s=timeout_s, poll_s=POLL_S)
        except PlatformError as error:
            status = json.dumps(self.status(), indent=1)
            pods = self.kubectl("get", "pods", "-o", "wide")
            raise AssertionError(f"{error}\n{pods}\n{status}") from error

    def settled(self, timeout_s: float = READY_S) -> None:
        """Waits until the registry is as it is written, and nothing is going on."""
        self.until(f"{self.name} is ready", self.is_settled, timeout_s)

    def is_settled(self) -> bool:
        """Whether it is now."""
        found = self.resource()
        status = found.get("status") or {}
        conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        return (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and conditions.get("Ready") == "True"
            and conditions.get("Reconciling") == "False"
            and status.get("readyNodes") == found["spec"]["nodes"] == status.get("currentNodes")
        )

    def replaced(self, index: int, uid: str, timeout_s: float = READY_S) -> None:
        """Waits until a node's pod is another one than it was, and ready."""

        def is_new() -> bool:
            return self.uid(index) not in ("", uid) and is_ready(self.pod(index))

        self.until(f"{self.name}-{index} is back", is_new, timeout_s)

    def python(self, pod: str, script: str) -> str:
        """Runs a script in a pod; answers what it prints."""
        return self.kubectl("exec", "-i", pod, "--", PYTHON, "-", stdin=script)

    def delete(self) -> None:
        """Deletes the namespace with all that is in it."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=true")


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready, and not about to go."""
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = [each["status"] for each in conditions if each["type"] == "Ready"]
    return ready == ["True"] and "deletionTimestamp" not in pod["metadata"]
