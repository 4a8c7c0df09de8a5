"""Certificates that the operator keeps for clients: made, renewed with the root, taken away."""

from __future__ import annotations

from typing import Any

import pytest
from test_conditions import condition
from test_crd import SCHEMA, resource
from test_old_roots import certificate, turn_until
from test_plan import settled, wanted

from agniregistry.identity import SpiffeId
from agniregistry_operator import reading
from agniregistry_operator.manifests import certificates
from agniregistry_operator.manifests.base import owner
from agniregistry_operator.model.actions import key_of
from agniregistry_operator.model.desired import Client, Desired, Tls, TlsMode, desired_of
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.planning.clients import TAKEN_UP_S
from agniregistry_operator.planning.planner import plan

WORKER = Client("worker-1", secret="worker-1-tls")
EDGE = Client("edge", "gateway", "shop", "web-client-edge-tls")


def manifest(client: Client) -> dict[str, Any]:
    desired = wanted()
    return certificates.client_certificate(desired, client, certificates.issuer_of(desired, 2))


def test_the_certificate_names_the_client_and_nothing_else() -> None:
    found = manifest(WORKER)
    spec = found["spec"]
    domain = wanted().trust_domain
    assert spec["uris"] == [str(SpiffeId.agent(domain, "default", "worker-1"))]
    assert manifest(EDGE)["spec"]["uris"] == [str(SpiffeId.gateway(domain, "shop", "edge"))]
    assert not {"dnsNames", "ipAddresses", "commonName", "isCA"} & set(spec)
    assert spec["usages"] == ["digital signature", "client auth"]
    assert found["metadata"]["name"] == "web-client-worker-1"
    assert found["metadata"]["ownerReferences"] == [owner(wanted())]
    assert spec["secretName"] == "worker-1-tls"
    node = certificates.node_certificate(wanted(), 0, certificates.issuer_of(wanted(), 2))["spec"]
    for key in ("issuerRef", "privateKey", "duration", "renewBefore"):
        assert spec[key] == node[key], key


def test_clients_are_read() -> None:
    given = [
        {"name": "worker-1", "secretName": "worker-1-tls"},
        {"name": "edge", "kind": "Gateway", "namespace": "shop"},
    ]
    assert desired_of(resource(tls={"clients": given}), "image").tls.clients == (WORKER, EDGE)
    trust = {"issuerRef": {"name": "i"}, "trustConfigMap": {"name": "r"}}
    found = desired_of(resource(tls={"clients": given, **trust}), "image").tls
    assert (found.mode, found.clients) == (TlsMode.ISSUER, (WORKER, EDGE))
    assert desired_of(resource(), "image").tls.clients == ()


@pytest.mark.parametrize(
    ("secret", "of_the_registry"),
    [
        *(("web-0-tls", True), ("web-12-tls", True), ("web-ca-1", True)),
        *(("web-client-edge-tls", False), ("web-tls", False), ("other-ca-1", False)),
        *(("web-01-tls", False), ("web-ca-x", False), ("web-0", False)),
    ],
)
def test_no_secret_of_the_registrys_own_is_overwritten(secret: str, of_the_registry: bool) -> None:
    given = resource(tls={"clients": [{"name": "worker-1", "secretName": secret}]})
    if not of_the_registry:
        assert desired_of(given, "image").tls.clients[0].secret == secret
        return
    with pytest.raises(ValueError, match=f"{secret} of client worker-1"):
        desired_of(given, "image")


def test_a_secret_is_one_clients() -> None:
    """Also where only one of them names it: the API server sees no default of the operator's."""
    given = [{"name": "a"}, {"name": "b", "secretName": "web-client-a-tls"}]
    with pytest.raises(ValueError, match="another certificate's"):
        desired_of(resource(tls={"clients": given}), "image")


def test_the_list_is_bounded_and_told_apart_by_name() -> None:
    tls = SCHEMA["properties"]["spec"]["properties"]["tls"]
    clients = tls["properties"]["clients"]
    assert clients["x-kubernetes-list-type"] == "map"
    assert clients["x-kubernetes-list-map-keys"] == clients["items"]["required"] == ["name"]
    # The API server counts what rules may cost at most: each text and list needs a bound.
    assert clients["maxItems"] <= 64
    assert "default" not in clients
    for name, field in clients["items"]["properties"].items():
        assert "maxLength" in field or "enum" in field, name
    refusals = [rule["message"] for rule in tls["x-kubernetes-validations"]]
    assert any("clients needs cert-manager" in words for words in refusals)


def of_clients(cluster: Any) -> set[str]:
    return {name for kind, name in cluster.objects if "client" in name and kind == "Certificate"}


def test_certificates_come_and_go_with_the_list() -> None:
    cluster = settled()
    pods = {index: pod.uid for index, pod in cluster.pods.items()}
    cluster.change(tls=Tls(clients=(WORKER, EDGE)))
    cluster.check_settled()
    assert of_clients(cluster) == {"web-client-worker-1", "web-client-edge"}
    cluster.change(tls=Tls(clients=(EDGE,)))
    cluster.check_settled()
    assert of_clients(cluster) == {"web-client-edge"}
    assert {index: pod.uid for index, pod in cluster.pods.items()} == pods, "nobody restarts"


def test_an_issuer_of_the_users_issues_to_clients() -> None:
    issuer = {"kind": "ClusterIssuer", "name": "shop", "group": "cert-manager.io"}
    tls = Tls(mode=TlsMode.ISSUER, issuer=issuer, trust_config_map="r", clients=(WORKER,))
    made = plan(Observed(user_trust="pem"), wanted(tls=tls), 0.0)
    found = {key_of(action): action for action in made.actions}
    applied = found["ApplyChild Certificate/web-client-worker-1"]
    assert applied.manifest["spec"]["issuerRef"] == issuer  # type: ignore[union-attr]


def test_own_secrets_leave_clients_alone() -> None:
    tls = Tls(mode=TlsMode.SECRETS, node_prefix="m", operator_secret="op", clients=(WORKER,))
    made = plan(Observed(identities=frozenset({0})), wanted(tls=tls), 0.0)
    assert not any("Certificate" in key_of(action) for action in made.actions)


def test_a_client_without_a_certificate_is_told_and_in_nobodys_way() -> None:
    cluster = settled()
    cluster.refused_clients = {"edge"}
    cluster.change(tls=Tls(clients=(EDGE,)))
    made = cluster.settle()
    said = condition(made, "CertificatesReady")
    assert (said.holds, said.reason) == (False, "ClientIssuing")
    assert said.message == "the certificate of client edge: no such URI"
    assert condition(made, "Ready").holds is True
    assert condition(made, "Stalled").holds is False
    cluster.change(tls=Tls())
    assert condition(cluster.settle(), "CertificatesReady").holds is True


def test_a_new_root_is_waited_for_until_its_clients_use_it() -> None:
    cluster = settled(tls=Tls(clients=(WORKER,)))
    cluster.change(tls=Tls(generation=2, clients=(WORKER,)))
    turn_until(cluster, "Distribute")
    assert cluster.own_clients["worker-1"].issuer == "web-ca-1", "not before nodes trust root 2"
    turn_until(cluster, "Reissue")
    assert cluster.own_clients["worker-1"].issuer == "web-ca-2", "all clients at once"
    began = cluster.now
    made = turn_until(cluster, "Withdraw")
    assert cluster.now - began >= TAKEN_UP_S, "the kubelet takes its time"
    assert not condition(made, "Stalled").holds, "nobody has to do anything"
    turn_until(cluster, "Settled")
    cluster.check_settled()


def test_the_old_root_stays_while_a_client_has_no_new_certificate() -> None:
    cluster = settled(tls=Tls(clients=(WORKER,)))
    cluster.refused_clients = {"worker-1"}
    cluster.change(tls=Tls(generation=2, clients=(WORKER,)))
    made = turn_until(cluster, "Reissue")
    assert not condition(made, "Stalled").holds, "cert-manager has time"
    for _ in range(100):
        cluster.turn()
        made = cluster.reconcile()
    assert made.status.trust.bundle == (1, 2)
    assert "web-client-worker-1" in made.sentence
    cluster.now += wanted().ready_deadline_s
    made = cluster.reconcile()
    stalled = condition(made, "Stalled")
    assert (stalled.holds, stalled.reason) == (True, "RotationWaits")
    assert stalled.message == made.sentence
    assert condition(made, "CertificatesReady").reason == "ClientIssuing"
    cluster.change(tls=Tls(generation=2))
    assert not condition(turn_until(cluster, "Settled"), "Stalled").holds


def test_certificates_of_clients_are_read() -> None:
    desired: Desired = wanted(tls=Tls(clients=(WORKER, EDGE)))
    ready = {"type": "Ready", "status": "True", "observedGeneration": 2}
    fails = {"type": "Issuing", "status": "False", "message": "no such URI"}
    items = [
        certificate("web-client-worker-1", owner=desired.uid, conditions=[ready]),
        certificate("web-client-edge", owner=desired.uid, conditions=[fails]),
        certificate("web-client-gone", owner=desired.uid, conditions=[ready]),
        certificate("web-1", owner=desired.uid, conditions=[ready]),
    ]
    found = reading.own_clients(items, desired)
    said = {name: (each.issued_at, each.message) for name, each in found.items()}
    assert said == {"worker-1": (60.0, ""), "edge": (None, "no such URI")}
    assert reading.own_clients([certificate("web-client-edge", owner="else")], desired) == {}
