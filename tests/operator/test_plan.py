"""What the operator does, by example: each is a story that a model of a cluster plays through."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kubernetes_model import BAD_IMAGE, ClusterModel

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.manifests.base import Manifest
from agniregistry_operator.model.actions import DeletePod, DrainMember, key_of
from agniregistry_operator.model.desired import Desired, Tls
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.planning.planner import plan


def wanted(**changes: object) -> Desired:
    base = Desired(
        name="web",
        namespace="shop",
        uid="01234567-89ab-cdef-0123-456789abcdef",
        trust_domain="web.shop.registry.internal",
        image="registry:1",
        partitions=4,
        spec={},
    )
    return replace(base, **changes)


def settled(**changes: object) -> ClusterModel:
    cluster = ClusterModel(wanted(**changes))
    cluster.check_settled()
    return cluster


def words(cluster: ClusterModel) -> str:
    return "\n".join(cluster.log)


@pytest.mark.parametrize("nodes", [1, 3, 5, 7])
def test_bootstrap(nodes: int) -> None:
    cluster = settled(nodes=nodes, replication=min(nodes, 3))
    assert cluster.status.cluster_id
    assert cluster.registry.joins == nodes
    assert cluster.status.ready_nodes == nodes


def test_more_nodes_than_founders_join() -> None:
    cluster = settled(nodes=9)
    assert cluster.registry.joins == 9


def test_zones_are_spread_and_kept() -> None:
    cluster = settled(nodes=3)
    zones = {node.zone for node in cluster.registry.nodes.values()}
    assert zones == {"z1", "z2", "z3"}


def test_scale_out_and_in() -> None:
    cluster = settled()
    cluster.change(nodes=5)
    cluster.check_settled()
    assert cluster.registry.joins == 5
    held = [len(p.voters) for p in cluster.registry.partitions.values()]
    assert held == [3, 3, 3, 3]
    cluster.change(nodes=3)
    cluster.check_settled()
    assert sorted(cluster.claims) == [0, 1, 2], "the volumes of nodes that left are deleted"
    left = [n.name for n in cluster.registry.nodes.values() if n.state is NodeState.LEFT]
    assert left == ["web-3", "web-4"]


def present(cluster: ClusterModel) -> list[str]:
    nodes = cluster.registry.nodes.values()
    return sorted(node.name for node in nodes if node.state is not NodeState.LEFT)


def test_any_node_may_leave() -> None:
    cluster = settled(nodes=4)
    cluster.change(nodes=3, remove="web-1")
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-2", "web-3"]
    assert cluster.registry.joins == 4
    assert sorted(cluster.claims) == [0, 2, 3]
    cluster.change(remove="")
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-2", "web-3"], "it stays so without the annotation"
    cluster.change(nodes=4)
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-2", "web-3", "web-4"]
    cluster.change(nodes=3)
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-2", "web-3"]


def test_a_node_may_leave_for_another_one() -> None:
    cluster = settled()
    cluster.change(remove="web-0")
    cluster.check_settled()
    assert present(cluster) == ["web-1", "web-2", "web-3"]


def test_that_a_node_is_to_leave_can_be_taken_back() -> None:
    cluster = settled(nodes=4)
    cluster.change(nodes=3, remove="web-1")
    for _ in range(3):
        cluster.reconcile()
        cluster.turn()
    cluster.change(nodes=4, remove="")
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-1", "web-2", "web-3"]
    assert cluster.registry.joins == 4


@pytest.mark.parametrize("name", ["web-3", "web-9", "other-1", "web"])
def test_a_node_that_leaves_anyway_or_is_none_is_not_asked_for(name: str) -> None:
    cluster = settled(nodes=4)
    cluster.change(nodes=3, remove=name)
    cluster.check_settled()
    assert present(cluster) == ["web-0", "web-1", "web-2"]
    assert cluster.status.skipped == ()


def test_a_volume_that_is_kept_is_no_trap_for_the_next_node() -> None:
    cluster = settled(nodes=4, delete_with_node=False)
    cluster.change(nodes=3)
    cluster.check_settled()
    assert 3 in cluster.claims
    cluster.change(nodes=4)
    cluster.check_settled()
    assert len(cluster.claims[3].volume.folders) == 2, "the old folder is left alone"


def test_scale_in_can_be_taken_back() -> None:
    cluster = settled(nodes=5)
    cluster.change(nodes=3)
    for _ in range(3):
        cluster.reconcile()
        cluster.turn()
    draining = [n for n in cluster.registry.nodes.values() if n.state is NodeState.DRAINING]
    assert draining
    cluster.change(nodes=5)
    cluster.check_settled()
    assert cluster.registry.joins == 5, "nobody had left"


def test_scale_in_is_refused_while_a_node_that_stays_is_down() -> None:
    cluster = settled(nodes=4)
    cluster.gone[cluster.pods[0].machine] = cluster.now
    cluster.turn()
    cluster.change(nodes=3, repair_after_s=1e9)
    for _ in range(20):
        cluster.reconcile()
        cluster.turn()
    assert all(n.state is NodeState.ACTIVE for n in cluster.registry.nodes.values())


def roll_order(cluster: ClusterModel) -> list[str]:
    order = []
    for line in cluster.log:
        if "DeletePod" in line:
            order.append(line.split("DeletePod ")[1].split("'")[0].removesuffix("-0"))
    return order


def test_an_image_is_rolled_with_the_system_leader_last() -> None:
    cluster = settled(nodes=5)
    cluster.log.clear()
    leader = cluster.registry.nodes[cluster.registry.system_leader].name
    cluster.change(image="registry:2")
    cluster.check_settled()
    order = roll_order(cluster)
    assert sorted(order) == [f"web-{i}" for i in range(5)]
    assert order[-1] == leader


def test_a_changed_setting_is_rolled_too() -> None:
    cluster = settled()
    cluster.log.clear()
    cluster.change(config={"queue_limit": 1000})
    cluster.check_settled()
    assert len(roll_order(cluster)) == 3


def test_leaders_go_before_the_pod_does() -> None:
    cluster = settled()
    cluster.change(image="registry:2")
    for _ in range(100):
        made = plan(cluster.observe(), cluster.desired, cluster.now)
        for action in made.actions:
            if isinstance(action, DeletePod):
                node_id = cluster.registry.id_of(action.name.removesuffix("-0"))
                assert all(p.leader != node_id for p in cluster.registry.partitions.values())
        cluster.reconcile()
        cluster.turn()
    cluster.check_settled()


def test_a_bad_image_stops_at_the_first_node_and_going_back_mends_it() -> None:
    cluster = settled()
    cluster.change(image=BAD_IMAGE)
    for _ in range(100):
        cluster.reconcile()
        cluster.turn()
    bad = [i for i, pod in cluster.pods.items() if cluster._image(pod) == BAD_IMAGE]
    assert len(bad) == 1, words(cluster)
    stalled = cluster.status.condition("Stalled")
    assert stalled is not None
    assert (stalled.holds, stalled.reason) == (True, "ImagePullBackOff")
    assert "go back" in stalled.message
    assert cluster.status.condition("Ready").holds is False
    cluster.change(image="registry:1")
    cluster.check_settled()
    cluster.change(image="registry:2")
    cluster.check_settled()


def test_a_single_node_is_mended_as_well() -> None:
    cluster = settled(nodes=1, replication=1)
    cluster.change(image=BAD_IMAGE)
    for _ in range(10):
        cluster.reconcile()
        cluster.turn()
    cluster.change(image="registry:2")
    cluster.check_settled()


def test_a_supervised_update_waits_for_its_word() -> None:
    cluster = settled(supervised=True)
    cluster.change(image="registry:2")
    for _ in range(10):
        cluster.reconcile()
        cluster.turn()
    assert {cluster._image(pod) for pod in cluster.pods.values()} == {"registry:1"}
    assert cluster.status.update_hash
    assert "waits for approval" in cluster.status.message
    cluster.change(approved=cluster.status.update_hash)
    cluster.check_settled()


def test_a_machine_that_comes_back_in_time_keeps_its_node() -> None:
    cluster = settled()
    machine = cluster.pods[1].machine
    cluster.gone[machine] = cluster.now
    for _ in range(20):
        cluster.reconcile()
        cluster.turn()
    assert "is gone" in cluster.status.message
    del cluster.gone[machine]
    cluster.check_settled()
    assert cluster.registry.joins == 3


def test_a_machine_that_stays_away_is_replaced() -> None:
    cluster = settled()
    cluster.gone[cluster.pods[1].machine] = cluster.now
    for _ in range(50):
        cluster.reconcile()
        cluster.turn()
    assert cluster.registry.joins == 3, "not before its time"
    cluster.check_settled()
    assert cluster.registry.joins == 4
    assert cluster.registry.id_of("web-1") == 4


def test_two_lost_machines_of_three_are_left_alone() -> None:
    cluster = settled()
    for index in (0, 1):
        cluster.gone[cluster.pods[index].machine] = cluster.now
    claims = {index: claim.uid for index, claim in cluster.claims.items()}
    for _ in range(200):
        cluster.reconcile()
        cluster.turn()
    assert {index: claim.uid for index, claim in cluster.claims.items()} == claims
    quorum = cluster.status.condition("QuorumHealthy")
    assert (quorum.holds, quorum.reason) == (False, "NoAnswer")
    cluster.gone.clear()
    cluster.check_settled()


def test_a_lost_volume_is_replaced_at_once() -> None:
    cluster = settled()
    cluster.claims[2].lost = True
    cluster.stop_pod(2)
    cluster.check_settled()
    assert cluster.registry.joins == 4


def test_a_volume_deleted_by_hand_is_let_go_and_made_anew() -> None:
    cluster = settled()
    cluster.claims[2].deleting = True
    cluster.check_settled()
    assert cluster.registry.joins == 4


def test_who_waits_to_be_replaced_does_not_keep_a_lost_one_waiting() -> None:
    """Each waited for the other: a request for one node, and another one whose volume was lost."""
    cluster = settled(nodes=4)
    cluster.claims[3].lost = True
    cluster.claims[3].volume.folders.clear()
    cluster.stop_pod(3)
    cluster.change(replace="web-0")
    cluster.check_settled()
    assert cluster.registry.joins == 6, "both were made anew"


def test_a_node_is_replaced_on_request_once() -> None:
    cluster = settled()
    cluster.change(replace="web-2")
    cluster.check_settled()
    assert cluster.registry.joins == 4
    assert cluster.status.replaced == "web-2"
    cluster.change(replace="")
    cluster.check_settled()
    assert cluster.status.replaced == ""


def test_the_only_copy_is_never_given_up_by_itself() -> None:
    cluster = settled(nodes=1, replication=1)
    cluster.gone[cluster.pods[0].machine] = cluster.now
    for _ in range(100):
        cluster.reconcile()
        cluster.turn()
    assert cluster.registry.joins == 1
    stalled = cluster.status.condition("Stalled")
    assert stalled.reason == "OnlyCopy"


def test_volumes_grow() -> None:
    cluster = settled()
    cluster.change(storage_size="2Gi")
    cluster.check_settled()
    assert {claim.size for claim in cluster.claims.values()} == {"2Gi"}
    cluster.change(nodes=4)
    cluster.check_settled()
    assert cluster.claims[3].size == "2Gi"
    assert cluster.registry.joins == 4, "no pod was restarted for it with an empty volume"


def test_whether_volumes_go_with_the_registry() -> None:
    cluster = settled()
    assert not any(claim.owned for claim in cluster.claims.values())
    cluster.change(delete_with_registry=True)
    cluster.check_settled()
    assert all(claim.owned for claim in cluster.claims.values())


def test_pause_stops_everything_but_the_looking() -> None:
    cluster = settled()
    cluster.change(paused=True, nodes=5, image="registry:2")
    for _ in range(5):
        assert not cluster.reconcile().actions
        cluster.turn()
    assert cluster.status.condition("Paused").holds
    assert cluster.status.observed_generation < cluster.desired.generation
    cluster.change(paused=False)
    cluster.check_settled()


def test_hibernate_and_wake() -> None:
    cluster = settled()
    cluster.change(hibernate=True)
    cluster.settle()
    assert not cluster.pods
    assert len(cluster.claims) == 3
    assert cluster.status.condition("Ready").reason == "Hibernating"
    cluster.change(hibernate=False)
    cluster.check_settled()
    assert cluster.registry.joins == 3


def test_what_is_being_deleted_is_left_to_go() -> None:
    cluster = settled()
    cluster.change(deleting=True)
    assert not cluster.reconcile().actions


def test_a_root_is_replaced_in_stages() -> None:
    cluster = settled()
    cluster.change(tls=Tls(generation=2))
    steps: list[str] = []
    for _ in range(200):
        cluster.reconcile(die_after=2)
        made = cluster.reconcile()
        if not steps or steps[-1] != made.status.trust.step:
            steps.append(made.status.trust.step)
        issuers = {issuer for issuer, _ in cluster.certificates.values()}
        if len(issuers) == 2:
            assert made.status.trust.bundle == (1, 2)
        cluster.turn()
        if steps == ["Distribute", "Reissue", "Withdraw", "Settled"]:
            break
    assert steps == ["Distribute", "Reissue", "Withdraw", "Settled"], words(cluster)
    assert {issuer for issuer, _ in cluster.certificates.values()} == {"web-ca-2"}
    cluster.check_settled()
    assert ("Certificate", "web-ca-1") not in cluster.objects
    assert cluster.objects["ConfigMap", "web-trust"]["data"]["ca.crt"] == "root 2\n"


def test_all_conditions_are_set_at_the_first_visit() -> None:
    made = plan(Observed(), wanted(), 0.0)
    kinds = {condition.type for condition in made.status.conditions}
    assert kinds == {
        *("Ready", "Reconciling", "Stalled", "QuorumHealthy", "CertificatesReady", "Paused")
    }


def test_a_foreign_object_is_never_touched() -> None:
    cluster = settled()
    picture = cluster.observe()
    key = ("Service", "web")
    children = {**picture.children, key: replace(picture.children[key], mine=False)}
    made = plan(replace(picture, children=children), cluster.desired, cluster.now)
    assert not made.actions
    assert made.status.condition("Stalled").reason == "NameTaken"


def test_what_somebody_changed_is_changed_back() -> None:
    cluster = settled()
    picture = cluster.observe()
    key = ("Service", "web")
    children = {**picture.children, key: replace(picture.children[key], fields={"f:metadata": {}})}
    made = plan(replace(picture, children=children), cluster.desired, cluster.now)
    assert [key_of(action) for action in made.actions] == ["ApplyChild Service/web"]


def test_a_refusal_becomes_a_condition() -> None:
    cluster = settled()
    cluster.change(storage_size="2Gi")
    claim = names.claim("web", 0)
    picture = replace(cluster.observe(), refusals={f"KeepClaim {claim}": "class can't expand"})
    made = plan(picture, cluster.desired, cluster.now)
    stalled = made.status.condition("Stalled")
    assert stalled.reason == "Refused"
    assert "class can't expand" in stalled.message


@pytest.mark.parametrize("nodes", [(3, 5), (5, 3)])
def test_a_killed_operator_goes_on_where_it_was(nodes: tuple[int, int]) -> None:
    """Killed after each single action, it ends where it would have ended."""
    before, after = nodes
    cluster = settled(nodes=before)
    cluster.change(nodes=after, image="registry:2")
    for _ in range(150):
        cluster.reconcile(die_after=1)
        cluster.turn()
        cluster.reconcile()
    cluster.check_settled()
    assert cluster.registry.joins == max(nodes), "no member was added twice"


def test_a_person_who_drains_is_taken_back() -> None:
    cluster = settled()
    cluster.registry.drain(cluster.registry.id_of("web-1"))
    cluster.check_settled()


def manifest_of(cluster: ClusterModel, kind: str, name: str) -> Manifest:
    return cluster.objects[kind, name]


def test_the_gate_waits_for_a_node_that_catches_up() -> None:
    cluster = settled()
    cluster.change(image="registry:2")
    picture = cluster.observe()
    registry = picture.registry
    members = tuple(replace(m, lagging=m.name == "web-1") for m in registry.members)
    picture = replace(picture, registry=replace(registry, members=members))
    made = plan(picture, cluster.desired, cluster.now)
    assert not any(isinstance(action, DrainMember | DeletePod) for action in made.actions)
    assert "catches up" in made.sentence


def test_the_gate_waits_until_who_was_replaced_votes_no_more() -> None:
    """Two of three replaced one after the other, quicker than the system group follows, would leave
    it without a quorum for ever."""
    cluster = settled()
    cluster.change(image="registry:2")
    picture = cluster.observe()
    registry = picture.registry
    ids = [member.node_id for member in registry.members]

    def with_voters(*voters: int) -> Observed:
        return replace(picture, registry=replace(registry, system_voters=frozenset(voters)))

    made = plan(with_voters(ids[0], ids[1], 99), cluster.desired, cluster.now)
    assert not any(isinstance(action, DrainMember | DeletePod) for action in made.actions)
    assert "the system group has only 1 other voters that answer, of 3" in made.sentence
    made = plan(with_voters(*ids), cluster.desired, cluster.now)
    assert any(isinstance(action, DrainMember | DeletePod) for action in made.actions)
