"""What may be done at any time, because it stops no pod: applying objects as they should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agniregistry_operator import names
from agniregistry_operator.manifests.base import Manifest, applied_hash
from agniregistry_operator.manifests.node import kept_claim, stateful_set, with_life
from agniregistry_operator.manifests.ownership import owns_all
from agniregistry_operator.manifests.shared import shared_objects
from agniregistry_operator.model.actions import (
    Action,
    ApplyChild,
    DeleteChild,
    DeleteStatefulSet,
    KeepClaim,
)
from agniregistry_operator.model.quantities import bytes_of
from agniregistry_operator.planning.trust import TrustPlan
from agniregistry_operator.planning.view import View

PRUNED = ("Certificate", "Issuer", "PodDisruptionBudget", "NetworkPolicy")
"""Kinds of which the operator deletes what it no longer wants."""


def upkeep(view: View, trust: TrustPlan) -> list[Action]:
    """Everything that isn't as it should be, in the order in which it is needed."""
    manifests = [*shared_objects(view.desired), *trust.manifests]
    actions: list[Action] = [
        made for manifest in manifests if (made := apply_if_stale(view, manifest))
    ]
    actions += _unwanted(view, trust, manifests)
    actions += trust.requests
    actions += _stateful_sets(view)
    actions += _claims(view)
    return actions


def apply_if_stale(view: View, manifest: Manifest) -> ApplyChild | None:
    """Applies an object that is missing, older than what is wanted, or changed by somebody."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    seen = view.observed.children.get((kind, name))
    if seen is None:
        return ApplyChild(kind, name, manifest, "it is missing", is_new=True)
    if not seen.mine:
        return None
    if seen.hash != applied_hash(manifest):
        return ApplyChild(kind, name, manifest, "it is to be different")
    if seen.fields is None or owns_all(seen.fields, manifest):
        return None
    return ApplyChild(kind, name, manifest, "somebody has changed it")


def taken_names(view: View, trust: TrustPlan) -> list[str]:
    """Objects of others that have the names of the registry's."""
    wanted = [*shared_objects(view.desired), *trust.manifests]
    keys = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted]
    keys += [("StatefulSet", view.label(index)) for index in view.places]
    seen = view.observed.children
    return [f"{kind} {name}" for kind, name in keys if (kind, name) in seen and
            not seen[kind, name].mine]  # fmt: skip


def _unwanted(view: View, trust: TrustPlan, manifests: list[Manifest]) -> Iterator[Action]:
    wanted = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for key, child in view.observed.children.items():
        is_pruned = child.kind in PRUNED and child.mine and key not in wanted
        if not is_pruned or child.name in trust.keep or trust.blocked:
            continue
        index = view.desired.index_of(child.name)
        if child.kind == "Certificate" and index is not None and view.registry is None:
            continue
        yield DeleteChild(child.kind, child.name, "it is no longer wanted")


def _stateful_sets(view: View) -> Iterator[Action]:
    """Those that are there; making missing ones is an operation's business."""
    for index, seen in view.observed.stateful_sets.items():
        has_left = index in view.leaving and view.registry and view.member(index) is None
        if seen.deleting or index not in view.places or has_left:
            continue
        wanted = view.desired.storage_size
        claim = view.observed.claims.get(index)
        has_grown = claim is None or bytes_of(claim.size) >= bytes_of(wanted)
        grows = bytes_of(seen.claim_size) != bytes_of(wanted) and has_grown
        if grows and index in view.wanted and not view.desired.hibernate:
            why = f"it is made again around its pod, for volumes of {wanted}"
            yield DeleteStatefulSet(index, view.label(index), why, orphan=True)
            continue
        # What a StatefulSet says of volumes can't be changed: the old words stay until then.
        as_it_is = replace(view.desired, storage_size=seen.claim_size or wanted)
        made = apply_if_stale(view, stateful_set(as_it_is, view.places[index]))
        if made:
            yield made


def missing_stateful_sets(view: View, indexes: tuple[int, ...]) -> list[Action]:
    """Makes those that aren't there."""
    return [
        ApplyChild(
            "StatefulSet",
            view.label(index),
            stateful_set(view.desired, view.places[index]),
            f"{view.label(index)} is to be there",
            is_new=True,
        )
        for index in indexes
        if index not in view.observed.stateful_sets
        and ("StatefulSet", view.label(index)) not in view.observed.children
    ]


def _claims(view: View) -> Iterator[Action]:
    wanted = view.desired.storage_size
    for index, claim in view.observed.claims.items():
        if index not in view.places or claim.deleting or not claim.size:
            continue
        grows = bytes_of(claim.size) < bytes_of(wanted)
        is_owned = view.desired.delete_with_registry
        place = view.places[index]
        noted = with_life(claim.clusters, view.desired.cluster_id, place.life)
        is_noted = (claim.zone, claim.clusters, claim.owned) == (place.zone, noted, is_owned)
        if not grows and is_noted:
            continue
        size = wanted if grows else claim.size
        why = f"from {claim.size} to {size}" if grows else "what it is for is noted on it"
        name = names.claim(view.desired.name, index)
        yield KeepClaim(index, name, kept_claim(view.desired, place, size, claim.clusters), why)
