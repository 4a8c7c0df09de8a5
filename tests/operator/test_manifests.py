"""Manifests: restricted pods, keys that no other node reads, names that certificates must have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from test_plan import wanted

from agniregistry_node.config import NodeConfig, faults_of
from agniregistry_operator import names
from agniregistry_operator.manifests import certificates, node, shared
from agniregistry_operator.manifests.base import applied_hash
from agniregistry_operator.manifests.node import Place
from agniregistry_operator.manifests.ownership import own_fields, owns_all
from agniregistry_operator.model.desired import Tls, TlsMode

PLACE = Place(1, "z1", ("web-0-0.web-nodes.shop.svc:7401",))


def pod(**changes: object) -> dict[str, Any]:
    return node.stateful_set(wanted(**changes), PLACE)["spec"]["template"]["spec"]


def test_pods_are_restricted() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    context = spec["containers"][0]["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_has_its_own_key_and_nobody_elses() -> None:
    secrets = [
        source["secret"]["name"]
        for volume in pod()["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "secret" in source
    ]
    assert secrets == ["web-1-tls"]
    own = Tls(mode=TlsMode.SECRETS, node_prefix="mine", operator_secret="op")
    volumes = yaml.safe_dump(pod(tls=own)["volumes"])
    assert "mine-1" in volumes
    assert "web-trust" not in volumes


def test_probes_never_ask_for_a_quorum() -> None:
    container = pod()["containers"][0]
    for name in ("startupProbe", "livenessProbe"):
        assert container[name]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    drain_ms = shared.settings(wanted())["drain_timeout_ms"]
    assert pod()["terminationGracePeriodSeconds"] * 1000 > 2 * drain_ms


def test_a_node_may_stop_for_longer_than_it_drains() -> None:
    assert pod()["terminationGracePeriodSeconds"] == 60
    slow = wanted(config={"drain_timeout_ms": 300_000})
    assert (
        node.stateful_set(slow, PLACE)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        > 302
    )


def test_the_settings_are_a_nodes() -> None:
    """All but the port for probes, which nodes of this version may not know yet."""
    found = shared.settings(wanted(config={"queue_limit": 7}))
    known = {spec.name for spec in NodeConfig.__dataclass_fields__.values()}
    assert faults_of({key: found[key] for key in found if key in known}) == []
    assert found["queue_limit"] == 7
    assert set(found) - known <= {"health_listen"}
    environment = {entry["name"] for entry in pod()["containers"][0]["env"]}
    settings = {f"AGNI_{name.upper()}" for name in known} | {"AGNI_CONFIG"}
    assert environment <= settings


def test_seeds_restart_nobody() -> None:
    other = replace(PLACE, seeds=("web-2-0.web-nodes.shop.svc:7401",))
    assert node.template_hash(wanted(), PLACE) == node.template_hash(wanted(), other)
    assert node.template_hash(wanted(), PLACE) != node.template_hash(wanted(image="x"), PLACE)
    limited = wanted(config={"queue_limit": 1})
    assert node.template_hash(wanted(), PLACE) != node.template_hash(limited, PLACE)
    grown = wanted(storage_size="5Gi", nodes=9, hibernate=True)
    assert node.template_hash(wanted(), PLACE) == node.template_hash(grown, PLACE)


def test_a_zone_is_required_beside_what_people_require() -> None:
    given = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                    {"matchExpressions": [{"key": "fast", "operator": "Exists"}]},
                ]
            }
        }
    }
    found = node.affinity(wanted(spec={"scheduling": {"affinity": given}}), "z1")
    required = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for term in required["nodeSelectorTerms"]:
        keys = [expression["key"] for expression in term["matchExpressions"]]
        assert keys[-1] == "topology.kubernetes.io/zone"
        assert len(keys) == 2


def test_certificates_name_the_node() -> None:
    issuer = certificates.issuer_of(wanted(), 1)
    spec = certificates.node_certificate(wanted(), 1, issuer)["spec"]
    assert spec["uris"] == ["spiffe://web.shop.registry.internal/registry/node/web-1"]
    assert "client auth" in spec["usages"]
    assert spec["privateKey"]["rotationPolicy"] == "Always"
    host = names.peer_address("web", "shop", 1).partition(":")[0]
    assert {host, "web.shop.svc"} <= set(spec["dnsNames"])


def test_objects_go_with_the_registry_and_volumes_as_asked() -> None:
    for manifest in [*shared.shared_objects(wanted()), node.stateful_set(wanted(), PLACE)]:
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == wanted().uid
        assert len(applied_hash(manifest)) == 16
    kept = node.kept_claim(wanted(), PLACE, "1Gi")
    assert "ownerReferences" not in kept["metadata"]
    gone = node.kept_claim(wanted(delete_with_registry=True), PLACE, "1Gi")
    assert gone["metadata"]["ownerReferences"][0]["uid"] == wanted().uid


def test_one_node_has_no_budget() -> None:
    kinds = [made["kind"] for made in shared.shared_objects(wanted(nodes=1, replication=1))]
    assert "PodDisruptionBudget" not in kinds
    kinds = [made["kind"] for made in shared.shared_objects(wanted())]
    assert "PodDisruptionBudget" in kinds


def test_the_policy_lets_peers_and_clients_in() -> None:
    rules = shared.network_policy(wanted())["spec"]["ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
    assert by_port[names.PORT_PEERS] == [
        {"podSelector": {"matchLabels": {names.LABEL_REGISTRY: "web"}}}
    ]
    assert by_port[names.PORT_CLIENTS] is None
    some = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
    spec = {"networkPolicy": {"clients": some}}
    rules = shared.network_policy(wanted(spec=spec))["spec"]["ingress"]
    client = next(rule for rule in rules if rule["ports"][0]["port"] == names.PORT_CLIENTS)
    assert client["from"][0] == some[0]
    assert len(client["from"]) == 3, "nodes and the operator are clients, too"


def fields_of(value: Any) -> Any:
    """`fieldsV1` as the API server would record it."""
    if isinstance(value, dict):
        return {f"f:{key}": fields_of(part) for key, part in value.items() if part not in ({}, [])}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return {f'k:{{"name":"{item["name"]}"}}': {".": {}} | fields_of(item) for item in value}
    return {}


def test_drift_is_told_from_who_owns_a_field() -> None:
    manifest = shared.client_service(wanted())
    fields = fields_of({k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")})
    entry = {"manager": names.MANAGER, "operation": "Apply", "fieldsV1": fields}
    found = own_fields([{"manager": "kubectl", "operation": "Update"}, entry])
    assert owns_all(found, manifest)
    del fields["f:spec"]["f:selector"]
    assert not owns_all(fields, manifest)
    fields = fields_of({k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")})
    del fields["f:spec"]["f:ports"]['k:{"name":"clients"}']["f:port"]
    assert not owns_all(fields, manifest)
