"""A root stays trusted for as long as clients have certificates from it."""

from __future__ import annotations

from typing import Any

from test_plan import settled

from agniregistry_operator import reading
from agniregistry_operator.model.desired import Tls
from agniregistry_operator.model.observed import ClientCertificate
from agniregistry_operator.planning.clients import TAKEN_UP_S


def turn_until(cluster: Any, step: str, turns: int = 200) -> Any:
    made = cluster.reconcile()
    for _ in range(turns):
        if made.status.trust.step == step:
            return made
        cluster.turn()
        made = cluster.reconcile()
    raise AssertionError(made.sentence)


def test_old_root_stays_until_clients_have_certificates_from_the_new_one() -> None:
    cluster = settled()
    cluster.clients = [
        ClientCertificate("gateway", "web-ca-1", 1.0),
        ClientCertificate("of-somebody-else", "other", 1.0),
    ]
    cluster.change(tls=Tls(generation=2))
    turn_until(cluster, "Reissue")
    for _ in range(100):
        cluster.turn()
        made = cluster.reconcile()
    assert made.status.trust.bundle == (1, 2), "the client is still let in"
    assert {issuer for issuer, _ in cluster.certificates.values()} == {"web-ca-2"}
    stalled = made.status.condition("Stalled")
    assert (stalled.holds, stalled.reason) == (True, "ClientsOfOldRoot")
    assert "gateway" in stalled.message
    assert "web-ca-2" in stalled.message
    assert "of-somebody-else" not in stalled.message

    cluster.clients = [ClientCertificate("gateway", "web-ca-2", None)]
    made = cluster.reconcile()
    assert not made.status.condition("Stalled").holds
    assert made.status.trust.bundle == (1, 2), "it is not issued yet"
    cluster.clients = [ClientCertificate("gateway", "web-ca-2", cluster.now)]
    assert cluster.reconcile().status.trust.bundle == (1, 2), "the kubelet takes its time"
    cluster.now += TAKEN_UP_S
    turn_until(cluster, "Settled")
    cluster.check_settled()
    assert cluster.objects["ConfigMap", "web-trust"]["data"]["ca.crt"] == "root 2\n"


def certificate(name: str, owner: str = "", **status: Any) -> dict[str, Any]:
    owners = [{"uid": owner}] if owner else []
    return {
        "metadata": {"name": name, "generation": 2, "ownerReferences": owners},
        "spec": {"issuerRef": {"name": "web-ca-1"}},
        "status": {"notBefore": "1970-01-01T00:01:00Z"} | status,
    }


def test_certificates_of_clients_are_those_of_nobody_here() -> None:
    ready = {"type": "Ready", "status": "True", "observedGeneration": 2}
    issuing = {"type": "Issuing", "status": "True"}
    items = [
        certificate("web-1", owner="mine", conditions=[ready]),
        certificate("good", conditions=[ready]),
        certificate("changed", conditions=[ready | {"observedGeneration": 1}]),
        certificate("on-its-way", conditions=[ready, issuing]),
        certificate("new"),
    ]
    found = {each.name: each.issued_at for each in reading.clients(items, "mine")}
    assert found == {"good": 60.0, "changed": None, "on-its-way": None, "new": None}
