"""A node: its StatefulSet of one pod, and its claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.manifests.base import Manifest, child, hash_of, labels, owner, selector
from agniregistry_operator.manifests.shared import settings
from agniregistry_operator.model.desired import Desired, TlsMode

USER_ID = 65532
"""Whom the image runs as."""
GRACE_MIN_S = 60
"""What a node is given to stop in, at least."""
GRACE_MARGIN_S = 20
"""What it is given beyond the time in which it hands over and drains."""
TEMPORARY_DIR = "/tmp"  # noqa: S108 - a volume of the pod's own
ENDPOINT_PAUSE_S = 2
"""Time for endpoints to forget a pod that stops."""


@dataclass(frozen=True)
class Place:
    """What is decided for one node and kept over its life."""

    index: int
    zone: str = ""
    seeds: tuple[str, ...] = ()
    life: int = 0
    """The newest member of this name that left: each life has a folder of its own."""


def stateful_set(desired: Desired, place: Place) -> Manifest:
    """The StatefulSet of one node."""
    template = pod_template(desired, place)
    note = template_hash(desired, place)
    template["metadata"]["annotations"] = {
        **template["metadata"]["annotations"],
        names.ANNOTATION_TEMPLATE: note,
    }
    claim = {
        "metadata": {"name": names.CLAIM, "labels": node_labels(desired, place.index)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": desired.storage_size}},
        },
    }
    if desired.storage_class is not None:
        claim["spec"]["storageClassName"] = desired.storage_class
    spec = {
        "replicas": 0 if desired.hibernate else 1,
        "serviceName": names.headless(desired.name),
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": _own(desired, place.index)},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": template,
        "volumeClaimTemplates": [claim],
    }
    meta = {
        "labels": node_labels(desired, place.index),
        "annotations": {
            names.ANNOTATION_ZONE: place.zone,
            names.ANNOTATION_SEEDS: ",".join(place.seeds),
            names.ANNOTATION_LIFE: str(place.life),
        },
    }
    name = desired.node(place.index)
    return child(desired, "StatefulSet", name, {"metadata": meta, "spec": spec})


def template_hash(desired: Desired, place: Place) -> str:
    """What a pod must have been made from to be up to date.

    Seeds don't count: only an empty node reads them. Neither does the number of replicas, which
    nodes take from their settings at the founding and from then on from the system group.
    """
    template = pod_template(desired, Place(place.index, place.zone, (), place.life))
    counted = {key: value for key, value in settings(desired).items() if key != "replication"}
    return hash_of({"template": template, "settings": counted})


def _own(desired: Desired, index: int) -> dict[str, str]:
    return {**selector(desired), names.LABEL_NODE: desired.node(index)}


def node_labels(desired: Desired, index: int) -> dict[str, str]:
    """The labels of what belongs to one node."""
    return {**_own(desired, index), names.LABEL_INDEX: str(index)}


def pod_template(desired: Desired, place: Place) -> Manifest:
    """The pod: restricted, without a token, with one volume and its identity."""
    extra = desired.part("podTemplate")
    notes = dict(extra.get("annotations") or {})
    if desired.part("monitoring").get("annotations"):
        notes |= {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(names.PORT_HEALTH),
            "prometheus.io/path": "/metrics",
        }
    meta = {
        "labels": {
            **dict(extra.get("labels") or {}),
            **labels(desired),
            **node_labels(desired, place.index),
        },
        "annotations": notes,
    }
    spec: dict[str, Any] = {
        "serviceAccountName": names.headless(desired.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s(desired),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(desired, place)],
        "volumes": volumes(desired, place.index),
        "affinity": affinity(desired, place.zone),
    }
    scheduling = desired.part("scheduling")
    for name in ("tolerations", "nodeSelector", "priorityClassName"):
        if scheduling.get(name):
            spec[name] = scheduling[name]
    if secrets := desired.spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in secrets]
    return {"metadata": meta, "spec": spec}


def grace_s(desired: Desired) -> int:
    """How long a node may take to stop: its drain, and all around it."""
    drain_s = math.ceil(int(settings(desired)["drain_timeout_ms"]) / 1000)
    return max(GRACE_MIN_S, ENDPOINT_PAUSE_S + drain_s + GRACE_MARGIN_S)


def container(desired: Desired, place: Place) -> Manifest:
    """The node's process."""
    registry, namespace = desired.name, desired.namespace
    # Of its own for each cluster: what a volume holds that was kept is neither found nor touched.
    folder = f"{names.VOLUME_DIR}/{desired.cluster_id}/data"
    folder += f"-{place.life}" if place.life else ""
    environment = {
        "AGNI_CONFIG": f"{names.CONFIG_DIR}/node.yaml",
        "AGNI_NAME": desired.node(place.index),
        "AGNI_ZONE": place.zone,
        "AGNI_SEEDS": ",".join(place.seeds),
        "AGNI_DATA_DIR": folder,
        "AGNI_PEER_ADDRESS": names.peer_address(registry, namespace, place.index),
        "AGNI_CLIENT_ADDRESS": names.client_address(registry, namespace, place.index),
    }
    alive = {"path": "/livez", "port": "health"}
    return {
        "name": "node",
        "image": desired.image,
        "imagePullPolicy": desired.spec.get("imagePullPolicy", "IfNotPresent"),
        "args": ["run"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [
            {"name": "clients", "containerPort": names.PORT_CLIENTS, "protocol": "TCP"},
            {"name": "peers", "containerPort": names.PORT_PEERS, "protocol": "TCP"},
            {"name": "health", "containerPort": names.PORT_HEALTH, "protocol": "TCP"},
        ],
        "resources": {key: dict(value) for key, value in desired.part("resources").items()},
        # Replaying a long log takes its time: a quarter of an hour before it counts as dead.
        "startupProbe": {"httpGet": alive, "periodSeconds": 2, "failureThreshold": 450},
        "livenessProbe": {
            "httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "health"},
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": ENDPOINT_PAUSE_S}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": names.CLAIM, "mountPath": names.VOLUME_DIR},
            {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
            {"name": "tls", "mountPath": names.TLS_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": TEMPORARY_DIR},
        ],
    }  # fmt: skip


def volumes(desired: Desired, index: int) -> list[Manifest]:
    """Settings, identity, and a place for temporary files."""
    pair = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
    root = {"key": "ca.crt", "path": "ca.crt"}
    if desired.tls.mode is TlsMode.SECRETS:
        name = names.given_secret(desired.tls.node_prefix, index)
        secret = {"name": name, "items": [*pair, root]}
        sources: list[Manifest] = [{"secret": secret}]
    else:
        own = {"name": names.tls_secret(desired.name, index), "items": pair}
        sources = [
            {"secret": own},
            {"configMap": {"name": names.trust(desired.name), "items": [root]}},
        ]
    return [
        {"name": "config", "configMap": {"name": names.config(desired.name)}},
        {"name": "tls", "projected": {"defaultMode": 0o440, "sources": sources}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]


def affinity(desired: Desired, zone: str) -> Manifest:
    """Machines of their own where there are some, and the node's own zone."""
    given = desired.part("scheduling").get("affinity")
    if given:
        found: Manifest = {key: value for key, value in given.items() if value}
    else:
        near = {
            "labelSelector": {"matchLabels": selector(desired)},
            "topologyKey": "kubernetes.io/hostname",
        }
        apart = [{"weight": 100, "podAffinityTerm": near}]
        found = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": apart}}
    if not zone:
        return found
    wanted = {"key": desired.zone_key, "operator": "In", "values": [zone]}
    machines = dict(found.get("nodeAffinity") or {})
    required = machines.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or [{}]
    machines["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [
            {**term, "matchExpressions": [*(term.get("matchExpressions") or []), wanted]}
            for term in terms
        ]
    }
    return {**found, "nodeAffinity": machines}


def lives_of(noted: str) -> dict[str, int]:
    """Which life of its node a volume was last used in, by cluster, as noted on its claim."""
    pairs = [part.partition("/") for part in noted.split(",") if part]
    return {cluster: int(life) for cluster, _, life in pairs if life.isascii() and life.isdigit()}


def with_life(noted: str, cluster_id: str, life: int) -> str:
    """The note with one cluster's life in it."""
    lives = lives_of(noted) | {cluster_id: life}
    return ",".join(f"{cluster}/{number}" for cluster, number in sorted(lives.items()))


def kept_claim(desired: Desired, place: Place, size: str, noted: str = "") -> Manifest:
    """What the operator says of a claim, beside what its StatefulSet said when it was made.

    Zone and life are noted here, too, because a StatefulSet may be deleted and made again; and
    which clusters have used it (`noted`), because a volume may outlive its registry.
    """
    meta: Manifest = {
        "name": names.claim(desired.name, place.index),
        "namespace": desired.namespace,
        "labels": node_labels(desired, place.index),
        "annotations": {
            names.ANNOTATION_ZONE: place.zone,
            names.ANNOTATION_LIFE: str(place.life),
            names.ANNOTATION_CLUSTERS: with_life(noted, desired.cluster_id, place.life),
        },
    }
    if desired.delete_with_registry:
        meta["ownerReferences"] = [owner(desired) | {"controller": False}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {"resources": {"requests": {"storage": size}}},
    }
