"""The sentence that says how a plan stands."""

from __future__ import annotations

from cluster_model import Model, founded, with_nodes

from agniregistry.placement import Limits, Node, Plan, Problem, plan, summary


def test_moves_and_leaderships() -> None:
    made = Plan((), (), 3, 9, 9 * 2**20, 4, 2)
    assert summary(made) == (
        "moving 3 of 12 replicas, 9 to go (9.0 MiB); 2 of 6 leaderships changing hands"
    )


def test_one_of_each() -> None:
    assert summary(Plan((), (), 1, 0, 0, 0, 1)) == (
        "moving 1 of 1 replica, 0 to go; 1 of 1 leadership changing hands"
    )


def test_sizes() -> None:
    assert summary(Plan((), (), 0, 1, 5, 0)).endswith("1 to go (5 bytes)")
    assert summary(Plan((), (), 0, 1, 3 * 2**40, 0)).endswith("1 to go (3.0 TiB)")


def test_nothing_to_do() -> None:
    assert summary(Plan((), (), 0, 0, 0, 0)) == "balanced"


def test_problems() -> None:
    problems = (Problem("A", "a is so"), Problem("B", "b is so"))
    assert summary(Plan((), problems, 0, 0, 0, 0)) == "nothing to move; 2 problems: a is so"


def test_the_moves_to_go_become_fewer_until_none_is_left() -> None:
    cluster = with_nodes(founded([Node(1), Node(2), Node(3)], 16, 3), Node(4))
    model = Model(cluster, Limits(moves_in_flight_max=3))
    left = []
    while (made := model.round()).steps:
        left.append(made.remaining_moves)
    assert left == sorted(left, reverse=True)
    assert left[0] > 0
    assert left[-1] == 0
    assert summary(plan(model.cluster)) == "balanced"
