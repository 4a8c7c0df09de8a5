"""The registry as far as the operator's plans need one: members, partitions, and how they move.

A process that runs keeps its identity on its volume. What nodes refuse, it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agniregistry.placement import Cluster, Node, NodeState, Partition, SetWanted, TransferLeader


class RefusedError(Exception):
    """The registry doesn't do it."""


@dataclass
class Volume:
    """What is on a volume: a member's identity by folder."""

    folders: dict[int, int] = field(default_factory=dict)
    """Life → node id."""


@dataclass
class Process:
    """A node's process that runs."""

    name: str
    volume: Volume
    life: int
    zone: str
    version: str
    seeds: tuple[str, ...]
    trust: str = ""
    certificate: float | None = None


class RegistryModel:
    """One cluster."""

    def __init__(self, partitions: int, replication: int) -> None:
        self.count, self.replication = partitions, replication
        self.cluster_id = ""
        self.nodes: dict[int, Node] = {}
        self.replaces: dict[int, int] = {}
        self.partitions: dict[int, Partition] = {}
        self.processes: dict[str, Process] = {}
        self.system_leader = 0
        self.epoch = 0
        self.joins = 0

    # -- what the operator asks --------------------------------------------------------------

    def cluster(self) -> Cluster:
        """As it is now."""
        nodes = tuple(
            replace(node, reachable=node_id in self._running()) for node_id, node in
            self.nodes.items()
        )  # fmt: skip
        return Cluster(nodes, tuple(self.partitions.values()), self.replication)

    def answers(self) -> bool:
        """Whether the system group has a quorum and so its members can be told."""
        present = self._present()
        alive = [node_id for node_id in present if node_id in self._running()]
        return bool(present) and len(alive) > len(present) // 2

    def drain(self, node_id: int) -> None:
        self._change(node_id, NodeState.DRAINING)

    def give_back(self, node_id: int) -> None:
        self._change(node_id, NodeState.ACTIVE)

    def remove(self, node_id: int) -> None:
        held = [p for p in self.partitions.values() if node_id in {*p.voters, *p.wanted}]
        if held:
            raise RefusedError("it holds replicas")
        self._change(node_id, NodeState.LEFT)

    def _change(self, node_id: int, state: NodeState) -> None:
        if not self.answers():
            raise RefusedError("no quorum")
        if self.nodes[node_id].state is NodeState.LEFT:
            raise RefusedError("it has left")
        self.nodes[node_id] = replace(self.nodes[node_id], state=state)

    def step(self, step: SetWanted | TransferLeader) -> None:
        """A step of the placement planner."""
        partition = self.partitions[step.partition]
        if not self.answers():
            raise RefusedError("no quorum")
        if isinstance(step, SetWanted):
            if step.expected_version != partition.version:
                raise RefusedError("it was changed")
            self.partitions[step.partition] = replace(
                partition, wanted=step.nodes, version=partition.version + 1
            )
        elif step.to in partition.voters and step.to in self._running():
            self.partitions[step.partition] = replace(partition, leader=step.to)

    # -- what happens by itself --------------------------------------------------------------

    def _present(self) -> list[int]:
        return [i for i, node in self.nodes.items() if node.state is not NodeState.LEFT]

    def _running(self) -> dict[int, Process]:
        found = {}
        for process in self.processes.values():
            node_id = process.volume.folders.get(process.life, 0)
            if node_id and self.nodes[node_id].state is not NodeState.LEFT:
                found[node_id] = process
        return found

    def id_of(self, name: str) -> int:
        """The present member of a name; 0 for none."""
        return max((i for i in self._present() if self.nodes[i].name == name), default=0)

    def joined(self, name: str) -> bool:
        """Whether the process of a name is a member that answers."""
        return any(process.name == name for process in self._running().values())

    def found(self, names: list[str]) -> None:
        """All founders are there and empty: the cluster begins."""
        assert not self.cluster_id, "a cluster is founded once"
        self.cluster_id = "c" * 32
        for name in names:
            self._join(name, 0)
        ids = sorted(self.nodes)
        for number in range(self.count):
            turned = [ids[(number + k) % len(ids)] for k in range(min(self.replication, len(ids)))]
            self.partitions[number] = Partition(
                number, tuple(turned), 1, tuple(sorted(turned)), (), turned[0], 10, reached=1
            )
        self.system_leader = ids[0]

    def _join(self, name: str, replaced: int) -> int:
        self.joins += 1
        process = self.processes[name]
        node_id = max(self.nodes, default=0) + 1
        assert process.life not in process.volume.folders
        process.volume.folders[process.life] = node_id
        self.nodes[node_id] = Node(node_id, name, process.zone)
        self.replaces[node_id] = replaced
        return node_id

    def turn(self) -> None:
        """A round: joins, elections, one step of each move."""
        founders = self._founders()
        if not self.cluster_id and founders:
            self.found(founders)
        if not self.cluster_id:
            return
        self._joins()
        self._elect()
        for number, partition in list(self.partitions.items()):
            self.partitions[number] = self._moved(partition)

    def _founders(self) -> list[str]:
        for process in self.processes.values():
            named = [seed.partition(".")[0].removesuffix("-0") for seed in process.seeds]
            if process.name in named and all(name in self.processes for name in named):
                return sorted(named)
        return []

    def _joins(self) -> None:
        for process in list(self.processes.values()):
            if process.life in process.volume.folders or not self.answers():
                continue
            seeds = {seed.partition(".")[0].removesuffix("-0") for seed in process.seeds}
            alive = {self.nodes[node_id].name for node_id in self._running()}
            if not seeds & alive:
                continue
            old = self.id_of(process.name)
            node_id = self._join(process.name, old)
            if old:
                self._take_place(old, node_id)

    def _take_place(self, old: int, new: int) -> None:
        def swapped(ids: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(new if node_id == old else node_id for node_id in ids)

        self.nodes[old] = replace(self.nodes[old], state=NodeState.LEFT)
        for number, p in self.partitions.items():
            if old in p.wanted or old in p.voters:
                self.partitions[number] = replace(
                    p, wanted=swapped(p.wanted), version=p.version + 1
                )

    def _elect(self) -> None:
        running = self._running()
        able = [i for i in self._present() if i in running]
        preferred = [i for i in able if self.nodes[i].state is NodeState.ACTIVE] or able
        if self.answers() and self.system_leader not in preferred:
            self.system_leader = preferred[0]
        for number, p in self.partitions.items():
            alive = [i for i in p.voters if i in running]
            if len(alive) <= len(p.voters) // 2:
                continue
            good = [i for i in alive if self.nodes[i].state is NodeState.ACTIVE] or alive
            if p.leader not in good:
                self.partitions[number] = replace(p, leader=good[0])

    def _moved(self, p: Partition) -> Partition:
        running = self._running()
        alive = [i for i in p.voters if i in running]
        if len(alive) <= len(p.voters) // 2 or p.leader not in running:
            return p
        if p.learners:
            learner = p.learners[0]
            if learner not in running:
                return replace(p, learners=p.learners[1:]) if learner not in p.wanted else p
            return replace(p, learners=p.learners[1:], voters=tuple(sorted((*p.voters, learner))))
        coming = [i for i in p.wanted if i not in p.voters]
        if coming:
            return replace(p, learners=(coming[0],)) if coming[0] in running else p
        going = [i for i in p.voters if i not in p.wanted]
        if going:
            gone = min(going, key=lambda i: i in running)
            leader = p.leader
            if gone == leader:
                leader = next(i for i in alive if i != gone)
            voters = tuple(i for i in p.voters if i != gone)
            still = [i for i in voters if i in running]
            if len(still) <= len(voters) // 2:
                return p
            return replace(p, voters=voters, leader=leader)
        return replace(p, reached=p.version)
