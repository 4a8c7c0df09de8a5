"""Objects that the platform's own tests apply."""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]


def applied(*objects: Object) -> str:
    """Objects as kubectl reads them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 80}]},
    }


def budget(name: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}},
    }


def stateful_set(
    name: str, replicas: int, *, image: str = "e2e.local/app:1", storage_class: str = "local"
) -> Object:
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": name}},
    }
    container = {
        "name": "app",
        "image": image,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    pod = {
        "terminationGracePeriodSeconds": 5,
        "topologySpreadConstraints": [spread],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "replicas": replicas,
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            "volumeClaimTemplates": [claim],
        },
    }


def widget_definition() -> Object:
    """A custom resource with a rule, a default, and a field that can't be changed."""
    rules = [
        {"rule": "self.replicas % 2 == 1", "message": "replicas must be odd"},
        {"rule": "self.storage == oldSelf.storage", "message": "storage can't be changed"},
    ]
    spec = {
        "type": "object",
        "required": ["replicas"],
        "x-kubernetes-validations": rules,
        "properties": {
            "replicas": {"type": "integer", "minimum": 1},
            "storage": {"type": "string", "default": "1Gi"},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
            }
        },
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.e2e.agnistack.online"},
        "spec": {
            "group": "e2e.agnistack.online",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [version],
        },
    }


def widget(replicas: int, storage: str = "1Gi") -> Object:
    return {
        "apiVersion": "e2e.agnistack.online/v1",
        "kind": "Widget",
        "metadata": {"name": "widget"},
        "spec": {"replicas": replicas, "storage": storage},
    }


def certificates() -> list[Object]:
    """A root of its own, an issuer by it, and one leaf with a SPIFFE id."""
    api = "cert-manager.io/v1"
    key = {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
    root = {
        "isCA": True,
        "commonName": "root",
        "secretName": "root",
        "duration": "24h",
        "privateKey": key,
        "issuerRef": {"name": "self", "kind": "Issuer"},
    }
    leaf = {
        "secretName": "leaf",
        "duration": "1h",
        "usages": ["digital signature", "server auth", "client auth"],
        "uris": ["spiffe://e2e/registry/node/web-1"],
        "privateKey": key,
        "issuerRef": {"name": "root", "kind": "Issuer"},
    }
    return [
        {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, name, spec in (
            ("Issuer", "self", {"selfSigned": {}}),
            ("Certificate", "root", root),
            ("Issuer", "root", {"ca": {"secretName": "root"}}),
            ("Certificate", "leaf", leaf),
        )
    ]


def node_services(name: str) -> list[Object]:
    """Two Services over the same pods: one for their names, one with an address."""
    ports = [{"name": "client", "port": 7400}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service_name},
            "spec": {"selector": {"app": name}, "ports": ports, **more},
        }
        for service_name, more in (
            (name, {"clusterIP": "None", "publishNotReadyAddresses": True}),
            (f"{name}-client", {}),
        )
    ]


def node_registry(name: str, replicas: int, image: str) -> Object:
    """Nodes of AgniRegistry, each a registry of its own, as the restricted policy wants them."""
    workload = stateful_set(name, replicas, image=image)
    probe = {"httpGet": {"path": "/readyz", "port": 7400}, "periodSeconds": 1}
    pod = workload["spec"]["template"]["spec"]
    pod["automountServiceAccountToken"] = False
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["containers"][0] |= {
        "args": ["run"],
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "AGNI_INSECURE", "value": "true"},
            {"name": "AGNI_LISTEN", "value": "0.0.0.0:7400"},
            {"name": "AGNI_DATA_DIR", "value": "/var/lib/agniregistry/data"},
        ],
        "readinessProbe": probe,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/agniregistry"}],
    }
    return workload
