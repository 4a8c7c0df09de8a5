"""Who leads: those who do know best."""

from __future__ import annotations

from agniregistry.placement import leader_of


def test_who_says_that_it_leads_counts_for_more_than_what_others_heard() -> None:
    """One node's old knowledge of a partition that it didn't hold made a rebalancing move
    leaderships to and fro for ever."""
    claims = {1: [(0, 3)], 2: [(7, 5)], 3: []}
    assert leader_of(7, 3, claims) == 2
    assert leader_of(0, 1, claims) == 1


def test_of_two_the_one_of_the_higher_term_leads() -> None:
    assert leader_of(7, 1, {1: [(7, 4)], 2: [(7, 5)]}) == 2


def test_who_answers_and_does_not_claim_it_does_not_lead() -> None:
    assert leader_of(7, 3, {1: [], 3: []}) == 0


def test_who_does_not_answer_may_lead_as_it_was_told() -> None:
    assert leader_of(7, 3, {1: [], 2: []}) == 3
