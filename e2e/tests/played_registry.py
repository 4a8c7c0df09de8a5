"""A registry that is played: the pods of the quick tier run nothing, so their processes are made up
from what the API server says of them. What it does is the model's of tests/operator.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("src", "operator/src", "tests/operator")]

from registry_model import Process, RefusedError, RegistryModel, Volume  # noqa: E402

from agniregistry.errors import UnavailableError  # noqa: E402
from agniregistry.identity import Tls  # noqa: E402
from agniregistry_operator.link import Link  # noqa: E402
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
        self.trust = ""
        self.ends: dict[str, float | None] = {}

    def look(self) -> Registry | None:
        """A round of the registry with the pods that are there now."""
        with self.lock:
            self._follow_pods()
            self.model.turn()
            if not (self.model.cluster_id and self.model.answers()):
                return None
            return self._registry()

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


def check_files(tls: Tls) -> None:
    """A certificate is there, and its key is the operator's alone."""
    assert Path(tls.cert_file).read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    assert Path(tls.key_file).stat().st_mode & 0o077 == 0


class PlayedLink(Link):
    """The operator's way to it."""

    def __init__(self, epoch: int, stage: Stage) -> None:
        super().__init__(epoch)
        self._stage = stage
        stage.epochs.append(epoch)

    async def use(self, tls: Tls, addresses: Sequence[str]) -> None:
        """The certificate is a real one."""
        check_files(tls)

    async def look(self, addresses: Sequence[str]) -> Registry | None:
        """Whatever the stage says."""
        return await asyncio.to_thread(self._stage.look)

    async def change(self, action: a.Action, addresses: Sequence[str]) -> None:
        """What nodes would do."""
        model = self._stage.model
        with self._stage.lock:
            try:
                match action:
                    case a.DrainMember():
                        model.drain(action.node_id)
                    case a.ReturnMember():
                        model.give_back(action.node_id)
                    case a.RemoveMember():
                        model.remove(action.node_id)
                    case a.MoveStep():
                        model.step(action.step)
            except RefusedError as refused:
                raise UnavailableError(str(refused)) from refused
