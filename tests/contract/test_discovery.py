"""The contract of discovery: who is found, in which order, and why others are not."""

from __future__ import annotations

from typing import Any

import pytest

from agniregistry import types as t


@pytest.fixture
def fleet(registry: Any, make: Any) -> Any:
    """Gateways that differ in region and load."""
    make.put("eu-1", region="eu", ttl_ms=60_000)
    make.put("us-1", region="us")
    make.put("small", region="eu", capacity=t.Capacity(cpu=0.5), labels={"tier": "core"})
    make.put("leaving", region="eu")
    registry.deregister(make.key("leaving"), drain_ms=60_000)
    return make


def found(registry: Any, make: Any, **options: Any) -> list[str]:
    """The names, best first."""
    fields = options.pop("fields", {})
    answer = registry.discover(make.filter(kind=t.Kind.GATEWAY, **fields), **options)
    return [candidate.instance.key.name for candidate in answer.candidates]


def test_what_is_alive_is_found_and_counted(registry: Any, fleet: Any) -> None:
    answer = registry.discover(fleet.filter(kind=t.Kind.GATEWAY), limit=10)
    names = {candidate.instance.key.name for candidate in answer.candidates}
    assert names == {"eu-1", "us-1", "small"}
    assert answer.matched == 3
    for candidate in answer.candidates:
        assert candidate.instance.status is t.Status.ALIVE
        assert candidate.instance.spec.port == 4000


def test_the_preferred_region_comes_first(registry: Any, fleet: Any) -> None:
    assert found(registry, fleet, region="us", limit=10)[0] == "us-1"
    assert found(registry, fleet, region="eu", limit=10)[-1] == "us-1"


def test_scores_explain_the_order(registry: Any, fleet: Any) -> None:
    lease = registry.get(fleet.key("eu-1")).record.lease_id
    registry.renew([lease], [t.LeaseLoad(lease, t.Capacity(0.1, 20, 4096, 40960))])
    answer = registry.discover(fleet.filter(kind=t.Kind.GATEWAY), region="eu", limit=10)
    scores = {c.instance.key.name: c.score for c in answer.candidates}
    totals = [candidate.score.total for candidate in answer.candidates]
    assert totals == sorted(totals, reverse=True)
    assert scores["eu-1"].region_match == 1
    assert scores["us-1"].region_match == 0
    assert scores["eu-1"].free_capacity == pytest.approx(0.1)
    assert scores["us-1"].free_capacity == 1
    assert scores["us-1"].freshness == 0.5
    assert scores["eu-1"].freshness > 0.5


def test_filters_and_limits_hold(registry: Any, fleet: Any) -> None:
    assert found(registry, fleet, fields={"regions": ("us",)}) == ["us-1"]
    assert found(registry, fleet, fields={"labels": {"tier": "core"}}) == ["small"]
    assert len(found(registry, fleet, limit=2)) == 2
    assert "small" not in found(
        registry, fleet, fields={"min_capacity": t.Capacity(cpu=1)}, limit=10
    )
    assert found(registry, fleet, fields={"regions": ("mars",)}) == []


def test_draining_records_are_found_only_where_asked_for(registry: Any, fleet: Any) -> None:
    assert found(registry, fleet, fields={"statuses": (t.Status.DRAINING,)}) == ["leaving"]


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("nobody", {}, t.ExclusionReason.NOT_REGISTERED),
        ("leaving", {}, t.ExclusionReason.DRAINING),
        ("us-1", {"regions": ("eu",)}, t.ExclusionReason.REGION),
        ("us-1", {"labels": {"tier": "core"}}, t.ExclusionReason.LABELS),
        ("small", {"min_capacity": t.Capacity(cpu=1)}, t.ExclusionReason.CAPACITY),
        ("us-1", {"min_free": t.Capacity(cpu=2)}, t.ExclusionReason.FREE_CAPACITY),
        ("us-1", {"name_prefix": "eu"}, t.ExclusionReason.FILTER),
    ],
)
def test_explain_says_why_a_record_is_missing(
    registry: Any, fleet: Any, name: str, fields: dict[str, Any], reason: t.ExclusionReason
) -> None:
    answer = registry.discover(
        fleet.filter(kind=t.Kind.GATEWAY, **fields), explain=True, explain_names=[name], limit=10
    )
    (exclusion,) = answer.exclusions
    assert exclusion.key == fleet.key(name)
    assert exclusion.reason is reason
    assert exclusion.detail


def test_explain_tells_who_was_outranked(registry: Any, fleet: Any) -> None:
    answer = registry.discover(
        fleet.filter(kind=t.Kind.GATEWAY),
        region="eu",
        limit=1,
        explain=True,
        explain_names=["us-1"],
    )
    (exclusion,) = answer.exclusions
    assert exclusion.reason is t.ExclusionReason.OUTRANKED


def test_explain_without_names_shows_some_of_those_left_out(registry: Any, fleet: Any) -> None:
    answer = registry.discover(
        fleet.filter(kind=t.Kind.GATEWAY, regions=("us",)), explain=True, limit=10
    )
    reasons = {exclusion.key.name: exclusion.reason for exclusion in answer.exclusions}
    assert reasons
    assert "us-1" not in reasons


def test_without_explain_nothing_is_explained(registry: Any, fleet: Any) -> None:
    assert registry.discover(fleet.filter(kind=t.Kind.GATEWAY), limit=1).exclusions == ()
