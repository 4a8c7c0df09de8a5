"""What all manifests share: labels, owner, and the hash by which a change is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.model.desired import Desired

Manifest = dict[str, Any]

API_VERSIONS = {
    "ConfigMap": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "Pod": "v1",
    "StatefulSet": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Issuer": "cert-manager.io/v1",
    "Certificate": "cert-manager.io/v1",
    "CertificateRequest": "cert-manager.io/v1",
}
"""Every kind of object that the operator makes or reads, with its version."""


def selector(desired: Desired) -> dict[str, str]:
    """The labels that all of a registry's pods, and nobody else's, have."""
    return {names.LABEL_REGISTRY: desired.name}


def labels(desired: Desired) -> dict[str, str]:
    """The labels of each object."""
    return {
        "app.kubernetes.io/name": "agniregistry",
        "app.kubernetes.io/instance": desired.name,
        "app.kubernetes.io/managed-by": names.MANAGER,
        "app.kubernetes.io/part-of": "agniregistry",
        **selector(desired),
    }


def owner(desired: Desired) -> Manifest:
    """The reference by which an object goes when its registry does."""
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "name": desired.name,
        "uid": desired.uid,
        "controller": True,
    }


def child(desired: Desired, kind: str, name: str, content: Mapping[str, Any]) -> Manifest:
    """An object of a registry, with the hash of all that it says."""
    manifest: Manifest = {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        **{key: value for key, value in content.items() if key != "metadata"},
    }
    extra = content.get("metadata", {})
    manifest["metadata"] = {
        "name": name,
        "namespace": desired.namespace,
        "labels": labels(desired) | extra.get("labels", {}),
        "ownerReferences": [owner(desired)],
    }
    notes = dict(extra.get("annotations", {}))
    notes[names.ANNOTATION_HASH] = hash_of({"object": manifest, "notes": notes})
    manifest["metadata"]["annotations"] = notes
    return manifest


def applied_hash(manifest: Mapping[str, Any]) -> str:
    """The hash that an applied object carries."""
    return str(manifest["metadata"]["annotations"][names.ANNOTATION_HASH])


def hash_of(content: object) -> str:
    """A short hash of anything that JSON can say, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
