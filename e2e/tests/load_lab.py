"""A registry under load: what each fault did to callers, leases and watches, as the load saw it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from registry_lab import (
    OPERATOR_SPACE,
    PYTHON,
    RELEASE,
    Registry,
    client_certificate,
    make_namespace,
    real_machine,
    restricted_pod,
)

from agni_e2e import Cluster, places
from agni_e2e.machine import RealMachine
from agni_e2e.waiting import until

WORKLOAD = places.REPOSITORY / "e2e" / "workload"
POD = "load"
PARTITIONS = 8
NODES = 3
READY_S = 120.0
SPEC: dict[str, Any] = {
    "nodes": NODES,
    "partitions": PARTITIONS,
    "region": "global",
    "storage": {"size": "1Gi"},
    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
}


@dataclass
class LoadLab:
    """The registry, its load, and the faults that it was given."""

    cluster: Cluster
    registry: Registry
    tell: Callable[[str], None]

    @property
    def safe_machine(self) -> str:
        """Where the load runs: no fault touches it. Empty where machines aren't ours."""
        return next(iter(self.cluster.machines), "")

    def start(self) -> None:
        """Founds the registry, and loads it."""
        make_namespace(self.cluster, self.registry.namespace)
        self.registry.apply(SPEC)
        self.registry.settled()
        self.registry.create(client_certificate(self.registry, POD))
        self.registry.kubectl("create", "configmap", "workload", f"--from-file={WORKLOAD}")
        self.registry.create(self._pod())
        ready = ("wait", "--for=condition=Ready", f"pod/{POD}", f"--timeout={READY_S:.0f}s")
        self.registry.kubectl("wait", "--for=create", f"secret/{POD}-tls", "--timeout=30s")
        self.registry.kubectl(*ready)

    def _pod(self) -> dict[str, Any]:
        registry = self.registry
        environment = {
            "LOAD_SERVICE": registry.service_address,
            "LOAD_NODES": ",".join(registry.client_address(index) for index in range(NODES)),
            "LOAD_PARTITIONS": str(PARTITIONS),
            "LOAD_TLS": "/etc/load",
            "LOAD_TRUST": "/etc/trust/ca.crt",
        }
        there = "import os; raise SystemExit(not os.path.exists('/tmp/load'))"
        container = {
            "command": [PYTHON, "/workload/load.py"],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "startupProbe": {
                "exec": {"command": [PYTHON, "-c", there]},
                "periodSeconds": 2,
                "failureThreshold": 60,
            },
            "volumeMounts": [
                {"name": "workload", "mountPath": "/workload"},
                {"name": "tls", "mountPath": "/etc/load"},
                {"name": "trust", "mountPath": "/etc/trust"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        volumes = [
            {"name": "workload", "configMap": {"name": "workload"}},
            {"name": "tls", "secret": {"secretName": f"{POD}-tls", "defaultMode": 0o440}},
            # The roots that its nodes trust are those to trust: also while they change.
            {"name": "trust", "configMap": {"name": f"{registry.name}-trust"}},
            {"name": "tmp", "emptyDir": {}},
        ]
        place = {"kubernetes.io/hostname": self.safe_machine} if self.safe_machine else {}
        return restricted_pod(POD, container, volumes=volumes, nodeSelector=place)

    def ask(self, question: str) -> dict[str, Any]:
        """Asks the load."""
        said = self.registry.kubectl("exec", POD, "--", PYTHON, "/workload/ask.py", question)
        answer: dict[str, Any] = json.loads(said)
        assert "error" not in answer, answer
        return answer

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What each node says of itself, by its address, once all of them answer."""
        found: dict[str, dict[str, Any]] = {}

        def all_answer() -> bool:
            found.update(self.ask("nodes"))
            return not any("error" in said for said in found.values())

        self.registry.until("all nodes answer", all_answer, READY_S)
        return found

    @contextmanager
    def fault(self, name: str, *, gap_s_max: float) -> Iterator[None]:
        """A fault, from its beginning until all is well again; nobody may have noticed it.

        Args:
            name: What the line that is printed calls it.
            gap_s_max: How long a partition may take no write.
        """
        # What is asked for is that one fault at a time does no harm. That of before is over when
        # nodes that were restarted are found by all others again, under their new addresses.
        self.registry.until("nodes are linked", lambda: self.ask("linked")["linked"], READY_S)
        self.ask("begin")
        began = time.monotonic()
        yield
        took_s = time.monotonic() - began
        found = self.ask("report")
        self.tell(
            f"{name}: longest write gap {found['gap_s']:.2f} s, {took_s:.0f} s; {found['calls']} "
            f"calls, {found['failed']} failed; {found['leases']['renewed']} renewals, "
            f"{found['watch']['changes']} changes watched; load late by {found['late_s']:.2f} s"
        )
        for line in found["stuck"]:
            self.tell(line)
        assert not found["failures"], found["failures"]
        assert not found["wrong"], found["wrong"]
        assert not found["leases"]["lost"], found["leases"]
        assert not found["watch"]["faults"], found["watch"]
        assert not found["ended"], found["ended"]
        assert found["gap_s"] <= gap_s_max, found["gap_s"]

    def calm(self, timeout_s: float = 60.0) -> None:
        """Waits until, after a fault that stopped it, everything goes on as before."""
        self.registry.until("the load is calm", lambda: self.ask("calm")["calm"], timeout_s)

    def operator_on_safe_machine(self) -> None:
        """Has an operator where no fault strikes."""
        cluster, space = self.cluster, ("-n", OPERATOR_SPACE)
        pods = cluster.get("pods", *space)["items"]
        if any(pod["spec"].get("nodeName") == self.safe_machine for pod in pods):
            return
        others = [name for name in cluster.machines if name != self.safe_machine]
        cluster.kubectl("cordon", *others)
        try:
            cluster.kubectl("delete", "pod", pods[0]["metadata"]["name"], *space)
            cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", *space, "--timeout=60s")
        finally:
            cluster.kubectl("uncordon", *others)

    def leader(self) -> int:
        """The node that leads the most partitions."""
        nodes = self.registry.status()["nodes"]
        return max(range(len(nodes)), key=lambda index: int(nodes[index].get("leaders", 0)))

    def victim(self) -> tuple[int, RealMachine]:
        """A node that may lose its machine, the one that leads most of them, and that machine."""
        nodes = self.registry.status()["nodes"]
        others = [i for i in range(NODES) if self.registry.machine_of(i) != self.safe_machine]
        index = max(others, key=lambda each: int(nodes[each].get("leaders", 0)))
        return index, real_machine(self.cluster, self.registry.machine_of(index))

    def machine_is(self, machine: RealMachine, ready: str, timeout_s: float = 90.0) -> None:
        """Waits until Kubernetes says of a machine that it is Ready: True, or Unknown."""

        def has_word() -> bool:
            node = self.cluster.api.get(f"/api/v1/nodes/{machine.name}")
            conditions = node["status"]["conditions"]
            return [c["status"] for c in conditions if c["type"] == "Ready"] == [ready]

        until(f"{machine.name} is Ready={ready}", has_word, timeout_s=timeout_s)
