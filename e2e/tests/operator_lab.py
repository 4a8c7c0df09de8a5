"""A registry of the quick tier, the operators that look after it, and what tests ask of both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_handle import OperatorProcess
from played_registry import ROOT
from theatre import Theatre

from agni_e2e import Cluster, PlatformError
from agni_e2e.api import Api
from agni_e2e.waiting import until

CRD = ROOT / "crds/agniregistries.agnistack.online.yaml"
SCRIPT = Path(__file__).with_name("operator_process.py")
SETTLE_S = 120.0
SPEC = {
    "nodes": 3,
    "partitions": 4,
    "image": "registry:1",
    "storage": {"size": "256Mi"},
    "repair": {"after": "5s"},
}
KINDS = (
    *("api/v1 services", "api/v1 configmaps", "api/v1 persistentvolumeclaims", "api/v1 pods"),
    *("api/v1 serviceaccounts", "apis/apps/v1 statefulsets"),
    *("apis/policy/v1 poddisruptionbudgets", "apis/networking.k8s.io/v1 networkpolicies"),
    *("apis/cert-manager.io/v1 certificates", "apis/cert-manager.io/v1 issuers"),
    "apis/cert-manager.io/v1 certificaterequests",
)
"""All that a registry has in its namespace."""


def registry_of(namespace: str, **changes: Any) -> dict[str, Any]:
    """A resource, small and quick to replace what is lost."""
    return {
        "apiVersion": "agnistack.online/v1alpha1",
        "kind": "AgniRegistry",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": SPEC | changes,
    }


def install_crd(cluster: Cluster) -> None:
    """Makes the API server know registries."""
    cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    cluster.tools.wait_for_crds("agniregistries.agnistack.online")


class Operators:
    """Operators as processes, each with a folder and a log of its own."""

    def __init__(self, cluster: Cluster, theatre: Theatre, scratch: Path) -> None:
        self._cluster, self._theatre, self._scratch = cluster, theatre, scratch
        self.started: list[OperatorProcess] = []

    def start(
        self,
        *namespaces: str,
        token: str = "",
        lease: str = "operator",
        lease_namespace: str = "",
        failpoint: str = "",
        log_level: str = "info",
        image: str = "registry:0",
    ) -> OperatorProcess:
        """Starts one for some namespaces, or for all of them."""
        name = f"operator-{os.urandom(4).hex()}"
        folder = self._scratch / name
        folder.mkdir(parents=True)
        command = [sys.executable, str(SCRIPT), self._theatre.socket]
        command += ["--namespaces", ",".join(namespaces), "--image", image]
        command += ["--scratch", str(folder / "run"), "--listen", "127.0.0.1:0"]
        command += ["--lease-name", lease]
        command += ["--lease-namespace", lease_namespace or (namespaces or ("default",))[0]]
        command += ["--log-level", log_level]
        path = [str(ROOT / part) for part in ("e2e/tests", "src", "operator/src")]
        environment = {
            "KUBECONFIG": str(self._kubeconfig(folder, token)),
            "PYTHONPATH": os.pathsep.join(path),
            "AGNI_OPERATOR_FAILPOINT": failpoint,
        }
        pid = self._cluster.processes.start(name, command, environment=environment)
        self.started.append(OperatorProcess(self._cluster.processes, name, pid))
        return self.started[-1]

    def _kubeconfig(self, folder: Path, token: str) -> Path:
        """The administrator's, or one for whoever the token is of."""
        if not token:
            return self._cluster.kubeconfig
        config = yaml.safe_load(self._cluster.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def close(self) -> None:
        """Stops those that run, in good order."""
        for operator in self.started:
            operator.stop()


class Lab:
    """A registry, its stage, and operators that may be exchanged."""

    def __init__(
        self, cluster: Cluster, namespace: str, theatre: Theatre, operators: Operators
    ) -> None:
        self.cluster, self.namespace, self.operators = cluster, namespace, operators
        self.stage = theatre.stage(namespace, "web")
        self._path = f"/apis/agnistack.online/v1alpha1/namespaces/{namespace}/agniregistries/web"

    def start(self, **options: Any) -> OperatorProcess:
        """Starts an operator for this namespace."""
        return self.operators.start(self.namespace, **options)

    def apply(self, **changes: Any) -> None:
        """Writes the registry's resource as somebody with kubectl does."""
        text = yaml.safe_dump(registry_of(self.namespace, **changes))
        self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)

    def registry(self) -> dict[str, Any]:
        """The resource as it is now."""
        return self.cluster.api.get(self._path)

    def status(self) -> dict[str, Any]:
        """Its status; empty before the first look."""
        found: dict[str, Any] = self.registry().get("status") or {}
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """One of its conditions; empty where it isn't set."""
        conditions = self.status().get("conditions") or ()
        return next((c for c in conditions if c["type"] == kind), {})

    def is_settled(self) -> bool:
        """Whether the resource says that all is as it is written now."""
        found = self.registry()
        status = found.get("status") or {}
        is_new = status.get("observedGeneration") == found["metadata"]["generation"]
        ready = {c["type"]: c["status"] for c in status.get("conditions") or ()}.get("Ready")
        return is_new and ready == "True"

    def settled(self, timeout_s: float = SETTLE_S) -> None:
        """Waits until it is."""
        try:
            until("the registry is ready", self.is_settled, timeout_s=timeout_s)
        except PlatformError as error:
            raise AssertionError(json.dumps(self.status(), indent=1)) from error

    def says(self, kind: str, reason: str, timeout_s: float) -> dict[str, Any]:
        """Waits until a condition has a reason, and answers the condition."""

        def said() -> dict[str, Any]:
            found = self.condition(kind)
            return found if found.get("reason") == reason else {}

        try:
            return until(f"{kind} has the reason {reason}", said, timeout_s=timeout_s)
        except PlatformError as error:
            raise AssertionError(json.dumps(self.status(), indent=1)) from error

    def children(self) -> dict[str, dict[str, Any]]:
        """All objects of the registry: `certificates/web-0` and so on."""
        found = {}
        for kind in KINDS:
            version, plural = kind.split()
            path = f"/{version}/namespaces/{self.namespace}/{plural}"
            for item in self.cluster.api.get(path)["items"]:
                found[f"{plural}/{item['metadata']['name']}"] = item
        return found

    def pods(self) -> dict[str, str]:
        """The pods' names, and which pods they are."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        items = self.cluster.api.get(path)["items"]
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in items}

    def writes(self) -> list[str]:
        """All operators' writes so far but for leases, by the API server's own audit log."""
        found = []
        for line in self.cluster.audit_log.read_text().splitlines():
            entry = json.loads(line)
            is_write = entry["verb"] not in ("get", "list", "watch")
            mine = entry.get("userAgent", "").startswith("agniregistry-operator")
            reference = entry.get("objectRef") or {}
            if is_write and mine and reference.get("resource") != "leases":
                found.append(f"{entry['verb']} {reference.get('resource')} {reference.get('name')}")
        return found


@contextmanager
def several(
    cluster: Cluster, theatre: Theatre, operators: Operators, spaces: list[str]
) -> Iterator[list[Lab]]:
    """A lab in each of some namespaces, which are made and go again; nothing is applied yet."""
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": s}} for s in spaces]
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(made))
    try:
        yield [Lab(cluster, space, theatre, operators) for space in spaces]
    finally:
        cluster.kubectl("delete", "namespace", "--wait=false", *spaces)


@pytest.fixture
def theatre(quick: Cluster) -> Iterator[Theatre]:
    install_crd(quick)
    api = Api(quick.kubeconfig)
    found = Theatre(api)
    yield found
    found.close()
    api.close()


@pytest.fixture
def operators(quick: Cluster, theatre: Theatre, tmp_path: Path) -> Iterator[Operators]:
    found = Operators(quick, theatre, tmp_path)
    yield found
    found.close()


@pytest.fixture
def lab(quick: Cluster, namespace: str, theatre: Theatre, operators: Operators) -> Lab:
    return Lab(quick, namespace, theatre, operators)
