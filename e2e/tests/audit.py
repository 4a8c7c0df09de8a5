"""What the API server itself noted of somebody's requests."""

from __future__ import annotations

import json

from agni_e2e import Cluster

READS = ("get", "list", "watch")


def requests_of(cluster: Cluster, user: str, *, writes: bool) -> list[str]:
    """The requests of a user so far, but for those for the lease: verb, resource, name, code."""
    found = []
    for line in cluster.audit_log.read_text().splitlines():
        entry = json.loads(line)
        is_done = entry["stage"] == "ResponseComplete"
        if not is_done or entry["user"].get("username") != user:
            continue
        what = entry.get("objectRef") or {}
        if what.get("resource") == "leases" or (writes and entry["verb"] in READS):
            continue
        code = entry.get("responseStatus", {}).get("code")
        found.append(f"{entry['verb']} {what.get('resource')} {what.get('name')} {code}")
    return found
