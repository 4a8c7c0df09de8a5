"""What looks lost and isn't, and what is given up: never more than is lost, never twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kubernetes_model import ClusterModel
from test_plan import settled, words

from agniregistry.placement import NodeState
from agniregistry_operator.model.actions import DeleteClaim, DeletePod, key_of
from agniregistry_operator.planning.planner import plan


def rounds(cluster: ClusterModel, count: int) -> ClusterModel:
    for _ in range(count):
        cluster.reconcile()
        cluster.turn()
    return cluster


def test_more_replicas_are_there_before_anything_restarts() -> None:
    cluster = settled(replication=1)
    cluster.log.clear()
    cluster.change(replication=3, image="registry:2")
    cluster.check_settled()
    restarts = [i for i, line in enumerate(cluster.log) if "DeletePod" in line]
    moves = [i for i, line in enumerate(cluster.log) if "SetWanted" in line]
    assert max(moves) < min(restarts), words(cluster)


def test_another_number_of_replicas_restarts_nobody() -> None:
    cluster = settled(replication=1)
    pods = {index: pod.uid for index, pod in cluster.pods.items()}
    cluster.change(replication=3)
    cluster.check_settled()
    assert {index: pod.uid for index, pod in cluster.pods.items()} == pods


def test_who_was_to_restart_takes_replicas_first() -> None:
    cluster = settled(replication=1)
    cluster.change(image="registry:2")
    for _ in range(20):
        made = cluster.reconcile()
        cluster.turn()
        if any("DrainMember" in key_of(action) for action in made.actions):
            break
    cluster.change(replication=3)
    cluster.check_settled()


def test_a_silent_kubelet_takes_no_node_along() -> None:
    """Its machine counts as gone, and the node on it answers."""
    cluster = settled()
    claim = cluster.claims[1].uid
    cluster.silent[cluster.pods[1].machine] = cluster.now
    rounds(cluster, 200)
    assert cluster.claims[1].uid == claim
    assert "is silent, and the node on it answers" in cluster.status.message
    stalled = cluster.status.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "NodeNotReady", "somebody should look at the machine"
    cluster.silent.clear()
    cluster.check_settled()
    assert cluster.registry.joins == 3


def test_one_answer_that_is_missing_is_no_loss() -> None:
    cluster = settled()
    cluster.silent[cluster.pods[1].machine] = cluster.now
    rounds(cluster, 100)
    picture = cluster.observe()
    assert picture.registry is not None
    members = tuple(replace(m, reachable=m.name != "web-1") for m in picture.registry.members)
    picture = replace(picture, registry=replace(picture.registry, members=members))
    made = plan(picture, cluster.desired, cluster.now)
    assert not any(isinstance(action, DeleteClaim | DeletePod) for action in made.actions)
    later = plan(replace(picture, status=made.status), cluster.desired, cluster.now + 31)
    assert any(isinstance(action, DeleteClaim) for action in later.actions)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_volume_deleted_by_hand_keeps_the_only_copy(nodes: int) -> None:
    cluster = settled(nodes=nodes, replication=1)
    cluster.claims[0].deleting = True
    rounds(cluster, 20)
    assert 0 in cluster.claims
    stalled = cluster.status.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "OnlyCopy"
    cluster.change(replace="web-0")
    rounds(cluster, 20)
    assert not any(claim.deleting for claim in cluster.claims.values()), "it was asked for"


def test_a_replacement_is_carried_out_once_wherever_the_operator_dies() -> None:
    for actions in range(3):
        cluster = settled()
        cluster.change(replace="web-2")
        for _ in range(60):
            cluster.reconcile(die_after=actions)
            cluster.turn()
            cluster.reconcile()
            cluster.turn()
            cluster.turn()
        cluster.check_settled()
        assert cluster.registry.joins == 4, words(cluster)


def test_a_replacement_that_has_begun_is_in_the_status_before_anything_is_done() -> None:
    cluster = settled()
    cluster.change(replace="web-2")
    made = cluster.reconcile()
    assert made.status.doomed == cluster.claims[2].uid
    assert made.status.replaced == "web-2"
    assert not any(isinstance(action, DeleteClaim | DeletePod) for action in made.actions)


def test_who_keeps_the_only_copy_is_not_in_the_way_of_another() -> None:
    cluster = settled(nodes=4, replication=1, partitions=2)
    holder = next(iter(cluster.registry.partitions.values())).voters[0]
    names = [cluster.registry.nodes[holder].name]
    held = {node for p in cluster.registry.partitions.values() for node in p.voters}
    free = next(n.name for i, n in cluster.registry.nodes.items() if i not in held)
    doomed, lost = int(names[0].rpartition("-")[2]), int(free.rpartition("-")[2])
    cluster.claims[doomed].deleting = True
    cluster.claims[lost].lost = True
    cluster.claims[lost].volume.folders.clear()
    cluster.stop_pod(lost)
    rounds(cluster, 20)
    assert cluster.registry.joins == 5, words(cluster)
    assert cluster.claims[doomed].deleting


def test_who_is_lost_in_an_update_and_is_to_leave_leaves_first() -> None:
    """The update waited for it to answer, and its leaving for the update: for ever."""
    cluster = settled()
    cluster.change(config={"queue_limit": 1001})
    rounds(cluster, 1)
    operation = cluster.status.operation
    assert operation is not None
    assert operation.kind == "Update"
    victim = 2 if operation.target != "web-2" else 1
    cluster.claims[victim].lost = True
    cluster.claims[victim].volume.folders.clear()
    cluster.stop_pod(victim)
    cluster.change(remove=f"web-{victim}")
    cluster.check_settled()


def test_who_is_to_stay_after_all_takes_the_replicas_of_who_leaves_instead() -> None:
    """It was out of date, so it drained on until its update, which waited for the other's end."""
    cluster = settled(nodes=3)
    cluster.change(remove="web-0")
    for _ in range(100):
        cluster.turn()
        cluster.reconcile()
        registry = cluster.observe().registry
        assert registry is not None
        old, new = registry.present("web-0"), registry.present("web-3")
        if new and all(new.node_id in p.wanted for p in registry.cluster.partitions):
            break
    assert old is not None, words(cluster)
    assert old.state is NodeState.DRAINING
    cluster.change(remove="web-3", image="registry:2")
    cluster.check_settled()
