"""Volumes that outlive their registry: the next of the name starts empty on them, or goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kubernetes_model import ClusterModel
from test_plan import settled, wanted

from agniregistry_operator.manifests import node
from agniregistry_operator.manifests.node import Place
from agniregistry_operator.model.observed import Claim, Observed
from agniregistry_operator.planning.view import View

OTHER = "89abcdef-0123-4567-89ab-cdef01234567"


def folder(desired: Any, place: Place = Place(1)) -> str:  # noqa: B008 - a value that can't change
    env = node.container(desired, place)["env"]
    return next(str(entry["value"]) for entry in env if entry["name"] == "AGNI_DATA_DIR")


def test_each_cluster_has_a_folder_of_its_own() -> None:
    first, second = wanted(), wanted(uid=OTHER)
    assert folder(first) != folder(second)
    assert folder(first, Place(1, life=3)) == folder(first) + "-3"
    assert folder(replace(second, adopted=first.cluster_id)) == folder(first)


def test_what_a_claim_was_used_for_is_noted_and_kept() -> None:
    first, second = wanted(), wanted(uid=OTHER)
    noted = node.with_life("", first.cluster_id, 3)
    both = node.with_life(noted, second.cluster_id, 0)
    assert node.lives_of(both) == {first.cluster_id: 3, second.cluster_id: 0}
    assert node.with_life(both, first.cluster_id, 3) == both


def test_the_life_of_another_cluster_is_none_of_this_one() -> None:
    cluster = settled()
    key = "agnistack.online/clusters"
    cluster.claims[0].clusters = f"{cluster.claims[0].clusters},{'a' * 32}/7"
    cluster.check_settled()
    manifest = node.kept_claim(cluster.desired, Place(0), "1Gi", cluster.claims[0].clusters)
    assert f"{'a' * 32}/7" in manifest["metadata"]["annotations"][key]


def test_who_adopts_goes_on_in_the_life_that_was_noted() -> None:
    first = wanted()
    claims = {0: Claim(0, "u", "1Gi", zone="z2", life=3, clusters=f"{first.cluster_id}/3")}
    adopts = wanted(uid=OTHER, adopted=first.cluster_id)
    place = View(Observed(claims=claims, zones=("z1", "z2")), adopts, 0.0).places[0]
    assert (place.zone, place.life) == ("z2", 3)


def test_which_cluster_is_adopted_is_kept_in_the_status() -> None:
    cluster = ClusterModel(wanted(adopted="a" * 32))
    cluster.check_settled()
    assert cluster.status.adopted == "a" * 32
