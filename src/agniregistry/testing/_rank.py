"""The fake's discovery: filter, rank, and say why somebody is missing. Nothing is drawn by lot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agniregistry import types as t
from agniregistry.client._cache_core import covers, labels_match, matches
from agniregistry.testing import _validate as validate

REGION_WEIGHT = 0.5
FREE_WEIGHT = 0.4
FRESHNESS_WEIGHT = 0.1
DISCOVERED = (t.Status.ALIVE, t.Status.SUSPECT)
"""Who is discovered where the filter doesn't say: suspects stand last."""
FRESHNESS_HALF_MS = 30_000
"""The age at which a load report is worth half, in milliseconds."""


def passes(instance: t.Instance, wanted: t.Filter) -> bool:
    """Whether a record with its load and status matches."""
    plain = replace(wanted, min_free=None, statuses=())
    return (
        matches(instance.record, plain)
        and (not wanted.statuses or instance.status in wanted.statuses)
        and covers(free_of(instance), wanted.min_free)
    )


def free_of(instance: t.Instance) -> t.Capacity | None:
    """What is free: as reported, else all."""
    return instance.load.free if instance.load else instance.spec.capacity


def score(instance: t.Instance, region: str) -> t.Score:
    """The parts of a record's rank, each 0..1."""
    total, free = instance.spec.capacity or t.Capacity(), free_of(instance) or t.Capacity()
    shares = [
        min(1.0, getattr(free, name) / getattr(total, name))
        for name in validate.CAPACITY_FIELDS
        if getattr(total, name) > 0
    ]
    region_match = 1.0 if region in ("", instance.spec.region) else 0.0
    free_share = min(shares, default=1.0)
    freshness = 0.5
    if instance.load is not None:
        freshness = FRESHNESS_HALF_MS / (FRESHNESS_HALF_MS + instance.load.age_ms)
    if instance.status is t.Status.SUSPECT:
        # Whether it is still there is what nobody knows.
        return t.Score(0.0, region_match, free_share, 0.0)
    return t.Score(
        total=REGION_WEIGHT * region_match
        + FREE_WEIGHT * free_share
        + FRESHNESS_WEIGHT * freshness,
        region_match=region_match,
        free_capacity=free_share,
        freshness=freshness,
    )


def place(candidate: t.Candidate) -> tuple[bool, float, float, str]:
    """Sorts candidates: the best first, suspects behind whoever is alive, wherever that is."""
    score, instance = candidate.score, candidate.instance
    is_suspect = instance.status is t.Status.SUSPECT
    return is_suspect, -score.total, -score.region_match, instance.key.name


def why_missing(instance: t.Instance, wanted: t.Filter) -> tuple[t.ExclusionReason, str]:
    """The first reason, from the most telling to the least."""
    spec, reason = instance.spec, t.ExclusionReason
    if instance.status not in (wanted.statuses or DISCOVERED):
        if instance.status is t.Status.DRAINING:
            return reason.DRAINING, "it is draining"
        if instance.status is t.Status.SUSPECT:
            return reason.SUSPECT, "much of its region, or behind its gateway, went silent at once"
        return reason.FILTER, f"its status is {instance.status.value}"
    if wanted.regions and spec.region not in wanted.regions:
        return reason.REGION, f"its region is {spec.region}"
    if not labels_match(spec, wanted):
        return reason.LABELS, f"its labels are {dict(spec.labels)}"
    if not covers(spec.capacity, wanted.min_capacity):
        return reason.CAPACITY, f"it has {spec.capacity}"
    if not covers(free_of(instance), wanted.min_free):
        return reason.FREE_CAPACITY, f"it has {free_of(instance)} free"
    if not passes(instance, replace(wanted, statuses=())):
        return reason.FILTER, "its name or gateway does not match"
    return reason.OUTRANKED, "others ranked higher"


def exclusions(
    everyone: Sequence[t.Instance],
    best: Sequence[t.Candidate],
    wanted: t.Filter,
    names: Sequence[str],
) -> tuple[t.Exclusion, ...]:
    """Why the named records, or a sample of those left out, were not answered."""
    chosen = {candidate.instance.key for candidate in best}
    pool = {
        i.key: i
        for i in everyone
        if i.key.kind is wanted.kind and wanted.namespace in ("*", i.key.namespace)
    }
    kind = wanted.kind or t.Kind.GATEWAY
    namespace = "default" if wanted.namespace == "*" else wanted.namespace
    keys = [t.Key(kind, name, namespace) for name in names]
    if not keys:
        keys = [key for key in pool if key not in chosen][: validate.EXPLAIN_SAMPLE]
    missing = (t.ExclusionReason.NOT_REGISTERED, "there is no such record")
    return tuple(
        t.Exclusion(key, *(why_missing(pool[key], wanted) if key in pool else missing))
        for key in keys
        if key not in chosen
    )
