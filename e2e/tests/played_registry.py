"""A registry that is played: the pods of the quick tier run nothing, so their processes are made up
from what the API server says of them. What it does is the model's of tests/operator.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("src", "operator/src", "tests/operator")]

from registry_model import Process, RefusedError, RegistryModel, Volume  # noqa: E402

from agniregistry.errors import ConflictError, UnavailableError  # noqa: E402
from agniregistry_operator.model import actions as a  # noqa: E402
from agniregistry_operator.model.observed import Member, Registry  # noqa: E402
from agniregistry_operator.model.times import parse  # noqa: E402


class Stage:
    """What outlives an operator: the registry itself."""

    def __init__(self, api: Any, namespace: str, name: str) -> None:
        self._api, self._namespace, self._name = api, namespace, name
        self.model = RegistryModel(partitions=4, replication=3)
        self.volumes: dict[str, Volume] = {}
        self.lock = threading.Lock()
        self.epochs: list[int] = []
        """Of the operators that came, in the order in which they did."""
        self.outdated: list[str] = []
        """What was asked by an operator after another one had taken over."""
        self.epoch = 0
        self.trust = ""
        self.ends: dict[str, float | None] = {}

    def look(self, epoch: int) -> Registry | None:
        """A round of the registry with the pods that are there now."""
        with self.lock:
            if epoch not in self.epochs:
                self.epochs.append(epoch)
            self._follow_pods()
            self.model.turn()
            if not (self.model.cluster_id and self.model.answers()):
                return None
            return self._registry()

    def change(self, epoch: int, action: a.Action) -> None:
        """What nodes would do.

        Raises:
            AgniError: What they would refuse.
        """
        with self.lock:
            if epoch < self.epoch:
                self.outdated.append(a.key_of(action))
                words = (
                    f"the epoch {epoch} is older than {self.epoch}: somebody else has taken over"
                )
                raise ConflictError(words, reason="EPOCH_OUTDATED")
            try:
                self._do(action)
            except RefusedError as refused:
                raise UnavailableError(str(refused)) from refused
            self.epoch = epoch

    def _do(self, action: a.Action) -> None:
        match action:
            case a.DrainMember():
                self.model.drain(action.node_id)
            case a.ReturnMember():
                self.model.give_back(action.node_id)
            case a.RemoveMember():
                self.model.remove(action.node_id)
            case a.MoveStep():
                self.model.step(action.step)

    def _follow_pods(self) -> None:
        root = f"/api/v1/namespaces/{self._namespace}"
        claims = {
            claim["metadata"]["name"]: claim["metadata"]["uid"]
            for claim in self._api.get(f"{root}/persistentvolumeclaims")["items"]
        }
        running = {}
        for pod in self._api.get(f"{root}/pods")["items"]:
            labels = pod["metadata"].get("labels") or {}
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions") or ()}
            is_up = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
            if labels.get("agnistack.online/registry") == self._name and is_up:
                env = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
                uid = claims.get(f"data-{pod['metadata']['name']}", "")
                running[env["AGNI_NAME"]] = (env, uid, pod["metadata"]["uid"])
        for name in [known for known in self.model.processes if known not in running]:
            del self.model.processes[name]
        self._follow_identities(root)
        for name, (env, uid, _) in running.items():
            life = int(env["AGNI_DATA_DIR"].rpartition("data")[2].removeprefix("-") or 0)
            volume = self.volumes.setdefault(uid, Volume())
            process = self.model.processes.get(name)
            if process is None or process.volume is not volume or process.life != life:
                seeds = tuple(env["AGNI_SEEDS"].split(","))
                self.model.processes[name] = Process(
                    name, volume, life, env["AGNI_ZONE"], "1.0.0", seeds
                )

    def _follow_identities(self, root: str) -> None:
        """What each node would say of its roots and its certificate."""
        maps = self._api.get(f"{root}/configmaps")["items"]
        bundle = next((m["data"]["ca.crt"] for m in maps if m["metadata"]["name"] ==
                       f"{self._name}-trust"), "")  # fmt: skip
        self.trust = hashlib.sha256(bundle.encode()).hexdigest()
        path = f"/apis/cert-manager.io/v1/namespaces/{self._namespace}/certificates"
        self.ends = {
            found["metadata"]["name"]: parse((found.get("status") or {}).get("notAfter"))
            for found in self._api.get(path)["items"]
        }

    def _registry(self) -> Registry:
        running = self.model._running()
        members = tuple(
            Member(
                node_id,
                node.name,
                node.zone,
                node.state,
                self.model.replaces[node_id],
                node_id in running,
                "1.0.0",
                self.trust,
                self.ends.get(node.name),
            )
            for node_id, node in self.model.nodes.items()
        )
        leader = self.model.system_leader
        return Registry(self.model.cluster_id, self.model.cluster(), members, leader)
