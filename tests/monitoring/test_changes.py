"""What agnictl changes in a cluster of three real nodes, and that --wait ends when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from three_nodes import ThreeNodes

Ctl = Callable[..., Result]


def done(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def members(ctl: Ctl) -> Any:
    return json.loads(done(ctl("cluster", "members", "-o", "json")))


def leader(ctl: Ctl, partition: int) -> int:
    return int(members(ctl)["placements"][partition]["leader_id"])


def test_a_drain_that_is_waited_for_has_happened(ctl: Ctl, cluster: ThreeNodes) -> None:
    victim = leader(ctl, 0)
    said = done(ctl("cluster", "drain", str(victim), "--wait"))
    assert said.startswith(f"node {victim} leads nothing")
    found = members(ctl)
    assert victim not in {each["leader_id"] for each in found["placements"]}
    assert {each["node_id"]: each["state"] for each in found["members"]}[victim] == "draining"
    assert done(ctl("cluster", "return", str(victim))) == f"node {victim} takes part again"


def test_a_transfer_that_is_waited_for_has_happened(ctl: Ctl, cluster: ThreeNodes) -> None:
    for node in ("n1", "n2", "n3", "n1"):
        number = int(node[1:])
        said = done(ctl("cluster", "transfer", "2", node, "--wait"))
        assert said == f"partition 2 is led by node {number}"
        assert leader(ctl, 2) == number


def test_a_move_that_is_waited_for_has_happened(ctl: Ctl, cluster: ThreeNodes) -> None:
    assert done(ctl("cluster", "move", "3", "--to", "n2,n3", "--wait")) == "partition 3 is on 2, 3"
    assert sorted(members(ctl)["placements"][3]["voters"]) == [2, 3]
    said = done(ctl("cluster", "move", "3", "--to", "n2,n3,n1", "--wait"))
    assert said == "partition 3 is on 2, 3, 1"


def test_waiting_ends_with_what_is_missing_still(ctl: Ctl, cluster: ThreeNodes) -> None:
    """The time is over before the move can be: it is not undone. A machine that stands still while
    the command is under way may show it done all the same; then it is tried once more."""
    for _ in range(5):
        done(ctl("cluster", "move", "1", "--to", "n1,n2,n3", "--wait"))
        result = ctl("cluster", "move", "1", "--to", "n1,n2", "--wait", "--wait-max", "1ms")
        if result.exit_code:
            break
    assert result.exit_code == 5
    assert "after 1ms: partition 1 is on " in result.stderr
    assert "cluster top --partitions" in result.stderr
    done(ctl("cluster", "move", "1", "--to", "n1,n2,n3", "--wait"))


def test_a_move_that_is_taken_back_on_its_way_is_waited_for(ctl: Ctl, cluster: ThreeNodes) -> None:
    """What was last reported is where it should be again, long before the replicas are."""
    for _ in range(5):
        done(ctl("cluster", "move", "1", "--to", "n1,n2"))
        done(ctl("cluster", "move", "1", "--to", "n1,n2,n3", "--wait"))
        found = members(ctl)["placements"][1]
        assert found["reached_version"] == found["wanted_version"]
        assert (sorted(found["voters"]), found["learners"]) == ([1, 2, 3], [])


def test_the_status_of_a_whole_cluster(ctl: Ctl, cluster: ThreeNodes) -> None:
    said = done(ctl("cluster", "status"))
    for fact in ("Nodes           all 3 answer", "Partitions led  all", "Replicas        all"):
        assert fact in said


@pytest.mark.parametrize("command", ["drain", "return", "remove"])
def test_who_is_not_there_is_named_with_those_who_are(
    ctl: Ctl, cluster: ThreeNodes, command: str
) -> None:
    result = ctl("cluster", command, "n9")
    assert result.exit_code == 3
    assert "there is no node 'n9'" in result.stderr
    assert "there are n1, n2, n3" in result.stderr


def test_a_node_that_holds_something_is_not_removed(ctl: Ctl, cluster: ThreeNodes) -> None:
    result = ctl("cluster", "remove", "n3")
    assert result.exit_code == 4
    assert "node 3 still holds replicas of 4 partitions" in result.stderr


def test_the_help_shows_every_command_in_a_section(ctl: Ctl) -> None:
    text = done(ctl("cluster", "--help"))
    for command in ("status", "top", "drain", "remove", "rebalance", "move", "transfer"):
        assert f"\n  {command} " in text
    assert "..." not in text.partition("Look:")[2]
    assert "Others:" not in text


def test_rebalancing_reaches_the_nodes_of_a_context_with_tls(ctl: Ctl, cluster: ThreeNodes) -> None:
    """Whether a node is there is asked with the context's certificate, at the node's address."""
    told = json.loads(done(ctl("cluster", "rebalance", "--dry-run", "-o", "json")))
    reasons = {problem["reason"] for problem in told["problems"]}
    assert "NODE_UNREACHABLE" not in reasons
