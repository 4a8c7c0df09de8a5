"""Whatever happens: the operator takes no quorum, and ends where it should.

A state machine of faults and changes, in any order: pods die, volumes are lost, machines vanish and
come back, nodes start slowly, people change the spec, and the operator is killed between any two
actions. The model holds every action against the quorum; the end must be what is wanted, quiet, and
with no member added that wasn't needed.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kubernetes_model import BAD_IMAGE, ClusterModel
from test_plan import wanted

from agniregistry_operator.model.desired import Tls
from agniregistry_operator.planning.view import View


class Faults(RuleBasedStateMachine):
    """One registry's life."""

    @initialize(nodes=st.sampled_from([1, 3, 4, 5]), founded=st.booleans())
    def begin(self, nodes: int, founded: bool) -> None:
        self.least = min(nodes, 3)
        self.cluster = ClusterModel(wanted(nodes=nodes, replication=self.least, partitions=2))
        self.lost_machine = ""
        self.joins_allowed = 0
        if founded:
            self.cluster.check_settled()

    def whole(self) -> bool:
        """Whether every node is well, so that one more fault is one fault."""
        cluster, registry = self.cluster, self.cluster.registry
        view = View(cluster.observe(), cluster.desired, cluster.now)
        names = {cluster.desired.node(i) for i in view.wanted}
        joined = all(registry.joined(name) for name in names)
        steady = all(
            set(p.voters) == set(p.wanted) and len(p.voters) >= self.least and not p.learners
            for p in registry.partitions.values()
        )
        return bool(registry.cluster_id) and joined and steady and not cluster.gone

    @rule(rounds=st.integers(1, 6))
    def time_passes(self, rounds: int) -> None:
        for _ in range(rounds):
            self.cluster.reconcile()
            self.cluster.turn()

    @rule(actions=st.integers(0, 4), waits=st.booleans())
    def operator_is_killed(self, actions: int, waits: bool) -> None:
        self.cluster.reconcile(die_after=actions)
        if waits:
            self.cluster.turn()

    @rule(index=st.integers(0, 6))
    def a_pod_dies(self, index: int) -> None:
        self.cluster.stop_pod(index)

    @rule(index=st.integers(0, 6), slow=st.booleans())
    def a_node_starts_slowly(self, index: int, slow: bool) -> None:
        (self.cluster.slow.add if slow else self.cluster.slow.discard)(index)

    @precondition(lambda self: self.least == 3 and self.whole())
    @rule(index=st.integers(0, 6))
    def a_volume_is_lost(self, index: int) -> None:
        claim = self.cluster.claims.get(index)
        if claim is not None and not claim.deleting and index < self.cluster.desired.nodes:
            claim.lost = True
            claim.volume.folders.clear()
            self.cluster.stop_pod(index)
            self.joins_allowed += 1

    @precondition(lambda self: self.least == 3 and self.whole())
    @rule(index=st.integers(0, 6))
    def a_machine_vanishes(self, index: int) -> None:
        pod = self.cluster.pods.get(index)
        mates = [i for i, p in self.cluster.pods.items() if pod and p.machine == pod.machine]
        if pod and pod.machine and len(mates) == 1:
            self.lost_machine = pod.machine
            self.cluster.gone[pod.machine] = self.cluster.now
            self.joins_allowed += 1

    @rule(index=st.integers(0, 6), silent=st.booleans())
    def a_kubelet_falls_silent(self, index: int, silent: bool) -> None:
        pod = self.cluster.pods.get(index)
        if pod and pod.machine and silent:
            self.cluster.silent.setdefault(pod.machine, self.cluster.now)
        elif pod:
            self.cluster.silent.pop(pod.machine, None)

    @precondition(lambda self: bool(self.lost_machine))
    @rule()
    def the_machine_is_back(self) -> None:
        self.cluster.gone.pop(self.lost_machine, None)
        self.lost_machine = ""

    @rule(image=st.sampled_from(["registry:1", "registry:2", BAD_IMAGE]))
    def the_image_changes(self, image: str) -> None:
        self.cluster.change(image=image)

    @rule(extra=st.integers(0, 3))
    def the_number_changes(self, extra: int) -> None:
        self.joins_allowed += extra
        self.cluster.change(nodes=self.least + extra)

    @rule(limit=st.integers(1000, 1003))
    def a_setting_changes(self, limit: int) -> None:
        self.cluster.change(config={"queue_limit": limit})

    @precondition(lambda self: self.least == 3 and not self.cluster.desired.replace)
    @rule(replication=st.sampled_from([1, 3]))
    def the_number_of_replicas_changes(self, replication: int) -> None:
        self.cluster.change(replication=replication)

    @rule(index=st.integers(0, 4), asked=st.booleans())
    def a_node_is_to_leave(self, index: int, asked: bool) -> None:
        self.joins_allowed += 1
        self.cluster.change(remove=f"web-{index}" if asked else "")

    @rule()
    def the_root_changes(self) -> None:
        self.cluster.change(tls=Tls(generation=self.cluster.desired.tls.generation + 1))

    @rule(paused=st.booleans())
    def somebody_pauses(self, paused: bool) -> None:
        self.cluster.change(paused=paused)

    @rule(hibernate=st.booleans())
    def it_sleeps_and_wakes(self, hibernate: bool) -> None:
        self.cluster.change(hibernate=hibernate)

    @rule()
    def volumes_grow(self) -> None:
        self.cluster.change(storage_size="2Gi")

    @precondition(lambda self: self.cluster.desired.replication == 3 and self.whole())
    @rule(index=st.integers(0, 4))
    def a_replacement_is_asked_for(self, index: int) -> None:
        self.joins_allowed += 1
        self.cluster.change(replace=f"web-{index}")

    @invariant()
    def one_sentence(self) -> None:
        if hasattr(self, "cluster"):
            assert "\n" not in self.cluster.status.message

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.gone.clear()
        cluster.silent.clear()
        cluster.slow.clear()
        image = "registry:3" if cluster.desired.image == BAD_IMAGE else cluster.desired.image
        cluster.change(image=image, paused=False, hibernate=False)
        cluster.check_settled()


Faults.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    # A failing run prints its steps; making it shorter would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestFaults = Faults.TestCase
