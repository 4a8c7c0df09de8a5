"""What is wrong and only a person can mend: said in time, in the same words, and no earlier."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kubernetes_model import BAD_IMAGE, ClusterModel
from test_plan import settled, wanted

from agniregistry_operator.model.actions import RequestIdentity, key_of
from agniregistry_operator.model.desired import Desired, Tls, TlsMode
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.model.status import Condition, Status
from agniregistry_operator.planning.planner import Plan, plan
from agniregistry_operator.planning.repair import FAULT_DEADLINE_S

OWN = Tls(mode=TlsMode.SECRETS, node_prefix="mine", operator_secret="op")
USERS = Tls(mode=TlsMode.ISSUER, issuer={"kind": "Issuer", "name": "shop"}, trust_config_map="r")
NOT_FOUND = 'Referenced "Issuer" not found: issuer.cert-manager.io "shop" not found'
CASES = {
    "CertManagerMissing": (wanted(), Observed(has_cert_manager=False)),
    "IdentityMissing": (wanted(tls=OWN), Observed(has_cert_manager=False)),
    "TrustMissing": (wanted(tls=USERS), Observed()),
    "IssuerMissing": (wanted(tls=USERS), Observed(user_trust="pem", identity_fault=NOT_FOUND)),
    "IssuerPending": (wanted(tls=USERS), Observed(user_trust="pem")),
    "RootPending": (wanted(), Observed()),
}


def seen_again(seen: Observed, desired: Desired, seconds: float) -> tuple[Plan, Plan]:
    """What is planned at once, and some time later."""
    first = plan(seen, desired, 1000.0)
    return first, plan(replace(seen, status=first.status), desired, 1000.0 + seconds)


def condition(made: Plan, kind: str) -> Condition:
    found = made.status.condition(kind)
    assert found is not None
    return found


@pytest.mark.parametrize("reason", CASES)
def test_what_identity_lacks(reason: str) -> None:
    """It is told at once, and called a standstill only when it isn't there soon."""
    desired, seen = CASES[reason]
    first, later = seen_again(seen, desired, 25.0)
    for made in (first, later):
        assert condition(made, "CertificatesReady").reason == reason
        assert not any("StatefulSet" in key_of(action) for action in made.actions)
    assert condition(first, "Stalled").holds is False
    assert condition(first, "Reconciling").holds is True
    assert condition(later, "Stalled").reason == reason
    assert condition(later, "Reconciling").holds is False


def test_own_secrets_need_no_cert_manager() -> None:
    seen = Observed(has_cert_manager=False, identities=frozenset({0}))
    made = plan(seen, wanted(tls=OWN), 0.0)
    assert any("StatefulSet" in key_of(action) for action in made.actions)


def stalled_since(cluster: ClusterModel, seconds: float) -> list[Status]:
    found = []
    begun = cluster.now
    while cluster.now - begun < seconds:
        found.append(cluster.reconcile().status)
        cluster.turn()
    return found


def test_an_image_that_can_not_be_had_is_told_long_before_a_slow_start_would_be() -> None:
    cluster = settled()
    cluster.change(image=BAD_IMAGE, ready_deadline_s=600.0)
    statuses = stalled_since(cluster, 2 * FAULT_DEADLINE_S)
    said = [s.condition("Stalled").message for s in statuses if s.condition("Stalled").holds]
    assert said, "well before the deadline for nodes that start"
    assert len(set(said)) == 1, "the same words at each look, or each look writes"
    assert len(cluster.pods) == 3
    cluster.change(image="registry:1")
    cluster.check_settled()


def test_a_new_operator_says_nothing_before_it_can_ask() -> None:
    cluster = settled()
    picture = replace(
        cluster.observe(), registry=None, identities=frozenset(), has_identity=False, attended_s=1.0
    )
    made = plan(picture, cluster.desired, cluster.now)
    assert made.keeps_status
    assert made.actions
    assert all(isinstance(action, RequestIdentity) for action in made.actions)
    late = plan(replace(picture, attended_s=60.0), cluster.desired, cluster.now)
    assert not late.keeps_status
    assert condition(late, "QuorumHealthy").reason == "NoIdentity"
    assert condition(late, "QuorumHealthy").holds is None, "nobody knows"


def test_a_paused_registry_is_looked_at_by_a_new_operator_too() -> None:
    cluster = settled()
    cluster.change(paused=True)
    picture = replace(cluster.observe(), identities=frozenset())
    made = plan(picture, cluster.desired, cluster.now)
    assert [type(action) for action in made.actions] == [RequestIdentity]
    assert condition(made, "Ready").holds


def test_a_certificate_of_the_operators_own_is_no_change_of_the_registry() -> None:
    cluster = settled()
    picture = replace(cluster.observe(), identities=frozenset())
    made = plan(picture, cluster.desired, cluster.now)
    assert [type(action) for action in made.actions] == [RequestIdentity]
    assert condition(made, "Ready").holds is True
    assert condition(made, "Reconciling").holds is False


def said(cluster: ClusterModel, seconds: float) -> str:
    """The reason for a standstill after some time; empty where there is none."""
    for _ in range(int(seconds // 10)):
        cluster.reconcile()
        cluster.turn()
    found = cluster.status.condition("Stalled")
    return found.reason if found and found.holds else ""


def test_a_pod_that_is_refused_is_told() -> None:
    cluster = settled()
    cluster.quota = {1}
    cluster.stop_pod(1)
    assert not said(cluster, 20)
    assert said(cluster, 60) == "PodMissing"
    cluster.quota = set()
    cluster.check_settled()


def test_founders_that_nobody_reaches_are_told() -> None:
    cluster = ClusterModel(wanted())
    statuses: list[Status] = []
    for _ in range(20):
        picture = replace(cluster.observe(), registry=None, registry_fault="no route")
        made = plan(picture, cluster.desired, cluster.now)
        for action in made.actions:
            cluster.execute(action)
        cluster.status = made.status
        statuses.append(made.status)
        cluster.turn()
    stalled = statuses[-1].condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "NoAnswer"
    assert "no route" in stalled.message


def test_a_ready_node_that_the_operator_does_not_reach_is_told() -> None:
    cluster = settled()
    status = cluster.status
    for seconds in (0, 20, 60):
        picture = cluster.observe()
        assert picture.registry is not None
        members = tuple(replace(m, reachable=m.name != "web-1") for m in picture.registry.members)
        registry = replace(picture.registry, members=members)
        picture = replace(picture, registry=registry, silences={1: "refused"}, status=status)
        made = plan(picture, cluster.desired, cluster.now + seconds)
        status = made.status
        assert not any("Delete" in key_of(action) for action in made.actions)
        assert condition(made, "Stalled").holds is (seconds == 60)
    assert condition(made, "Stalled").reason == "NoAnswer"
    assert "refused" in condition(made, "Stalled").message


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("the disk is full: free some space", "DiskFull"),
        ("the disk is almost full", "NotWritable"),
        ("the node is stopping", "NotWritable"),
    ],
)
def test_who_takes_no_writes(fault: str, reason: str) -> None:
    cluster = settled()
    picture = cluster.observe()
    assert picture.registry is not None
    members = tuple(replace(m, writable=False, fault=fault) for m in picture.registry.members)
    picture = replace(picture, registry=replace(picture.registry, members=members))
    made = plan(picture, cluster.desired, cluster.now)
    assert condition(made, "QuorumHealthy").reason == reason
    assert fault in condition(made, "QuorumHealthy").message
    assert condition(made, "Ready").holds is (reason != "DiskFull")
    later = plan(replace(picture, status=made.status), cluster.desired, cluster.now + 61)
    assert condition(later, "Stalled").holds is (reason == "DiskFull")


def test_a_quorum_that_is_meant_to_come_is_waited_for() -> None:
    """A single node that restarts slowly, and a registry that wakes: no standstill yet."""
    single = settled(nodes=1, replication=1)
    single.slow = {0}
    single.change(image="registry:2")
    assert not said(single, 100)
    single.check_settled()
    asleep = settled()
    asleep.change(hibernate=True)
    asleep.settle()
    asleep.slow = {0, 1, 2}
    asleep.change(hibernate=False)
    assert not said(asleep, 80)
    asleep.check_settled()


def test_a_lost_quorum_is_a_standstill_after_a_minute() -> None:
    cluster = settled()
    for index in (0, 1):
        cluster.gone[cluster.pods[index].machine] = cluster.now
    assert not said(cluster, 50)
    assert said(cluster, 40) == "NoQuorum"
