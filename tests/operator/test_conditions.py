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
