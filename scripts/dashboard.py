"""The Grafana dashboard, put together from a list of panels; `make docs` writes it.

A dashboard's JSON is too long to be reviewed. What decides is here: rows, titles, expressions. A
panel's expressions are grouped by instance unless they say else, and keep to one cluster.
"""

from __future__ import annotations

import json
from typing import Any

from grafana_panel import SOURCE, Panel, as_json

WIDTH = 24
HEIGHT = 8
COLUMNS = 3
"""Panels of a line."""

ALL = '{job="$job"}'
SOME = '{job="$job",instance=~"$instance"}'


def counter(name: str, labels: str = "", by: str = "instance") -> str:
    """How fast a counter grows."""
    chosen = SOME.replace("}", f",{labels}}}") if labels else SOME
    return f"sum by ({by}) (rate({name}{chosen}[$__rate_interval]))"


def share(name: str, quantile: float, by: str = "instance", labels: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({quantile}, {counter(name + '_bucket', labels, by + ', le')})"


def p99(name: str) -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of each instance."""
    return (
        (share(name, 0.99), "p99 {{instance}}"),
        (share(name, 0.5), "median {{instance}}"),
    )


def each(name: str) -> tuple[tuple[str, str], ...]:
    """A gauge of each instance."""
    return ((name + SOME, "{{instance}}"),)


def grown(name: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    """A counter of each instance."""
    return ((counter(name, labels), "{{instance}}"),)


OVERVIEW = [
    Panel("Nodes that serve", "none", ((f"sum(agni_ready{ALL})", "nodes"),), kind="stat"),
    Panel(
        "Members that don't answer",
        "none",
        (
            (
                (
                    f"max(sum by (instance) (agni_members{ALL[:-1]},"
                    f'state=~"active|draining"}})) - count(agni_ready{ALL})'
                ),
                "nodes",
            ),
        ),
        kind="stat",
        red_from=1,
    ),
    Panel(
        "Partitions without a leader",
        "none",
        ((f"count(max by (partition) (agni_leader{ALL}) == 0) or vector(0)", "partitions"),),
        kind="stat",
        red_from=1,
    ),
    Panel(
        "Records",
        "short",
        ((f"sum(max by (partition) (agni_records{ALL}))", "records"),),
        kind="stat",
    ),
    Panel(
        "Partitions with fewer replicas than wanted",
        "none",
        (
            (
                (
                    f"count(sum by (partition) (agni_replica{ALL}) < "
                    f"max by (partition) (agni_replicas_wanted{ALL})) or vector(0)"
                ),
                "partitions",
            ),
        ),
        kind="stat",
        red_from=1,
    ),
    Panel(
        "Regions and gateways held by the mass-expiry guard",
        "none",
        # One is spread over many partitions.
        ((f"max(agni_suspect_domains{ALL})", "held"),),
        kind="stat",
        red_from=1,
    ),
    Panel(
        "Calls",
        "reqps",
        ((counter("agni_rpc_total", by="method"), "{{method}}"),),
        "Those that ended, over HTTP and gRPC.",
    ),
    Panel(
        "Calls that failed",
        "reqps",
        ((counter("agni_rpc_total", 'code!="OK"', "code"), "{{code}}"),),
        "NOT_FOUND, ALREADY_EXISTS and the like are answers, too.",
    ),
    Panel("Leaders", "none", ((f"sum by (instance) (agni_leader{SOME})", "{{instance}}"),)),
]

WRITES = [
    Panel(
        "Writes",
        "wps",
        grown("agni_proposals_total"),
        "Commands that a leader proposed; what runs out is among them.",
    ),
    Panel(
        "A write, from its message to its answer",
        "s",
        tuple(
            (
                share("agni_rpc_seconds", 0.99, "method", f'method="{method}"'),
                f"p99 {method}",
            )
            for method in ("Register", "Update", "Deregister", "Batch", "Renew")
        ),
    ),
    Panel("Stage 1: waiting for the driver", "s", p99("agni_queue_seconds")),
    Panel("Stage 2: fdatasync", "s", p99("agni_fsync_seconds"), red_from=0.1),
    Panel("Stage 3: apply", "s", p99("agni_apply_seconds")),
    Panel(
        "Entries of one fdatasync",
        "short",
        (
            (
                f"{counter('agni_batch_entries_sum')} / {counter('agni_batch_entries_count')}",
                "{{instance}}",
            ),
        ),
        "Writes that share one: the more, the better the disk is used.",
    ),
    Panel("Requests that wait", "short", each("agni_queue_depth")),
    Panel("Refused: overload", "reqps", grown("agni_overloaded_total"), red_from=1),
    Panel("Refused: disk full", "reqps", grown("agni_disk_full_total"), red_from=1),
]

LEASES = [
    Panel("Renewals", "reqps", grown("agni_renewals_total")),
    Panel(
        "Renewals of leases that were gone",
        "reqps",
        grown("agni_renewals_lost_total"),
        "Their owners register anew.",
    ),
    Panel("Leases", "short", ((f"sum(max by (partition) (agni_leases{ALL}))", "leases"),)),
    Panel("Run out", "cps", grown("agni_expired_total")),
    Panel("From deadline to removal", "s", p99("agni_expiry_lag_seconds"), red_from=5),
    Panel(
        "Spared",
        "cps",
        grown("agni_expiry_spared_total"),
        "Named for removal, and renewed or changed in time.",
    ),
]

READS = [
    Panel(
        "A read, from its message to its answer",
        "s",
        tuple(
            (
                share("agni_rpc_seconds", 0.99, "method", f'method="{method}"'),
                f"p99 {method}",
            )
            for method in ("Get", "List", "Discover")
        ),
    ),
    Panel(
        "Carried to other nodes",
        "reqps",
        (
            (counter("agni_forwarded_total"), "{{instance}}"),
            (counter("agni_forward_failures_total"), "in vain {{instance}}"),
        ),
        "What was asked of a node that doesn't lead the partition.",
    ),
    Panel("Open watches", "short", each("agni_watches")),
    Panel("Messages to watches", "cps", grown("agni_watch_messages_total")),
    Panel(
        "Rounds of the fan-out",
        "cps",
        grown("agni_watch_rounds_total"),
        "One round carries what came in meanwhile to all watches.",
    ),
    Panel(
        "Watches that fell behind",
        "cps",
        grown("agni_watch_gaps_total"),
        "They got GAP and the difference in place of each event.",
    ),
]

RAFT = [
    Panel(
        "Quorum rounds, and leases of leaders given up",
        "ops",
        (
            (counter("agni_quorum_rounds_total"), "rounds {{instance}}"),
            (counter("agni_leases_voided_total"), "given up {{instance}}"),
        ),
        "A lease is given up where the node stood still, or its wall clock jumped.",
    ),
    Panel(
        "Entries that a replica lacks",
        "short",
        ((f"max by (node_id) (agni_replica_lag_entries{ALL})", "node {{node_id}}"),),
        "Where it lacks most, as the leaders know.",
        red_from=10_000,
    ),
    Panel(
        "Replicas that are silent",
        "none",
        ((f"sum by (node_id) (1 - agni_replica_alive{ALL})", "node {{node_id}}"),),
        red_from=1,
    ),
    Panel(
        "Elections",
        "none",
        (
            (
                (
                    f"max by (partition) (max_over_time(agni_term{ALL}[5m]) "
                    f"- min_over_time(agni_term{ALL}[5m]))"
                ),
                "partition {{partition}}",
            ),
        ),
        "By how much the term grew within five minutes.",
    ),
    Panel(
        "Committed",
        "cps",
        ((f"rate(agni_commit_index{ALL}[$__rate_interval])", "{{partition}} {{instance}}"),),
    ),
    Panel(
        "Committed, not applied",
        "short",
        (
            (
                f"max by (instance) (agni_commit_index{SOME} - agni_applied_index{SOME})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Connections between nodes",
        "none",
        ((f"sum by (instance) (agni_peer_connected{SOME})", "{{instance}}"),),
        "Each node has one to each other.",
    ),
    Panel("Raft messages sent", "cps", grown("agni_peer_messages_sent_total")),
    Panel("Raft messages received", "cps", grown("agni_peer_messages_received_total")),
    Panel(
        "Raft messages that wait",
        "short",
        tuple(
            (f"sum by (instance) (agni_peer_queue_{what}{SOME})", f"{what} {{{{instance}}}}")
            for what in ("messages", "bytes")
        ),
    ),
    Panel(
        "Replicas compared up to",
        "short",
        ((f"agni_state_checked_index{SOME}", "{{partition}} {{instance}}"),),
        "Log index. One that stays behind for long was not compared.",
    ),
    Panel(
        "Raft messages dropped or refused",
        "cps",
        (
            (counter("agni_peer_messages_dropped_total"), "dropped {{instance}}"),
            (counter("agni_peer_refused_total"), "refused {{instance}}"),
        ),
    ),
    Panel("Connections made to other nodes", "cps", grown("agni_peer_connects_total")),
    Panel(
        "Snapshots between nodes",
        "Bps",
        (
            (counter("agni_peer_snapshot_bytes_sent_total"), "sent by {{instance}}"),
            (counter("agni_peer_snapshot_bytes_received_total"), "received by {{instance}}"),
        ),
    ),
    Panel(
        "Snapshots that arrived, and that didn't",
        "cps",
        (
            (counter("agni_peer_snapshots_sent_total"), "taken from {{instance}}"),
            (counter("agni_peer_snapshots_failed_total"), "failed {{instance}}"),
        ),
    ),
]

DISK = [
    Panel("Free disk", "bytes", each("agni_disk_free_bytes")),
    Panel("Log on disk", "bytes", each("agni_wal_bytes")),
    Panel(
        "State of the disk",
        "none",
        each("agni_disk_state"),
        "0 there is room, 1 little, 2 none.",
        red_from=1,
    ),
    Panel("Bytes written to the log", "Bps", grown("agni_batch_bytes_sum")),
    Panel(
        "Snapshots",
        "cps",
        (
            (counter("agni_snapshots_total"), "taken {{instance}}"),
            (counter("agni_snapshots_failed_total"), "failed {{instance}}"),
        ),
    ),
    Panel("Time of a snapshot", "s", p99("agni_snapshot_seconds")),
    Panel(
        "Backups",
        "cps",
        (
            (counter("agni_backups_total"), "whole {{instance}}"),
            (counter("agni_backups_failed_total"), "broken off {{instance}}"),
        ),
    ),
    Panel("Bytes of backups", "Bps", grown("agni_backup_bytes_total")),
    Panel("Time of a backup", "s", p99("agni_backup_seconds")),
]

PROCESS = [
    Panel("Processor", "none", grown("process_cpu_seconds_total"), "Cores that are kept busy."),
    Panel(
        "Memory",
        "bytes",
        (
            ("process_resident_memory_bytes" + SOME, "{{instance}}"),
            (f"sum by (instance) (agni_store_bytes{SOME})", "records {{instance}}"),
        ),
    ),
    Panel(
        "File descriptors",
        "percentunit",
        ((f"process_open_fds{SOME} / process_max_fds{SOME}", "{{instance}}"),),
        red_from=0.8,
    ),
    Panel(
        "Connections",
        "short",
        (
            ("agni_connections" + SOME, "open {{instance}}"),
            (counter("agni_connections_refused_total"), "refused/s {{instance}}"),
        ),
    ),
    Panel(
        "Certificate lasts",
        "s",
        each("agni_tls_certificate_expiry_seconds"),
        red_below=6 * 3600,
    ),
    Panel(
        "Handshakes that failed",
        "cps",
        ((counter("agni_tls_handshake_failures_total", by="reason"), "{{reason}}"),),
    ),
    Panel("Stood still", "s", grown("agni_stalled_seconds_total"), "Seconds of a second."),
    Panel("Time since the start", "s", each("agni_uptime_seconds")),
    Panel(
        "Versions",
        "none",
        ((f"count by (version, build_profile) (agni_node_info{ALL})", "{{version}}"),),
    ),
]

ROWS = {
    "Overview": OVERVIEW,
    "Writes and their latency, by stage": WRITES,
    "Leases": LEASES,
    "Reads and watches": READS,
    "Raft and the other nodes": RAFT,
    "Disk, log and snapshots": DISK,
    "Process and TLS": PROCESS,
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": place})  # fmt: skip
        top += 1
        for index, panel in enumerate(row):
            width = WIDTH // COLUMNS
            place = {"h": HEIGHT, "w": width, "x": index % COLUMNS * width,
                     "y": top + index // COLUMNS * HEIGHT}  # fmt: skip
            panels.append(as_json(panel) | {"gridPos": place})
        top += -(-len(row) // COLUMNS) * HEIGHT
    return {
        "title": "AgniRegistry",
        "uid": "agniregistry",
        "description": "A cluster of AgniRegistry: one scrape job is one cluster.",
        "tags": ["agniregistry"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _variables() -> list[dict[str, Any]]:
    def query(name: str, label: str, expression: str) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": expression, "refId": name},
            "definition": expression,
            "refresh": 2,
            "sort": 1,
        }

    return [
        {"name": "datasource", "label": "Data source", "type": "datasource",
         "query": "prometheus", "refresh": 1},
        query("job", "Cluster", "label_values(agni_ready, job)"),
        query("instance", "Node", f"label_values(agni_ready{ALL}, instance)")
        | {"multi": True, "includeAll": True, "allValue": ".*",
           "current": {"text": "All", "value": "$__all"}},
    ]  # fmt: skip


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
