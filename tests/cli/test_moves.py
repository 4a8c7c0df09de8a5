"""When a move is over: what is shown of a partition may be older than what was asked for."""

from __future__ import annotations

import pytest

from agniregistry import types as t
from agniregistry.cli.commands.members import not_there

HERE, THERE = (1, 2, 3), (1, 2, 4)
ASKED = 7
"""The version at which it was taken back to HERE."""


def shown(
    *,
    wanted: tuple[int, ...] = HERE,
    voters: tuple[int, ...] = HERE,
    learners: tuple[int, ...] = (),
    wanted_version: int = ASKED,
    reached_version: int = ASKED,
    version: int = ASKED,
) -> t.ClusterMembers:
    placement = t.Placement(
        0, wanted, wanted_version, voters, learners, 1, reached_version=reached_version
    )
    return t.ClusterMembers(version, placements=(placement,))


@pytest.mark.parametrize(
    "found",
    [
        shown(),
        shown(wanted=(3, 2, 1)),
        shown(version=9),
        # Asked for where it was already: nothing was set.
        shown(wanted_version=3, reached_version=3),
        # A node of an older version was asked, or leads it.
        shown(reached_version=0),
    ],
)
def test_it_is_there(found: t.ClusterMembers) -> None:
    assert not found.placements[0].is_moving
    assert not_there(found, 0, list(HERE), ASKED) == ""


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (shown(reached_version=6), "its leader has not confirmed that yet"),
        (shown(reached_version=6, learners=(4,)), "is on 1, 2, 3, 4 catch up"),
        (shown(reached_version=6, voters=THERE), "is on 1, 2, 4"),
        (shown(reached_version=0, voters=THERE), "is on 1, 2, 4"),
        (shown(voters=THERE), "is on 1, 2, 4"),
        # The asked node knows neither of the move nor that it was taken back.
        (shown(wanted_version=5, reached_version=5, version=5), "not confirmed that yet"),
        (shown(wanted=THERE, voters=THERE, version=9), "was sent to 1, 2, 4 meanwhile"),
    ],
)
def test_it_is_not_there(found: t.ClusterMembers, why: str) -> None:
    assert why in not_there(found, 0, list(HERE), ASKED)
