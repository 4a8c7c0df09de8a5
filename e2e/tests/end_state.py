"""What a registry has come to, in values that are equal wherever it came to the same end.

Names of namespaces, identities, addresses and times differ from one registry to the next, and so
do the nodes that happened to get a replica more. All else must not.
"""

from __future__ import annotations

import json
from typing import Any

from operator_lab import Lab

OTHERS = ("clusterIP", "clusterIPs", "volumeName", "volumeMode", "healthCheckNodePort")
"""Fields of a spec that the API server or its controllers fill in."""
NAMES_ONLY = ("pods", "certificaterequests")
"""Kinds of which only the names count; their specs are other controllers'."""
OF_CERT_MANAGER = "certificaterequests/web-"
"""Requests for nodes' certificates: they go some time after these."""


def end_of(lab: Lab) -> dict[str, Any]:
    """The registry's objects, its status, and its members."""
    registry, children = lab.registry(), lab.children()
    for name in [n for n in children if n.startswith(OF_CERT_MANAGER)]:
        if not name.endswith("-operator"):
            del children[name]
    uid = registry["metadata"]["uid"]

    def general(value: object) -> Any:
        text = json.dumps(value, sort_keys=True)
        for own, common in ((uid, "UID"), (uid.replace("-", ""), "UID"), (lab.namespace, "SPACE")):
            text = text.replace(own, common)
        return json.loads(text)

    nodes = list(lab.stage.model.nodes.values())
    return {
        **{name: general(_content(name, plain)) for name, plain in children.items()},
        "status": general(_status(registry["status"])),
        "members": sorted((node.name, node.state.value) for node in nodes),
        "joins": lab.stage.model.joins,
        "replicas": sorted(len(p.voters) for p in lab.stage.model.partitions.values()),
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two ends, a line each."""
    missing = "missing"
    return [
        f"{part}: {one.get(part, missing)}, not {other.get(part, missing)}"
        for part in sorted(one.keys() | other.keys())
        if one.get(part, missing) != other.get(part, missing)
    ]


def _content(name: str, plain: dict[str, Any]) -> Any:
    kind = name.partition("/")[0]
    if kind in NAMES_ONLY:
        return None
    if kind == "configmaps":
        # Roots and the hashes of roots are each registry's own.
        return sorted(plain.get("data") or ()) if name.endswith("-trust") else plain.get("data")
    spec = {key: value for key, value in (plain.get("spec") or {}).items() if key not in OTHERS}
    if "template" in spec:
        # What is noted there is hashes.
        spec["template"] = spec["template"] | {"metadata": None}
    return spec


def _status(status: dict[str, Any]) -> dict[str, Any]:
    kept = ("message", "readyNodes", "currentNodes", "version", "operation", "selector")
    nodes = status.get("nodes") or ()
    return {
        **{key: status.get(key) for key in kept},
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "nodes": {node["name"]: (node["state"], node["zone"]) for node in nodes},
        "held": sorted(node["replicas"] for node in nodes),
        "trust": status["trust"],
    }
