"""The operator on a real API server with cert-manager; only the registry's processes are played."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from played_registry import ROOT, PlayedLink, Stage

from agni_e2e import Cluster, PlatformError
from agni_e2e.api import Api
from agni_e2e.waiting import until
from agniregistry_operator.kube import find_connection
from agniregistry_operator.main import Options, run

CRD = ROOT / "crds/agniregistries.agnistack.online.yaml"
SETTLE_S = 120.0
QUIET_S = 45.0
"""Longer than the time between two looks of a settled registry."""
SPEC = {
    "nodes": 3,
    "partitions": 4,
    "image": "registry:1",
    "storage": {"size": "256Mi"},
    "repair": {"after": "5s"},
}


class Operator:
    """An operator in a thread; `kill` ends it between two awaits, as a crash would."""

    def __init__(
        self,
        kubeconfig: Path,
        scratch: Path,
        namespace: str,
        stage: Stage,
        token: str,
        lease: str,
    ) -> None:
        self._options = Options(
            [namespace], "registry:0", scratch, lease, namespace, "127.0.0.1:0",
            True, "info",
        )  # fmt: skip
        self._connection = self._connect(kubeconfig, scratch)
        if token:
            nobody = {"certificate_file": "", "key_file": "", "token": token}
            self._connection = replace(self._connection, **nobody)
        self._stage = stage
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.code: int | None = None
        self._thread.start()

    @staticmethod
    def _connect(kubeconfig: Path, scratch: Path) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(kubeconfig))
            patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
            return find_connection(scratch)

    def _work(self) -> None:
        async def main() -> int:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            link = partial(PlayedLink, stage=self._stage)
            return await run(self._options, self._connection, self._stop, link)

        self.code = asyncio.run(main())

    def stop(self) -> None:
        """Asks it to stop, and waits."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the operator doesn't stop"
        assert self.code == 0


class Lab:
    """A registry, its stage, and an operator that may be exchanged."""

    def __init__(self, cluster: Cluster, namespace: str, scratch: Path) -> None:
        self.cluster, self.namespace, self._scratch = cluster, namespace, scratch
        self._api = Api(cluster.kubeconfig)
        self.stage = Stage(self._api, namespace, "web")
        self.operators: list[Operator] = []

    def close_operators(self) -> None:
        for operator in self.operators:
            operator.stop()

    def close(self) -> None:
        self.close_operators()
        self._api.close()

    def start(self, token: str = "", lease: str = "operator") -> Operator:
        scratch = self._scratch / str(len(self.operators))
        operator = Operator(
            self.cluster.kubeconfig, scratch, self.namespace, self.stage, token, lease
        )
        self.operators.append(operator)
        return operator

    def apply(self, **changes: Any) -> None:
        found = {
            "apiVersion": "agnistack.online/v1alpha1",
            "kind": "AgniRegistry",
            "metadata": {"name": "web", "namespace": self.namespace},
            "spec": SPEC | changes,
        }
        self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(found))

    def registry(self) -> dict[str, Any]:
        return self.cluster.get("agnireg", "web", "-n", self.namespace)

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = (self.registry().get("status") or {}).get("conditions") or ()
        return next((c for c in conditions if c["type"] == kind), {})

    def settled(self) -> None:
        def is_ready() -> bool:
            found = self.registry()
            status = found.get("status") or {}
            is_new = status.get("observedGeneration") == found["metadata"]["generation"]
            ready = self.condition("Ready").get("status") == "True"
            return is_new and ready

        try:
            until("the registry is ready", is_ready, timeout_s=SETTLE_S)
        except PlatformError as error:
            raise AssertionError(json.dumps(self.registry().get("status"), indent=1)) from error

    def pods(self) -> dict[str, str]:
        items = self.cluster.get("pods", "-n", self.namespace)["items"]
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in items}

    def writes(self) -> list[str]:
        """The operator's writes so far, by the API server's own audit log."""
        found = []
        for line in self.cluster.audit_log.read_text().splitlines():
            entry = json.loads(line)
            is_write = entry["verb"] not in ("get", "list", "watch")
            mine = entry.get("userAgent", "").startswith("agniregistry-operator")
            reference = entry.get("objectRef") or {}
            if is_write and mine and reference.get("resource") != "leases":
                found.append(f"{entry['verb']} {reference.get('resource')} {reference.get('name')}")
        return found


@pytest.fixture
def lab(quick: Cluster, namespace: str, tmp_path: Path) -> Iterator[Lab]:
    quick.kubectl("apply", "--server-side", "-f", str(CRD))
    name = "crd/agniregistries.agnistack.online"
    quick.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
    found = Lab(quick, namespace, tmp_path)
    yield found
    found.close()


def test_operator_brings_up_scales_rolls_and_is_quiet(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    assert lab.stage.model.joins == 3
    meta = lab.registry()["metadata"]
    assert not meta.get("finalizers"), "a namespace must never wait for the operator"
    assert not meta.get("annotations"), "nothing is written on the resource but its status"

    before = lab.writes()
    time.sleep(QUIET_S)
    assert lab.writes() == before, "a settled registry is looked at, and nothing is written"

    lab.apply(nodes=4)
    lab.settled()
    assert sorted(lab.pods()) == ["web-0-0", "web-1-0", "web-2-0", "web-3-0"]
    lab.apply(nodes=3)
    lab.settled()
    assert sorted(lab.pods()) == ["web-0-0", "web-1-0", "web-2-0"]

    old = lab.pods()
    lab.apply(config={"queue_limit": 1000})
    lab.settled()
    new = lab.pods()
    assert set(old) == set(new)
    assert not set(old.values()) & set(new.values()), "every pod was restarted"
    assert lab.stage.model.joins == 4, "and every node kept its volume"


def test_operator_replaces_a_lost_volume_and_hands_over(lab: Lab) -> None:
    lab.apply()
    first = lab.start()
    lab.settled()
    first.stop()
    lab.start()
    space = ("-n", lab.namespace)
    lab.cluster.kubectl("delete", "pvc", "data-web-1-0", *space, "--wait=false")
    until("the node has joined anew", lambda: lab.stage.model.joins == 4, timeout_s=SETTLE_S)
    lab.settled()
    epochs = lab.stage.epochs
    assert epochs == sorted(set(epochs)), "each operator has a higher epoch"


def test_operator_puts_back_what_somebody_changes(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    space = ("-n", lab.namespace)
    patch = json.dumps({"spec": {"selector": {"agnistack.online/registry": "other"}}})
    lab.cluster.kubectl("patch", "service", "web", *space, "--type=merge", "-p", patch)

    def is_back() -> bool:
        spec = lab.cluster.get("service", "web", *space)["spec"]
        return spec["selector"] == {"agnistack.online/registry": "web"}

    until("the Service is as it was", is_back, timeout_s=60.0)


def test_operator_stands_back_from_what_is_somebody_elses(lab: Lab) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": lab.namespace},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    lab.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(service))
    lab.apply()
    lab.start()
    until(
        "it says so", lambda: lab.condition("Stalled").get("status") == "True", timeout_s=SETTLE_S
    )
    assert "belongs to somebody else" in lab.condition("Stalled")["message"]
    spec = lab.cluster.get("service", "web", "-n", lab.namespace)["spec"]
    assert spec["selector"] == {"app": "shop"}


BAD = {
    "replicationFactor must be 1, 3 or 5": {"replicationFactor": 2},
    "nodes must be at least replicationFactor": {"nodes": 2},
    "partitions can't be changed": {"partitions": 8},
    "size can only grow": {"storage": {"size": "300Mi"}},
    "storageClassName can't be changed": {"storage": {"size": "1Gi", "storageClassName": "other"}},
    "trustDomain can't be set or unset later": {"trustDomain": "example.org"},
    "field not declared in schema": {"config": {"queue_limits": 1}},
    "should be greater than or equal to 1": {"config": {"queue_limit": 0}},
    "renewBefore must be shorter than duration": {"tls": {"duration": "1h", "renewBefore": "2h"}},
    "issuerRef needs trustConfigMap": {"tls": {"issuerRef": {"name": "ca"}}},
    "give one of bootstrap, issuerRef and secretRefs": {
        "tls": {"bootstrap": {}, "issuerRef": {"name": "ca"}, "trustConfigMap": {"name": "x"}}
    },
}


def test_bad_specs_are_refused_in_words(lab: Lab) -> None:
    lab.apply(storage={"size": "1Gi"})
    for words, changes in BAD.items():
        with pytest.raises(PlatformError, match=words):
            lab.apply(**({"storage": {"size": "1Gi"}} | changes))
    found = {
        "apiVersion": "agnistack.online/v1alpha1",
        "kind": "AgniRegistry",
        "metadata": {"name": "w" * 41, "namespace": lab.namespace},
        "spec": SPEC,
    }
    with pytest.raises(PlatformError, match="at most 40 characters"):
        lab.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(found))
