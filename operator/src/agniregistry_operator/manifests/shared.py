"""Objects that a registry has once: Services, settings, roots, budget, policy, account."""

from __future__ import annotations

from typing import Any

import yaml

from agniregistry_operator import names
from agniregistry_operator.manifests.base import Manifest, child, selector
from agniregistry_operator.model.desired import Desired, TlsMode


def shared_objects(desired: Desired) -> list[Manifest]:
    """All of them, except the roots."""
    found = [
        service_account(desired),
        config_map(desired),
        headless_service(desired),
        client_service(desired),
    ]
    if desired.nodes > 1:
        found.append(disruption_budget(desired))
    if desired.part("networkPolicy").get("enabled", True):
        found.append(network_policy(desired))
    return found


def settings(desired: Desired) -> dict[str, Any]:
    """node.yaml: what the operator decides, over what people gave."""
    found: dict[str, Any] = dict(desired.config)
    found.setdefault("drain_timeout_ms", 20_000)
    found |= {
        "data_dir": f"{names.VOLUME_DIR}/data",
        "listen": f"0.0.0.0:{names.PORT_CLIENTS}",
        "peer_listen": f"0.0.0.0:{names.PORT_PEERS}",
        "health_listen": f"0.0.0.0:{names.PORT_HEALTH}",
        "tls_dir": names.TLS_DIR,
        "tls_trust_domain": desired.trust_domain,
        "region": desired.region,
        "cluster_id": desired.cluster_id,
        "partitions": desired.partitions,
        "replication": desired.replication,
    }
    return found


def config_map(desired: Desired) -> Manifest:
    """The nodes' settings."""
    text = yaml.safe_dump(settings(desired), sort_keys=True)
    return child(desired, "ConfigMap", names.config(desired.name), {"data": {"node.yaml": text}})


def trust_config_map(desired: Desired, roots: dict[int, str], union: str) -> Manifest:
    """The roots that nodes trust, and each of them by its generation."""
    data = {"ca.crt": union} | {f"root-{number}.crt": pem for number, pem in roots.items()}
    return child(desired, "ConfigMap", names.trust(desired.name), {"data": data})


def service_account(desired: Desired) -> Manifest:
    """An account of their own, which may do nothing."""
    content = {"automountServiceAccountToken": False}
    return child(desired, "ServiceAccount", names.headless(desired.name), content)


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}


def headless_service(desired: Desired) -> Manifest:
    """A name for each pod, ready or not: nodes must find each other before they are ready."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(desired),
        "ports": [
            _port("clients", names.PORT_CLIENTS),
            _port("peers", names.PORT_PEERS),
            _port("health", names.PORT_HEALTH),
        ],
    }
    return child(desired, "Service", names.headless(desired.name), {"spec": spec})


def client_service(desired: Desired) -> Manifest:
    """One address for clients: whichever node is ready."""
    spec = {
        "type": desired.service_type,
        "selector": selector(desired),
        "ports": [_port("clients", names.PORT_CLIENTS)],
    }
    meta = {"annotations": dict(desired.part("service").get("annotations") or {})}
    return child(desired, "Service", desired.name, {"metadata": meta, "spec": spec})


def disruption_budget(desired: Desired) -> Manifest:
    """No more than one node may be evicted at a time."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(desired)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(desired, "PodDisruptionBudget", desired.name, {"spec": spec})


def network_policy(desired: Desired) -> Manifest:
    """Peers reach each other, clients their port; the kubelet and Prometheus the health port."""
    clients: dict[str, Any] = {"ports": [{"port": names.PORT_CLIENTS, "protocol": "TCP"}]}
    given = list(desired.part("networkPolicy").get("clients") or ())
    if given:
        pods = [{"podSelector": {"matchLabels": selector(desired)}}]
        operators = {"app.kubernetes.io/name": "agniregistry-operator"}
        everywhere: dict[str, Any] = {"namespaceSelector": {}}
        pods.append(everywhere | {"podSelector": {"matchLabels": operators}})
        clients["from"] = given + pods
    peers = {
        "ports": [{"port": names.PORT_PEERS, "protocol": "TCP"}],
        "from": [{"podSelector": {"matchLabels": selector(desired)}}],
    }
    health = {"ports": [{"port": names.PORT_HEALTH, "protocol": "TCP"}]}
    spec = {
        "podSelector": {"matchLabels": selector(desired)},
        "policyTypes": ["Ingress"],
        "ingress": [peers, clients, health],
    }
    return child(desired, "NetworkPolicy", desired.name, {"spec": spec})


def uses_trust_map(desired: Desired) -> bool:
    """Whether roots come in a ConfigMap; with Secrets of one's own they are in these."""
    return desired.tls.mode is not TlsMode.SECRETS
