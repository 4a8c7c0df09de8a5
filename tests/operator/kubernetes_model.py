"""A Kubernetes cluster as far as the operator's plans need one, with the registry in it.

It carries actions out, refuses what the API server refuses, and holds each of them against the
promise: no operator's action takes a quorum that is there.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Any

from registry_model import Process, RefusedError, RegistryModel, Volume

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.manifests.base import applied_hash
from agniregistry_operator.manifests.node import lives_of
from agniregistry_operator.model import actions as a
from agniregistry_operator.model import observed as o
from agniregistry_operator.model.desired import Desired
from agniregistry_operator.model.status import Status, status_of
from agniregistry_operator.planning.planner import Plan, plan
from agniregistry_operator.planning.view import View

BAD_IMAGE = "registry:bad"
START = 1_000_000.0


@dataclass
class PodModel:
    uid: str
    created_at: float
    template: dict[str, Any]
    machine: str = ""
    ready: bool = False
    ready_changed_at: float = 0.0
    deleting: bool = False
    delay: int = 1
    """Rounds until it runs."""


@dataclass
class ClaimModel:
    uid: str
    size: str
    machine: str = ""
    deleting: bool = False
    lost: bool = False
    owned: bool = False
    zone: str | None = None
    life: int = 0
    clusters: str = ""
    volume: Volume = field(default_factory=Volume)


class ClusterModel:
    """Machines, controllers, cert-manager, the registry, and an operator that can be killed."""

    def __init__(self, desired: Desired, zones: tuple[str, ...] = ("z1", "z2", "z3")) -> None:
        self.desired = desired
        self.now = START
        self.machines = {f"m{k}{zone}": zone for zone in zones for k in (1, 2)}
        self.gone: dict[str, float] = {}
        self.silent: dict[str, float] = {}
        """Machines whose kubelet says nothing, while all on them goes on."""
        self.registry = RegistryModel(desired.partitions, desired.replication)
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: dict[int, PodModel] = {}
        self.claims: dict[int, ClaimModel] = {}
        self.certificates: dict[int, tuple[str, float]] = {}
        self.clients: list[o.ClientCertificate] = []
        self.own_clients: dict[str, o.ClientCertificate] = {}
        self.refused_clients: set[str] = set()
        """Clients that are issued no certificate."""
        self.secret_faults: dict[int, str] = {}
        """What is wrong with nodes' own Secrets: their pods can't start."""
        self.status = Status()
        self.identities: set[int] = set()
        self.roots: dict[int, str] = {}
        self.refusals: dict[str, str] = {}
        self.random = random.Random(0)
        self.slow: set[int] = set()
        self.quota: set[int] = set()
        """Nodes whose pods the API server refuses."""
        self.uids = 0
        self.log: list[str] = []
        self.writes = 0
        self.cut: set[str] = set()
        self.faults_began = False

    # -- what the operator sees ----------------------------------------------------------------

    def observe(self) -> o.Observed:
        """A picture of everything."""
        children = {
            key: o.Child(*key, applied_hash(manifest)) for key, manifest in self.objects.items()
        }
        sets = {}
        for (kind, _), found in self.objects.items():
            if kind == "StatefulSet":
                notes = found["metadata"]["annotations"]
                index = int(found["metadata"]["labels"][names.LABEL_INDEX])
                seeds = notes[names.ANNOTATION_SEEDS]
                claim = found["spec"]["volumeClaimTemplates"][0]["spec"]
                sets[index] = o.StatefulSet(
                    index,
                    notes[names.ANNOTATION_ZONE],
                    tuple(seeds.split(",")) if seeds else (),
                    int(notes[names.ANNOTATION_LIFE]),
                    claim["resources"]["requests"]["storage"],
                )
        answers = self.registry.cluster_id and self.registry.answers()
        return o.Observed(
            status=status_of(self.status.to_dict()),
            children=children,
            stateful_sets=sets,
            pods={index: self._pod(index, pod) for index, pod in self.pods.items()},
            claims={
                index: o.Claim(
                    index, claim.uid, claim.size, claim.size, claim.deleting, claim.lost,
                    claim.owned, bool(claim.machine), claim.zone,
                    lives_of(claim.clusters).get(self.desired.cluster_id, 0), claim.clusters,
                )
                for index, claim in self.claims.items()
            },
            certificates={
                index: o.Certificate(index, issuer, True, not_after)
                for index, (issuer, not_after) in self.certificates.items()
            },
            clients=tuple(self.clients),
            own_clients=dict(self.own_clients),
            secret_faults=dict(self.secret_faults),
            zones=tuple(sorted({z for m, z in self.machines.items() if m not in self.gone})),
            roots=dict(self.roots),
            identities=frozenset(self.identities),
            registry=self._registry() if answers else None,
            refusals=dict(self.refusals),
        )  # fmt: skip

    def _pod(self, index: int, pod: PodModel) -> o.Pod:
        reason, words = self._fault(index, pod)
        return o.Pod(
            index=index,
            uid=pod.uid,
            template_hash=pod.template["metadata"]["annotations"][names.ANNOTATION_TEMPLATE],
            created_at=pod.created_at,
            ready=pod.ready,
            ready_changed_at=pod.ready_changed_at or pod.created_at,
            deleting=pod.deleting,
            machine=pod.machine,
            machine_gone_since=self.gone.get(pod.machine, self.silent.get(pod.machine)),
            fault=f"{reason}: {words}" if reason else "",
            fault_reason=reason,
        )

    def _fault(self, index: int, pod: PodModel) -> tuple[str, str]:
        if self._image(pod) == BAD_IMAGE:
            return "ImagePullBackOff", "no such image"
        if index in self.secret_faults and self._is_pending(index):
            return o.SECRET_MISSING, self.secret_faults[index]
        return "", ""

    def _is_pending(self, index: int) -> bool:
        return self.desired.node(index) not in self.registry.processes

    @staticmethod
    def _image(pod: PodModel) -> str:
        return str(pod.template["spec"]["containers"][0]["image"])

    def _registry(self) -> o.Registry:
        model = self.registry
        running = model._running()
        members = []
        for node_id, node in model.nodes.items():
            process = running.get(node_id)
            members.append(
                o.Member(
                    node_id, node.name, node.zone, node.state, model.replaces[node_id],
                    process is not None, process.version if process else "",
                    process.trust if process else "", process.certificate if process else None,
                )
            )  # fmt: skip
        return o.Registry(model.cluster_id, model.cluster(), tuple(members), model.system_leader)

    # -- what the operator does ------------------------------------------------------------------

    def reconcile(self, die_after: int | None = None) -> Plan:
        """One round of the operator, which may be killed after some of its actions."""
        made = plan(self.observe(), self.desired, self.now)
        self.log.append(
            f"{self.now - START:.0f}: {made.sentence} {list(map(a.key_of, made.actions))}"
        )
        refusals = {}
        for number, action in enumerate(made.actions):
            if die_after is not None and number >= die_after:
                return made
            try:
                self.execute(action)
            except RefusedError as refused:
                refusals[a.key_of(action)] = str(refused)
        self.refusals = refusals
        if made.status != self.status:
            self.status = made.status
            self.writes += 1
        return made

    def execute(self, action: a.Action) -> None:
        """Carries one action out."""
        self.writes += 1
        match action:
            case a.ApplyChild():
                self._apply(action)
            case a.DeleteChild():
                self.objects.pop((action.kind, action.name), None)
                self.own_clients.pop(self._client(action.name), None)
            case a.DeletePod():
                pod = self.pods.get(action.index)
                if pod and pod.uid == action.uid:
                    self._check_quorum(action)
                    self.stop_pod(action.index, force=action.force)
            case a.DeleteStatefulSet():
                self.objects.pop(("StatefulSet", action.name), None)
                if not action.orphan and action.index in self.pods:
                    member = self.registry.id_of(action.name)
                    assert not member, "a member's StatefulSet is deleted after it has left"
                    self.stop_pod(action.index)
            case a.DeleteClaim():
                claim = self.claims.get(action.index)
                if claim and claim.uid == action.uid:
                    claim.deleting = True
            case a.KeepClaim():
                self._keep(action)
            case a.RequestIdentity():
                self.identities.add(action.generation)
                self.roots[action.generation] = f"root {action.generation}"
            case a.DrainMember():
                self.registry.drain(action.node_id)
            case a.ReturnMember():
                self.registry.give_back(action.node_id)
            case a.RemoveMember():
                self.registry.remove(action.node_id)
            case a.MoveStep():
                self.registry.step(action.step)

    def _apply(self, action: a.ApplyChild) -> None:
        key = (action.kind, action.name)
        before = self.objects.get(key)
        if before and action.kind == "StatefulSet":
            old, new = (x["spec"]["volumeClaimTemplates"] for x in (before, action.manifest))
            if old != new:
                raise RefusedError("volumeClaimTemplates is immutable")
        self.objects[key] = dict(action.manifest)
        if action.kind == "Certificate" and not action.manifest["spec"].get("isCA"):
            index = names.index_of(self.desired.name, action.name)
            issuer = action.manifest["spec"]["issuerRef"]["name"]
            if index is None:
                self._issue_to_client(action.name, issuer)
            elif index not in self.certificates or self.certificates[index][0] != issuer:
                self.certificates[index] = (issuer, self.now + 600_000)

    def _client(self, name: str) -> str:
        return name.removeprefix(names.client(self.desired.name, ""))

    def _issue_to_client(self, name: str, issuer: str) -> None:
        client = self._client(name)
        assert client != name, f"whose certificate is {name}?"
        issued_at = None if client in self.refused_clients else self.now
        words = "" if issued_at else "no such URI"
        self.own_clients[client] = o.ClientCertificate(name, issuer, issued_at, words)

    def _keep(self, action: a.KeepClaim) -> None:
        claim = self.claims[action.index]
        claim.size = action.manifest["spec"]["resources"]["requests"]["storage"]
        meta = action.manifest["metadata"]
        claim.owned = "ownerReferences" in meta
        claim.zone = meta["annotations"][names.ANNOTATION_ZONE]
        claim.life = int(meta["annotations"][names.ANNOTATION_LIFE])
        claim.clusters = meta["annotations"][names.ANNOTATION_CLUSTERS]

    def _check_quorum(self, action: a.DeletePod) -> None:
        """An operator's own deletion must not take the last quorum of a partition."""
        model, name = self.registry, self.desired.node(action.index)
        node_id = model.id_of(name)
        running = set(model._running())
        if node_id not in running or self.desired.replication < 3 or self.desired.nodes < 3:
            return
        for p in model.partitions.values():
            before = len(running.intersection(p.voters)) > len(p.voters) // 2
            after = len((running - {node_id}).intersection(p.voters)) > len(p.voters) // 2
            assert after or not before, f"partition {p.number} loses its quorum: {action}"
        present = model._present()
        before = len(running.intersection(present)) > len(present) // 2
        after = len((running - {node_id}).intersection(present)) > len(present) // 2
        assert after or not before, "the system group loses its quorum"

    def stop_pod(self, index: int, *, force: bool = False) -> None:
        """A pod is deleted; one on a machine that is gone stays until it is forced."""
        pod = self.pods.get(index)
        if pod is None:
            return
        if pod.machine in self.gone and not force:
            pod.deleting = True
            return
        del self.pods[index]
        self.registry.processes.pop(self.desired.node(index), None)

    # -- what happens by itself ------------------------------------------------------------------

    def turn(self, seconds: float = 10.0) -> None:
        """A round of the world."""
        self.now += seconds
        for index in [i for i, c in self.claims.items() if c.deleting and i not in self.pods]:
            del self.claims[index]
        for index in [i for i, p in self.pods.items() if p.deleting and p.machine not in self.gone]:
            self.stop_pod(index)
        self._make_pods()
        for index, pod in self.pods.items():
            self._run(index, pod)
        self.registry.turn()
        for index, pod in self.pods.items():
            is_ready = self.registry.joined(self.desired.node(index)) and not pod.deleting
            is_ready = is_ready and pod.machine not in {*self.gone, *self.silent}
            if is_ready != pod.ready:
                pod.ready, pod.ready_changed_at = is_ready, self.now

    def _make_pods(self) -> None:
        for index in list(self.pods):
            if ("StatefulSet", self.desired.node(index)) in self.objects and (
                self.objects["StatefulSet", self.desired.node(index)]["spec"]["replicas"] == 0
            ):
                self.stop_pod(index)
        for (kind, _), found in list(self.objects.items()):
            if kind != "StatefulSet" or not found["spec"]["replicas"]:
                continue
            index = int(found["metadata"]["labels"][names.LABEL_INDEX])
            if index in self.pods or index in self.quota:
                continue
            size = found["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]
            if index not in self.claims:
                self.claims[index] = ClaimModel(self._uid(), size["storage"])
            delay = 8 if index in self.slow else 1
            self.pods[index] = PodModel(
                self._uid(), self.now, found["spec"]["template"], delay=delay
            )

    def _uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    def _run(self, index: int, pod: PodModel) -> None:
        """Schedules and starts a pod, as far as that is possible."""
        claim = self.claims.get(index)
        if claim is None or (claim.deleting and not pod.machine):
            return
        if not pod.machine:
            spec = pod.template["spec"]
            zone = next(
                e["value"] for e in spec["containers"][0]["env"] if e["name"] == "AGNI_ZONE"
            )
            fits = [m for m, z in self.machines.items() if zone in ("", z) and m not in self.gone]
            if claim.machine:
                fits = [m for m in fits if m == claim.machine]
            if not fits or claim.lost:
                return
            pod.machine = claim.machine = fits[index % len(fits)]
        if pod.machine in self.gone or pod.deleting:
            self.registry.processes.pop(self.desired.node(index), None)
            return
        if self._fault(index, pod)[0]:
            return
        if pod.delay > 0:
            pod.delay -= 1
            return
        name = self.desired.node(index)
        env = {e["name"]: e["value"] for e in pod.template["spec"]["containers"][0]["env"]}
        life = int(env["AGNI_DATA_DIR"].rpartition("data")[2].removeprefix("-") or 0)
        seeds = tuple(env["AGNI_SEEDS"].split(","))
        process = self.registry.processes.setdefault(
            name, Process(name, claim.volume, life, env["AGNI_ZONE"], self._image(pod), seeds)
        )
        bundle = self.objects.get(("ConfigMap", names.trust(self.desired.name)))
        if bundle:
            process.trust = hashlib.sha256(bundle["data"]["ca.crt"].encode()).hexdigest()
        if index in self.certificates:
            process.certificate = self.certificates[index][1]

    # -- for tests ---------------------------------------------------------------------------------

    def change(self, **changes: Any) -> None:
        """Somebody edits the spec."""
        self.desired = replace(self.desired, generation=self.desired.generation + 1, **changes)

    def settle(self, rounds: int = 300) -> Plan:
        """Goes on until nothing is left to do."""
        quiet = 0
        for _ in range(rounds):
            made = self.reconcile()
            self.turn()
            is_done = not made.actions and made.status.operation is None
            quiet = quiet + 1 if is_done else 0
            if quiet >= 3:
                return made
        raise AssertionError("it doesn't settle:\n" + "\n".join(self.log[-40:]))

    def check_settled(self) -> None:
        """Everything is as it is wanted, and the next look writes nothing."""
        made = self.settle()
        text = "\n".join(self.log[-30:])
        ready = made.status.condition("Ready")
        assert ready is not None, text
        assert ready.holds, f"{ready}\n{text}"
        view = View(self.observe(), self.desired, self.now)
        wanted = {self.desired.node(i) for i in view.wanted}
        assert len(wanted) == self.desired.nodes
        present = [n for n in self.registry.nodes.values() if n.state is not NodeState.LEFT]
        assert sorted(n.name for n in present) == sorted(wanted), text
        assert all(n.state is NodeState.ACTIVE for n in present), text
        for p in self.registry.partitions.values():
            assert len(p.voters) == self.desired.replication, text
            assert set(p.voters) == set(p.wanted), text
        images = {self._image(pod) for pod in self.pods.values()}
        assert images == {self.desired.image}, text
        before = self.writes
        for _ in range(5):
            self.reconcile()
            self.turn()
        assert self.writes == before, f"it writes although nothing changes:\n{self.log[-5:]}"
