"""The planner's rules as properties: of any cluster at all, and of healthy ones run to their end.

The model checks every step as it carries it out: quorum, one replica at a time, limits, versions.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from time import process_time

import pytest
from cluster_model import (
    Model,
    clusters,
    founded,
    healthy,
    replica_counts,
    settled,
    with_nodes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from agniregistry.placement import (
    Cluster,
    Limits,
    Node,
    NodeState,
    Partition,
    SetWanted,
    TransferLeader,
    goal_of,
    plan,
)

SOURCES = str(Path(__file__).parents[2] / "src")

LIMITS = st.builds(
    Limits,
    moves_in_flight_max=st.integers(1, 6),
    moves_per_node_max=st.integers(1, 4),
    transfers_per_plan_max=st.integers(1, 8),
)


def zones_of(cluster: Cluster, node_ids: tuple[int, ...]) -> Counter[str]:
    return Counter(cluster.node(node_id).place for node_id in node_ids)


def leader_counts(cluster: Cluster) -> list[int]:
    led = Counter(partition.leader for partition in cluster.partitions)
    return [led[node.node_id] for node in cluster.takers]


def reasons(cluster: Cluster) -> set[str]:
    return {problem.reason for problem in plan(cluster).problems}


@given(clusters(), LIMITS)
@settings(max_examples=400, deadline=None)
def test_plans_of_any_cluster_keep_the_rules_and_end(cluster: Cluster, limits: Limits) -> None:
    model = Model(cluster, limits)
    model.run()
    again = plan(model.cluster, limits)
    assert not again.steps


@given(clusters(), LIMITS, st.data())
@settings(max_examples=200, deadline=None)
def test_rules_hold_while_nodes_come_and_go(
    cluster: Cluster, limits: Limits, data: st.DataObject
) -> None:
    model = Model(cluster, limits)
    for _ in range(6):
        numbers = [partition.number for partition in cluster.partitions]
        model.round(slow=frozenset(data.draw(st.sets(st.sampled_from(numbers)))))
        node = data.draw(st.sampled_from(model.cluster.nodes))
        change = data.draw(
            st.sampled_from(
                [
                    {"reachable": not node.reachable},
                    {"state": NodeState.DRAINING},
                    {"state": NodeState.ACTIVE},
                    {"weight": 2},
                ]
            )
        )
        if node.state is not NodeState.LEFT:
            model.cluster = with_nodes(model.cluster, replace(node, **change))
    everybody = [replace(node, reachable=True) for node in model.cluster.nodes]
    model.cluster = with_nodes(model.cluster, *everybody)
    model.run()


@given(healthy(), LIMITS)
@settings(max_examples=300, deadline=None)
def test_the_end_is_balanced_and_spread(cluster: Cluster, limits: Limits) -> None:
    model = Model(cluster, limits)
    end = model.run()
    cluster = model.cluster
    assert end.is_done
    replicas = min(cluster.replication, len(cluster.nodes))
    goal = goal_of(cluster)
    counts = replica_counts(cluster)
    for node in cluster.nodes:
        bounds = goal.bounds[node.node_id]
        assert bounds.low <= counts[node.node_id] <= bounds.high
    for partition in cluster.partitions:
        assert len(partition.wanted) == replicas
        places = zones_of(cluster, partition.wanted)
        if len(zones_of(cluster, tuple(n.node_id for n in cluster.nodes))) >= replicas:
            assert max(places.values()) == 1
        assert max(places.values()) <= cluster.per_zone_max


@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_leaderships_are_spread_within_one(
    count: int, exponent: int, replication: int, random: Random
) -> None:
    nodes = [Node(node_id) for node_id in range(1, count + 1)]
    cluster = founded(nodes, 2**exponent, replication)
    shuffled = [replace(p, leader=random.choice(p.wanted)) for p in cluster.partitions]
    model = Model(replace(cluster, partitions=tuple(shuffled)))
    model.run()
    if replication > 1:
        assert max(leader_counts(model.cluster)) - min(leader_counts(model.cluster)) <= 1
    assert all(p.leader == p.wanted[0] for p in model.cluster.partitions)


@given(healthy(), LIMITS, st.sampled_from(["", "a", "new"]))
@settings(max_examples=150, deadline=None)
def test_a_joining_node_receives_at_most_its_share_plus_one(
    cluster: Cluster, limits: Limits, zone: str
) -> None:
    model = Model(cluster, limits)
    model.run()
    model.cluster = with_nodes(model.cluster, Node(99, zone=zone))
    share = goal_of(model.cluster).bounds[99].high
    model.run()
    assert model.most_held[99] <= share + 1
    assert replica_counts(model.cluster)[99] <= share


@pytest.mark.parametrize("zones", [1, 3, 5])
@pytest.mark.parametrize("count", [16, 64, 256])
def test_three_to_five_to_three_moves_little_more_than_it_must(count: int, zones: int) -> None:
    def node(node_id: int, state: NodeState = NodeState.ACTIVE) -> Node:
        return Node(node_id, zone=f"z{node_id % zones}" if zones > 1 else "", state=state)

    model = Model(founded([node(1), node(2), node(3)], count, 3), Limits(16, 8, 64))
    model.run()
    assert model.moves == 0
    model.cluster = with_nodes(model.cluster, node(4), node(5))
    must = sum(goal_of(model.cluster).bounds[n].low for n in (4, 5)) * 1000
    model.run()
    held = replica_counts(model.cluster)
    assert max(held.values()) - min(held.values()) <= 1 or zones == 3
    assert must <= model.bytes_moved <= 1.2 * must
    model.bytes_moved = 0
    must = (held[4] + held[5]) * 1000
    leaving = (node(4, NodeState.DRAINING), node(5, NodeState.DRAINING))
    model.cluster = with_nodes(model.cluster, *leaving)
    model.run()
    assert must <= model.bytes_moved <= 1.2 * must
    assert replica_counts(model.cluster) == {1: count, 2: count, 3: count}
    assert max(leader_counts(model.cluster)) - min(leader_counts(model.cluster)) <= 1


@given(healthy(least=2), LIMITS, st.data())
@settings(max_examples=200, deadline=None)
def test_a_draining_node_is_emptied_if_others_suffice(
    cluster: Cluster, limits: Limits, data: st.DataObject
) -> None:
    node = data.draw(st.sampled_from(cluster.nodes))
    cluster = with_nodes(cluster, replace(node, state=NodeState.DRAINING))
    model = Model(cluster, limits)
    end = model.run()
    held = replica_counts(model.cluster)[node.node_id]
    assert all(partition.leader != node.node_id for partition in model.cluster.partitions)
    if len(cluster.takers) >= cluster.replication:
        assert held == 0
    elif held:
        assert "DRAIN_BLOCKED" in {problem.reason for problem in end.problems}


@given(healthy(least=3), LIMITS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_silent_node_is_given_nothing_and_keeps_all(
    cluster: Cluster, limits: Limits, data: st.DataObject
) -> None:
    model = Model(cluster, limits)
    model.run()
    silent = data.draw(st.sampled_from(cluster.nodes)).node_id
    before = {p.number for p in model.cluster.partitions if silent in p.wanted}
    preferred = {p.number for p in model.cluster.partitions if p.wanted[0] == silent}
    model.cluster = with_nodes(model.cluster, replace(cluster.node(silent), reachable=False))
    for partition in model.cluster.partitions:
        others = [n for n in partition.wanted if n != silent]
        if partition.leader == silent:
            elected = replace(partition, leader=others[-1] if others else 0)
            model._put(elected)
    end = model.run()
    assert {p.number for p in model.cluster.partitions if silent in p.wanted} == before
    assert {p.number for p in model.cluster.partitions if p.wanted[0] == silent} == preferred
    assert not before or "NODE_UNREACHABLE" in {problem.reason for problem in end.problems}


def test_a_balanced_cluster_yields_an_empty_plan() -> None:
    wanted = [(1, 2, 3), (2, 3, 1), (3, 1, 2)]
    partitions = tuple(settled(number, nodes) for number, nodes in enumerate(wanted))
    made = plan(Cluster((Node(1), Node(2), Node(3)), partitions))
    assert made.steps == ()
    assert made.problems == ()
    assert made.is_done


def test_too_few_nodes_are_all_used_and_that_is_said() -> None:
    model = Model(Cluster((Node(1), Node(2)), (settled(0, (1,)), settled(1, (2,))), 3))
    end = model.run()
    assert [set(p.wanted) for p in model.cluster.partitions] == [{1, 2}, {1, 2}]
    assert [problem.reason for problem in end.problems] == ["TOO_FEW_NODES"]
    assert "only 2 nodes" in end.problems[0].message


def test_a_node_that_cannot_be_emptied_is_named() -> None:
    nodes = [Node(1), Node(2), Node(3, name="c")]
    cluster = founded(nodes, 4, 3)
    cluster = with_nodes(cluster, Node(3, name="c", state=NodeState.DRAINING))
    assert reasons(cluster) == {"TOO_FEW_NODES", "DRAIN_BLOCKED"}
    model = Model(replace(cluster, replication=2))
    model.run()
    assert replica_counts(model.cluster) == {1: 4, 2: 4}


def test_a_drain_before_a_restart_moves_leaderships_alone() -> None:
    cluster = founded([Node(n) for n in (1, 2, 3)], 16, 3)
    resting = Node(2, state=NodeState.DRAINING, keeps_replicas=True)
    model = Model(with_nodes(cluster, resting))
    model.run()
    assert model.moves == 0
    assert model.transfers > 0
    assert 2 not in {partition.leader for partition in model.cluster.partitions}


def test_the_last_node_can_be_replaced() -> None:
    nodes = (Node(1, state=NodeState.DRAINING), Node(2))
    model = Model(Cluster(nodes, (settled(0, (1,)),), 1))
    model.run()
    assert model.cluster.partitions[0].wanted == (2,)
    assert model.cluster.partitions[0].leader == 2


def test_a_swap_that_would_risk_the_quorum_grows_first() -> None:
    nodes = (Node(1), Node(2, state=NodeState.DRAINING), Node(3, reachable=False), Node(4))
    model = Model(Cluster(nodes, (settled(0, (1, 2, 3)),), 3))
    first = model.round().steps[0]
    assert isinstance(first, SetWanted)
    assert set(first.nodes) == {1, 2, 3, 4}
    assert "quorum" in first.why
    model.run()
    assert set(model.cluster.partitions[0].wanted) == {1, 3, 4}


def test_a_dead_node_that_is_drained_is_replaced() -> None:
    dead = Node(3, state=NodeState.DRAINING, reachable=False)
    model = Model(Cluster((Node(1), Node(2), dead, Node(4)), (settled(0, (1, 2, 3)),), 3))
    model.run()
    assert set(model.cluster.partitions[0].wanted) == {1, 2, 4}


def test_a_replica_on_a_node_that_nobody_knows_is_replaced() -> None:
    model = Model(Cluster((Node(1), Node(2), Node(4)), (settled(0, (1, 2, 77)),), 3))
    model.run()
    assert set(model.cluster.partitions[0].wanted) == {1, 2, 4}


def test_a_move_to_a_node_that_is_drained_meanwhile_is_taken_back() -> None:
    nodes = (Node(1), Node(2), Node(3), Node(4, state=NodeState.DRAINING, reachable=False))
    moving = Partition(0, (1, 2, 4), 7, (1, 2, 3), (4,), 1, 10)
    step = plan(Cluster(nodes, (moving,), 3)).steps[0]
    assert isinstance(step, SetWanted)
    assert step.nodes == (1, 2, 3)
    assert step.expected_version == 7


def test_a_move_to_a_silent_node_waits_and_that_is_said() -> None:
    nodes = (Node(1), Node(2), Node(3), Node(4, reachable=False))
    moving = Partition(0, (1, 2, 4), 7, (1, 2, 3), (4,), 1, 10)
    made = plan(Cluster(nodes, (moving,), 3))
    assert made.steps == ()
    assert not made.is_done
    assert {"NODE_UNREACHABLE", "MOVE_WAITS"} == {problem.reason for problem in made.problems}


def test_a_move_that_was_taken_back_is_under_way_until_its_leader_says_so() -> None:
    """What was last reported is older than what is wanted: nothing else may begin."""
    nodes = tuple(Node(number) for number in range(1, 5))
    cluster = founded(list(nodes), 16, 3)
    taken_back = replace(cluster.partitions[0], version=9)
    assert taken_back.in_flight
    only = plan(replace(cluster, partitions=(taken_back,)))
    assert (only.steps, only.moves_in_flight, only.is_done) == ((), 1, False)
    assert not replace(taken_back, reached=9).in_flight
    assert not replace(taken_back, reached=0).in_flight, "a node of an older version asked"
    assert replace(taken_back, reached=9, learners=(4,)).in_flight


def test_a_partition_without_a_leader_is_left_alone_and_named() -> None:
    partitions = (replace(settled(0, (1, 2, 3)), leader=0),)
    nodes = (Node(1), Node(2), Node(3), Node(4, weight=9))
    made = plan(Cluster(nodes, partitions, 3))
    assert made.steps == ()
    assert [problem.reason for problem in made.problems] == ["NO_LEADER"]


def test_what_a_silent_node_led_is_led_by_others_meanwhile() -> None:
    nodes = [Node(1), Node(2), Node(3)]
    cluster = founded(nodes, 16, 3)
    model = Model(cluster)
    model.run()
    model.cluster = with_nodes(model.cluster, Node(1, reachable=False))
    for partition in model.cluster.partitions:
        if partition.leader == 1:
            model._put(replace(partition, leader=2))
    made = model.round()
    assert made.steps
    assert all(isinstance(step, TransferLeader) for step in made.steps)
    model.run()
    assert max(leader_counts(model.cluster)) - min(leader_counts(model.cluster)) <= 1


def test_weight_decides_the_share() -> None:
    nodes = [Node(1), Node(2), Node(3), Node(4, weight=2), Node(5, weight=0)]
    model = Model(Cluster(tuple(nodes), tuple(settled(n, (1, 5)) for n in range(20)), 2))
    model.run()
    assert replica_counts(model.cluster) == {1: 8, 2: 8, 3: 8, 4: 16}
    assert leader_counts(model.cluster) == [4, 4, 4, 8]


def test_the_smallest_partitions_move() -> None:
    partitions = tuple(settled(n, (1,), 100 * (n + 1)) for n in range(4))
    model = Model(Cluster((Node(1), Node(2)), partitions, 1))
    model.run()
    assert [p.wanted for p in model.cluster.partitions] == [(2,), (2,), (1,), (1,)]


def test_limits_of_zero_begin_nothing_but_count() -> None:
    cluster = with_nodes(founded([Node(1), Node(2), Node(3)], 16, 3), Node(4))
    made = plan(cluster, Limits(0, 0, 0))
    assert made.steps == ()
    assert made.remaining_moves == 12
    assert made.remaining_bytes == 12_000


def test_256_partitions_on_50_nodes_are_planned_in_time() -> None:
    nodes = [Node(n, zone=f"z{n % 3}") for n in range(1, 51)]
    cluster = with_nodes(founded(nodes[:40], 256, 3), *nodes[40:])
    began = process_time()
    made = plan(cluster)
    assert process_time() - began < 1
    assert made.steps


def test_planning_needs_no_package_beyond_the_sdks() -> None:
    program = "import sys; sys.modules['xxhash'] = None; import agniregistry.placement"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": SOURCES})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cluster((), (), 0), "replication"),
        (lambda: Cluster((Node(1), Node(1)), ()), "node_id twice"),
        (lambda: Cluster((Node(0),), ()), "at least 1"),
        (lambda: Cluster((Node(1, weight=-1),), ()), "weight"),
        (lambda: Cluster((), (Partition(1), Partition(1))), "number twice"),
        (lambda: Cluster((), (Partition(1, (2, 2)),)), "names a node twice"),
        (lambda: Limits(-1), "moves_in_flight_max"),
    ],
)
def test_nonsense_is_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
