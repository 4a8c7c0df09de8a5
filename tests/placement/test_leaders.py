"""Leaderships: as even as any assignment can be, and passed on through others where it must be."""

from __future__ import annotations

from collections import Counter
from itertools import product

from cluster_model import settled
from hypothesis import given, settings
from hypothesis import strategies as st

from agniregistry.placement import Cluster, Node, NodeState, goal_of, leaders_of
from agniregistry.placement.leaders import _spread


def unevenness(chosen: list[int]) -> int:
    return sum(count * count for count in Counter(chosen).values())


@given(
    st.lists(st.sets(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_no_assignment_is_more_even(fit, random) -> None:
    choices = {number: tuple(sorted(nodes)) for number, nodes in enumerate(fit)}
    first = {number: (random.choice(nodes),) for number, nodes in choices.items()}
    chosen = _spread(choices, first, dict.fromkeys(range(1, 5), 1))
    assert all(chosen[number] in nodes for number, nodes in choices.items())
    best = min(unevenness(list(each)) for each in product(*choices.values()))
    assert unevenness(list(chosen.values())) == best


def test_who_leads_evenly_already_goes_on() -> None:
    choices = dict.fromkeys(range(9), (1, 2, 3))
    first = {number: (number % 3 + 1,) for number in range(9)}
    assert _spread(choices, first, {1: 1, 2: 1, 3: 1}) == {n: n % 3 + 1 for n in range(9)}


def test_a_leadership_is_passed_on_through_another_node() -> None:
    choices = {0: (1, 2), 1: (1, 2), 2: (2, 3)}
    first = {0: (1,), 1: (1,), 2: (2,)}
    assert sorted(_spread(choices, first, {1: 1, 2: 1, 3: 1}).values()) == [1, 2, 3]


def test_a_draining_node_is_not_preferred_and_a_silent_one_stays_so() -> None:
    nodes = (Node(1, state=NodeState.DRAINING), Node(2, reachable=False), Node(3), Node(4))
    partitions = (settled(0, (1, 3, 4)), settled(1, (2, 3, 4)))
    led = Cluster(nodes, (partitions[0], settled(1, (3, 2, 4))), 3)
    assert leaders_of(led, goal_of(led)).preferred[0] in (3, 4)
    away = Cluster(nodes, partitions, 3)
    assert leaders_of(away, goal_of(away)).preferred[1] == 2
    assert leaders_of(away, goal_of(away)).now[1] in (3, 4)
